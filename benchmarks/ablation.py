"""
What decides in a distillation: the score of the weights, and where the states come from.

    python benchmarks/ablation.py tqc-HalfCheetah-v4.zip --json benchmarks/results/ablation.json

The agent is distilled at 95 % as ``distill`` does it, and with one thing changed: weights ranked by their magnitude; states of
the teacher's own episodes alone; states of the teacher with segments of noisy actions, but none of the student. The number of
states is the same. Students have float weights, and play the same fresh episodes as the teacher.
Students are kept, and a second call makes only what is missing. The grid ``sac_scores`` asks about the score in reinforcement
learning.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from report import store
from rich.console import Console
from rich.table import Table
from students import keep, name_of, open_teacher, play_episodes, ratio

from sb3_sparse import compress, distill
from sb3_sparse.agents import Player, play_observations
from sb3_sparse.distillation.experience.rollouts import Rollouts

ENV, SPARSITY = "HalfCheetah-v4", 0.95
BASE, MAGNITUDE, PATH, NOISY = "as it is", "magnitude", "the teacher's path alone", "the teacher's path and noise"
ARMS = (BASE, MAGNITUDE, PATH, NOISY)


def make_student(agent: Path, arm: str, seed: int, lengths: dict[str, int], out: Path) -> None:
    """
    Make one student, play it, and write its returns.

    :param agent: Zip of the teacher.
    :param arm: What is changed; "teacher" for the teacher itself.
    :param seed: Seed of the distillation.
    :param lengths: Updates, steps and episodes.
    :param out: Where to write.
    """
    th.set_num_threads(1)
    opened = open_teacher(agent)
    model, venv, normalization = opened.model, opened.venv, opened.normalization
    assert venv is not None
    act, steps, given = Player(compress(model, 32, normalization=normalization)), lengths["steps"], venv
    if arm == PATH:
        given = play_observations(venv, act, steps, seed=100_003 * seed)
    if arm == NOISY:
        given, _ = Rollouts(venv, lambda observations: np.stack([act(each, False) for each in observations])).play(steps, seed)
        given = given[:steps]
    student = model
    if arm != "teacher":
        saliency = "magnitude" if arm == MAGNITUDE else "fisher"
        settings = {"seed": seed, "updates": lengths["updates"], "saliency": saliency, "normalization": normalization}
        student = distill(model, given, SPARSITY, steps=steps, **settings)
    policy = Player(compress(student, 32, normalization=normalization))
    keep(play_episodes(venv, policy, lengths["episodes"])["returns"], out)


def students(agent: Path, seeds: range, lengths: dict[str, int], folder: Path) -> dict[str, list[list[float]]]:
    """
    :param agent: Zip of the teacher.
    :param seeds: Seeds of the distillations.
    :param lengths: Updates, steps and episodes.
    :param folder: Where results are kept.
    :return: Returns of each seed's student by arm, and those of the teacher
    """
    found: dict[str, list[list[float]]] = {}
    for seed in seeds:
        for arm in ("teacher", *ARMS):
            if arm == "teacher" and arm in found:
                continue
            name = "_".join(map(str, (arm.replace(" ", "-"), seed, *lengths.values())))
            out = folder / name_of(agent) / f"{name}.json"
            if not out.exists():
                print(f"{arm}, seed {seed}", flush=True)
                command = [sys.executable, __file__, str(agent), "--cell", arm, str(seed), json.dumps(lengths), str(out)]
                subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
            found.setdefault(arm, []).append(json.loads(out.read_text()))
    return found


def compare_students(found: dict[str, list[list[float]]], rng: np.random.Generator) -> dict[str, Any]:
    """
    :param found: Returns by arm.
    :param rng: Source of the bootstrap.
    :return: Share of the teacher's return by arm, with intervals by a bootstrap over seeds and episodes, worst episodes
    """
    (teacher,) = found["teacher"]
    result: dict[str, Any] = {"ratios": {}, "intervals": {}, "arms": {}}
    for arm in ARMS:
        table = np.array(found[arm])
        result["ratios"][arm], result["intervals"][arm] = ratio(teacher, found[arm], rng)
        result["arms"][arm] = {
            "returns": table.mean(axis=1).round(1).tolist(),
            "deviations": table.std(axis=1).round(1).tolist(),
            "worst": table.min(axis=1).round(1).tolist(),
        }
    return {**result, "teacher": round(float(np.mean(teacher)), 1)}


def main() -> None:
    """Make what is missing, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=50, help="of each student (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("logs/ablation"), help="where students are kept")
    parser.add_argument("--quick", action="store_true", help="a short check, not a result")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cell", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        arm, seed, lengths, out = args.cell
        make_student(args.agent, arm, int(seed), json.loads(lengths), Path(out))
        return
    th.set_num_threads(1)
    lengths = {"updates": 100_000, "steps": 300_000, "episodes": args.episodes}
    if args.quick:
        args.seeds, lengths = 1, {"updates": 5_000, "steps": 3_000, "episodes": 2}
        args.folder = Path("logs/ablation_quick")
    result: dict[str, Any] = {"ratios": {}, "intervals": {}, "lengths": lengths, "seeds": args.seeds}
    found = students(args.agent, range(args.seeds), lengths, args.folder)
    result |= compare_students(found, np.random.default_rng(0))
    table = Table("distillation", "share of the return", "95 % interval", "returns", "worst episodes")
    for arm, share in result["ratios"].items():
        own = result["arms"][arm]
        table.add_row(arm, f"{share:.3f}", str(result["intervals"][arm]), str(own["returns"]), str(own["worst"]))
    Console(width=150).print(table)
    if args.json:
        store(args.json, result)


if __name__ == "__main__":
    main()
