"""
A million steps of HalfCheetah on one core: SAC at 95 % by RigL in the engine, and dense SAC in the engine and on SB3.

    python benchmarks/halfcheetah.py --json benchmarks/results/halfcheetah.json --png benchmarks/results/halfcheetah.png

Every agent is trained by rl-zoo3 from the recipe ``sac_rigl``, by the command that is printed; the dense ones for fewer steps,
since SB3 needs hours for a million. CPU time is that of the whole process: start, training, evaluations. Runs are kept, and a
second call trains only what is missing.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch as th
from intervals import difference_interval, mean_interval
from report import store
from rich.console import Console
from rich.table import Table
from runs import Run, learning_curve, load, returns_of, train

ENV = "HalfCheetah-v4"
RIGL, DENSE, STOCK = "RigL 95 %, engine", "dense, engine", "dense, SB3"
COLORS = {RIGL: "tab:green", DENSE: "tab:blue", STOCK: "tab:gray"}


def make_runs(
    steps: int, dense_steps: int, seeds: range, dense_seeds: range, root: Path, evaluations: int
) -> dict[str, list[Run]]:
    """
    :param steps: Environment steps of the sparse agents.
    :param dense_steps: Environment steps of the dense agents.
    :param seeds: Seeds of the sparse agents.
    :param dense_seeds: Seeds of the dense agents.
    :param root: Where the runs are kept.
    :param evaluations: Evaluations during training, of five episodes each.
    :return: The runs of each contestant
    """
    contestants = {RIGL: (0.95, steps, True), DENSE: (0.0, dense_steps, True), STOCK: (0.0, dense_steps, False)}
    return {
        name: [
            Run("sac", ENV, "rigl", sparsity, seed, length, root, eval_episodes=5, evaluations=evaluations, engine=engine)
            for seed in (seeds if name == RIGL else dense_seeds)
        ]
        for name, (sparsity, length, engine) in contestants.items()
    }


def evaluate(runs: list[Run], episodes: int) -> dict:
    """
    :param runs: Finished runs of a contestant.
    :param episodes: Number of evaluation episodes.
    :return: Returns of each seed, their interval, learning curves, CPU time
    """
    returns = [returns_of(run, load(run), episodes) for run in runs]
    means = np.array([np.mean(r) for r in returns])
    return {
        "steps": runs[0].steps,
        "seeds": [run.seed for run in runs],
        "returns": returns,
        "mean": round(float(means.mean()), 1),
        "interval": mean_interval(means),
        "timesteps": learning_curve(runs[0])[0].tolist(),
        "curves": [learning_curve(run)[1].round(1).tolist() for run in runs],
        "cpu_seconds": [float(run.cpu_time.read_text()) for run in runs],
    }


def compare(found: dict[str, dict]) -> dict:
    """
    :param found: What :func:`evaluate` found, by contestant.
    :return: Ratio of CPU time per step, SB3 over the engine, and difference of returns, dense agents; nothing without them
    """
    if STOCK not in found:
        return {"ratios": {}, "intervals": {}}
    seconds = {name: np.mean(agents["cpu_seconds"]) / agents["steps"] for name, agents in found.items()}
    areas = {name: np.array([np.mean(curve) for curve in found[name]["curves"]]) for name in (DENSE, STOCK)}
    return {
        "ratios": {
            "CPU time, dense, SB3 / engine": round(float(seconds[STOCK] / seconds[DENSE]), 2),
            "CPU time, dense SB3 / RigL 95 % in the engine": round(float(seconds[STOCK] / seconds[RIGL]), 2),
        },
        "mean of the curve, dense, engine - SB3": round(float(areas[DENSE].mean() - areas[STOCK].mean()), 1),
        "intervals": {"mean of the curve, dense, engine - SB3": difference_interval(areas[DENSE], areas[STOCK])},
    }


def draw(found: dict[str, dict], png: Path) -> None:
    """
    :param found: What :func:`evaluate` found, by contestant.
    :param png: Where to draw the curves, over steps and over CPU time.
    """
    figure, (by_steps, by_time) = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
    for name, agents in found.items():
        steps = np.array(agents["timesteps"])
        for number, (curve, seconds) in enumerate(zip(agents["curves"], agents["cpu_seconds"], strict=True)):
            label = name if number == 0 else None
            by_steps.plot(steps, curve, color=COLORS[name], label=label)
            by_time.plot(steps / steps[-1] * seconds / 60, curve, color=COLORS[name], label=label)
    by_steps.set(xlabel="environment steps", ylabel="evaluation return, each seed", title=ENV)
    by_time.set(xlabel="CPU minutes, one core", title="the same runs over time")
    by_steps.legend()
    figure.tight_layout()
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=110)


def main() -> None:
    """Train, evaluate, print, draw and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000, help="of the sparse agents (%(default)s)")
    parser.add_argument("--dense-steps", type=int, default=300_000, help="of the dense agents (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="sparse agents (%(default)s)")
    parser.add_argument("--dense-seeds", type=int, default=1, help="dense agents, of each kind, or 0 (%(default)s)")
    parser.add_argument("--episodes", type=int, default=10, help="evaluation episodes per agent (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="training runs at a time (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("logs/halfcheetah"), help="where the runs are kept")
    parser.add_argument("--json", type=Path, help="where to store the result")
    parser.add_argument("--png", type=Path, help="where to draw the curves")
    parser.add_argument("--quick", action="store_true", help="1,000 steps, one seed: a check that it works, not a result")
    args = parser.parse_args()
    th.set_num_threads(1)
    evaluations = 20
    if args.quick:
        args.steps, args.dense_steps, args.seeds, args.episodes, evaluations = 1_000, 1_000, 1, 1, 1
    seeds, dense_seeds = range(1, args.seeds + 1), range(1, args.dense_seeds + 1)
    runs = make_runs(args.steps, args.dense_steps, seeds, dense_seeds, args.folder, evaluations)
    train([run for contestant in runs.values() for run in contestant], args.jobs)
    found = {name: evaluate(contestant, args.episodes) for name, contestant in runs.items() if contestant}
    result = {**compare(found), "agents": found}
    table = Table(title=f"{ENV}, {args.episodes} episodes for each agent")
    for column in ("agent", "steps", "return", "95 % interval", "CPU minutes"):
        table.add_column(column, justify="right")
    for name, agents in found.items():
        minutes = np.mean(agents["cpu_seconds"]) / 60
        table.add_row(name, f"{agents['steps']:,}", f"{agents['mean']:,.0f}", str(agents["interval"]), f"{minutes:.1f}")
    Console(width=110).print(table)
    if args.json:
        store(args.json, result)
    if args.png:
        draw(found, args.png)


if __name__ == "__main__":
    main()
