"""
What decides in a distillation: the score of the weights, and where the states come from. And the same score in reinforcement
learning.

    python benchmarks/ablation.py tqc-HalfCheetah-v4.zip --json benchmarks/results/ablation.json

The agent is distilled at 95 % as ``distill`` does it, and with one thing changed: weights ranked by their magnitude; states of
the teacher's own episodes alone; states of the teacher with segments of noisy actions, but none of the student. The number of
states is the same. Students have float weights, and play the same fresh episodes as the teacher.

SAC is trained from scratch by the recipe ``sac_gmp`` with actor and critics pruned gradually to 95 %, by magnitude and by the
score of ``distill``, in the engine. Runs and students are kept, and a second call makes only what is missing.
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
from intervals import difference_interval, mean_interval
from report import store
from rich.console import Console
from rich.table import Table
from runs import Run, load, returns_of, train
from students import keep, name_of, open_teacher, play_episodes, ratio

from sb3_sparse import compress, distill
from sb3_sparse.agents import Player, play_observations
from sb3_sparse.distillation.experience.rollouts import Rollouts

ENV, SPARSITY = "HalfCheetah-v4", 0.95
BASE, MAGNITUDE, PATH, NOISY = "as it is", "magnitude", "the teacher's path alone", "the teacher's path and noise"
ARMS = (BASE, MAGNITUDE, PATH, NOISY)
#: The score of the weights in reinforcement learning.
SCORES = ("magnitude", "fisher")


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


def make_runs(steps: int, seeds: range, root: Path) -> dict[str, list[Run]]:
    """
    :param steps: Environment steps of SAC.
    :param seeds: Seeds.
    :param root: Where the runs are kept.
    :return: The runs of each score
    """

    def run(score: str, seed: int) -> Run:
        pruning = {"network": ["actor", "critic"], "final_sparsity": SPARSITY, "initial_sparsity": 0.6, "saliency": score}
        pruning |= {"start": 0.05, "end": 0.5, "update_freq": 1000}
        hyperparams = (f"callback:{[{'sb3_sparse.GradualPruningCallback': pruning}]}",)
        # The name of the folder is made of the recipe, the sparsity and the seed.
        options = {"eval_episodes": 5, "evaluations": 10, "hyperparams": hyperparams, "engine": True}
        return Run("sac", ENV, "gmp", None, seed, steps, root / score, **options)

    return {score: [run(score, seed) for seed in seeds] for score in SCORES}


def main() -> None:
    """Make what is missing, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent", type=Path, nargs="?", help="without one, SAC is all that is trained")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=50, help="of each student (%(default)s)")
    parser.add_argument("--sac-steps", type=int, default=200_000, help="0 for no SAC (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("logs/ablation"), help="where runs and students are kept")
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
        args.seeds, args.sac_steps, lengths = 1, 1_000, {"updates": 5_000, "steps": 3_000, "episodes": 2}
        args.folder = Path("logs/ablation_quick")
    result: dict[str, Any] = {"ratios": {}, "intervals": {}, "lengths": lengths, "seeds": args.seeds}
    if args.agent:
        found = students(args.agent, range(args.seeds), lengths, args.folder)
        result |= compare_students(found, np.random.default_rng(0))
    if args.sac_steps:
        runs = make_runs(args.sac_steps, range(1, args.seeds + 1), args.folder)
        train([run for each in runs.values() for run in each], 1)
        means = {score: np.array([np.mean(returns_of(run, load(run), 20)) for run in runs[score]]) for score in SCORES}
        result["sac"] = {
            "steps": args.sac_steps,
            "returns": {score: means[score].round(1).tolist() for score in SCORES},
            "intervals": {score: mean_interval(means[score]) for score in SCORES},
            "difference": difference_interval(means["fisher"], means["magnitude"]),
        }
    table = Table("distillation", "share of the return", "95 % interval", "returns", "worst episodes")
    for arm, share in result["ratios"].items():
        own = result["arms"][arm]
        table.add_row(arm, f"{share:.3f}", str(result["intervals"][arm]), str(own["returns"]), str(own["worst"]))
    Console(width=150).print(table)
    if "sac" in result:
        Console(width=150).print(result["sac"])
    if args.json:
        store(args.json, result)


if __name__ == "__main__":
    main()
