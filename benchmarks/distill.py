"""
How sparse does a trained agent become in minutes, and how well does it still play?

    python benchmarks/distill.py sac-HalfCheetah-v4.zip tqc-HalfCheetah-v4.zip sac-Hopper-v4.zip tqc-Hopper-v4.zip \\
        --json benchmarks/results/distill.json --png benchmarks/results/distill.png
    python benchmarks/distill.py sac-HalfCheetah-v4.zip tqc-HalfCheetah-v4.zip --sparsities 0.98 --seeds 2 \\
        --critic-updates 10000 --json benchmarks/results/distill_critics.json
    python benchmarks/distill.py {dqn,ppo}/CartPole-v1_1/CartPole-v1.zip {ppo,dqn}/Acrobot-v1_1/Acrobot-v1.zip \\
        {a2c,tqc}/Pendulum-v1_1/Pendulum-v1.zip dqn/MountainCar-v0_1/MountainCar-v0.zip ppo/Walker2d-v3_1/Walker2d-v3.zip \\
        --sparsities 0.95 --seeds 1 --json benchmarks/results/distill_others.json --png benchmarks/results/distill_others.png
    python benchmarks/distill.py dqn/MinAtarBreakout-v1_1/MinAtarBreakout-v1.zip --sparsities 0.95 --seeds 1 \\
        --updates 20000 --steps 60000 --json benchmarks/results/distill_images.json
    python benchmarks/distill.py ppo/Walker2d-v3_1/Walker2d-v3.zip --sparsities 0.95 --seeds 1 \\
        --updates 600000 --steps 400000 --json benchmarks/results/distill_longer.json
    python benchmarks/distill.py ppo/Walker2d-v3_1/Walker2d-v3.zip --sparsities 0.9 --seeds 1 \\
        --json benchmarks/results/distill_denser.json

Each agent is distilled into students of its own shape, for every sparsity and seed, in the environment that its file is named
after. Files in rl-zoo3's folders (``ppo/Acrobot-v1_1/Acrobot-v1.zip``) have their statistics and wrappers there. A student is
exported with float weights and with 8 bits, calibrated on its own episodes. Teacher, students and random actions then play the
same fresh episodes, which nothing was chosen on. Every student is the last one of its run. CPU time is that of the whole
process: start, environment steps, training, without the evaluation.

Every student is made by a process of its own with one thread. Its result is kept in ``--folder``, and a second call makes only
what is missing. Without agents, PPO is trained on CartPole-v1 first.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch as th
from report import store
from rich.console import Console
from rich.table import Table
from students import FIRST_EPISODE, keep, make_teacher, open_teacher, play_episodes, play_teacher, ratio, run_cells

from sb3_sparse import compress, distill
from sb3_sparse.agents import Player, model_act, play_observations

SPARSITIES = (0.9, 0.95, 0.98, 0.99)


def make_cell(agent: Path, cell: dict[str, Any], out: Path) -> None:
    """
    Make one student, play it, and write the result.

    :param agent: Zip of the teacher.
    :param cell: Sparsity, seed, settings and number of episodes; a sparsity of None is the teacher itself.
    :param out: Where to write.
    """
    th.set_num_threads(1)
    teacher = open_teacher(agent)
    model, venv, normalization = teacher.model, teacher.venv, teacher.normalization
    assert venv is not None
    if cell["sparsity"] is None:
        space = venv.action_space
        space.seed(FIRST_EPISODE)
        result = {
            "model": play_teacher(teacher, cell["episodes"]),
            "random": play_episodes(venv, lambda *_: space.sample(), cell["episodes"]),
            "teacher_steps": model.num_timesteps,
        }
    else:
        kwargs = {"seed": cell["seed"], "normalization": normalization, **cell["settings"]}
        student = distill(model, venv, cell["sparsity"], **kwargs)
        result = {"cpu_minutes": time.process_time() / 60}
        observations = play_observations(venv, model_act(student, normalization), 4096, FIRST_EPISODE - 100)
        for name, bits in (("float", 32), ("8 bits", 8)):
            policy = compress(student, bits, observations, normalization=normalization)
            result[name] = {**play_episodes(venv, Player(policy), cell["episodes"]), "nbytes": policy.nbytes}
    keep(result, out)


def name_cell(cell: dict[str, Any]) -> str:
    """
    :param cell: A cell.
    :return: Name of its file
    """
    name = "players" if cell["sparsity"] is None else f"{cell['sparsity']}_{cell['seed']}"
    own = {key: value for key, value in cell["settings"].items() if value is not None}
    return name + "".join(f"_{key}{value}" for key, value in own.items()) + f"_{cell['episodes']}"


def evaluate(name: str, cells: list[tuple[dict, dict]], rng: np.random.Generator, result: dict[str, Any]) -> None:
    """
    :param name: Name of an agent.
    :param cells: Its cells and their results.
    :param rng: Source of the bootstrap.
    :param result: Where ratios, intervals and the rest go.
    """
    (players,) = (found for cell, found in cells if cell["sparsity"] is None)
    teacher, nothing = players["model"], float(np.mean(players["random"]["returns"]))
    result["teachers"][name] = float(np.mean(teacher["returns"]))
    result["teacher_steps"][name], result["random"][name] = players["teacher_steps"], nothing
    longest = max(teacher["steps"])
    for sparsity in sorted({cell["sparsity"] for cell, _ in cells if cell["sparsity"] is not None}):
        own = [found for cell, found in cells if cell["sparsity"] == sparsity]
        for form in ("float", "8 bits"):
            key = f"{name}/{sparsity}/{form}"
            returns = np.array([found[form]["returns"] for found in own])
            for shares, intervals, origin in (("ratios", "intervals", 0.0), ("kept", "kept_intervals", nothing)):
                share, interval = ratio(np.array(teacher["returns"]) - origin, returns - origin, rng)
                result[shares][key], result[intervals][key] = share, interval
            shorter = [int((np.array(found[form]["steps"]) < longest).sum()) for found in own]
            result["students"][key] = {
                "returns": [round(float(np.mean(found[form]["returns"])), 1) for found in own],
                "shorter": shorter,
                "teacher_shorter": int((np.array(teacher["steps"]) < longest).sum()),
                "nbytes": [found[form]["nbytes"] for found in own],
                "cpu_minutes": [round(found["cpu_minutes"], 2) for found in own],
            }


def draw_agents(path: Path, result: dict[str, Any]) -> None:
    """What is kept at one sparsity, one column per agent."""
    names = list(result["teachers"])
    figure, axis = plt.subplots(figsize=(0.9 * len(names) + 1.2, 3.6))
    for form, color, shift in (("float", "tab:blue", -0.1), ("8 bits", "tab:green", 0.1)):
        keys = [key for key in result["kept"] if key.endswith(form)]
        y = np.array([result["kept"][key] for key in keys])
        low, high = np.array([result["kept_intervals"][key] for key in keys]).T
        error = [np.maximum(y - low, 0), np.maximum(high - y, 0)]
        axis.errorbar(np.arange(len(keys)) + shift, y, yerr=error, fmt="o", color=color, label=form, capsize=3)
    axis.axhline(1.0, color="tab:gray", linewidth=0.8)
    axis.set_ylim(bottom=0)
    axis.set_xticks(np.arange(len(names)), names, rotation=40, ha="right", fontsize=8)
    axis.set_ylabel("(student - random) / (teacher - random)", fontsize=8)
    axis.legend(loc="lower left")
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def draw(path: Path, result: dict[str, Any]) -> None:
    """Return over the teacher's by sparsity, one panel per agent."""
    names = list(result["teachers"])
    figure, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names), 3.2), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        for form, color in (("float", "tab:blue"), ("8 bits", "tab:green")):
            keys = [key for key in result["ratios"] if key.startswith(f"{name}/") and key.endswith(form)]
            x = np.arange(len(keys)) + (0.06 if form == "8 bits" else -0.06)
            y = np.array([result["ratios"][key] for key in keys])
            low, high = np.array([result["intervals"][key] for key in keys]).T
            axis.errorbar(
                x, y, yerr=[np.maximum(y - low, 0), np.maximum(high - y, 0)], fmt="o-", color=color, label=form, capsize=3
            )
            axis.set_xticks(np.arange(len(keys)), [f"{100 * float(key.split('/')[1]):.3g} %" for key in keys])
        axis.axhline(1.0, color="tab:gray", linewidth=0.8)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("sparsity")
    axes[0][0].set_ylabel("return / teacher's")
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Make what is missing, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agents", type=Path, nargs="*")
    parser.add_argument("--sparsities", type=float, nargs="+", default=list(SPARSITIES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--updates", type=int, help="updates of every student; by default those of distill")
    parser.add_argument("--steps", type=int, help="environment steps, likewise")
    parser.add_argument("--critic-updates", type=int, help="updates through the teacher's critics; by default none")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("logs/distill"), help="where students' results are kept")
    parser.add_argument("--quick", action="store_true", help="a short check, not a result")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        make_cell(args.agents[0], json.loads(args.cell[0]), Path(args.cell[1]))
        return
    th.set_num_threads(1)
    if args.quick:
        args.sparsities, args.seeds, args.episodes, args.updates, args.steps = [0.9], 2, 5, 5_000, 3_000
        args.folder = Path("logs/distill_quick")
    args.agents = args.agents or [make_teacher(args.folder)]
    settings = {"updates": args.updates, "steps": args.steps}
    settings |= {"critic_updates": args.critic_updates} if args.critic_updates else {}
    cells = [{"sparsity": None, "seed": 0, "settings": {}, "episodes": args.episodes}]
    cells += [
        {"sparsity": sparsity, "seed": seed, "settings": settings, "episodes": args.episodes}
        for seed in range(args.seeds)
        for sparsity in args.sparsities
    ]
    work = [(agent, cell) for cell in cells for agent in args.agents]
    found = run_cells(__file__, work, name_cell, args.folder, args.jobs)
    names = ("ratios", "intervals", "kept", "kept_intervals", "students", "teachers", "teacher_steps", "random")
    result: dict[str, Any] = {name: {} for name in names}
    result |= {"episodes": args.episodes, "seeds": args.seeds, **settings}
    rng = np.random.default_rng(0)
    for name, results in found.items():
        evaluate(name, results, rng, result)
    table = Table("student", "return / teacher's", "95 % interval", "shorter episodes", "bytes", "CPU minutes")
    for key, share in result["ratios"].items():
        low, high = result["intervals"][key]
        own = result["students"][key]
        columns = (own["shorter"], own["nbytes"], own["cpu_minutes"])
        table.add_row(key, f"{share:.3f}", f"{low:.3f} - {high:.3f}", *(", ".join(map(str, column)) for column in columns))
    Console(width=150).print(table)
    if args.json:
        store(args.json, result)
    if args.png:
        (draw if len(args.sparsities) > 1 else draw_agents)(args.png, result)


if __name__ == "__main__":
    main()
