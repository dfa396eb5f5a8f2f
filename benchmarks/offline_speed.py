"""
How fast BCQ and behaviour cloning learn, beside d3rlpy: updates per CPU second over those of d3rlpy.

    python3.11 -m venv d3rlpy-venv && d3rlpy-venv/bin/pip install torch==2.13.0 d3rlpy==2.8.1
    python benchmarks/offline_speed.py --d3rlpy d3rlpy-venv/bin/python --json benchmarks/results/offline_speed.json

Both sides have HalfCheetah's sizes (17 observations, 6 actions, 100,000 random transitions), batches of 100 and Adam at
1e-3; BCQ has actor and critics of 400-300, a VAE of 750-750 with 12 latent variables, and 10 actions per target (d3rlpy's
default of 100 costs five times as much); cloning is by an MLP of 256-256, or by that VAE. Ours is timed within ``learn``,
with its callbacks and log, from the first update on, in the engine (``bcq/dense``) and without it (``torch/bcq/dense``).
d3rlpy is timed in what its ``fit`` does per step, its own sampling and ``update``, without progress bar and log, and without
``compile_graph``, which is for GPUs. Its BCQ clones by the VAE alone before ``rl_start_step``.

All live in processes of their own, on one and the same core with one thread each, and take turns in an order that is drawn
anew in every round, so that a busy machine slows all alike. Time is the CPU time of the process; a ratio is the median over
the rounds. ``sparse/0.95`` is ours, pruned by SNIP to 95 % before its first update, over dense d3rlpy. Numbers below 1e-38
are kept by torch and by d3rlpy, and slow both down, as dead units make them. Without ``--d3rlpy`` there are no ratios at
all.
"""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from overhead import interval
from report import describe_versions, store
from rich.console import Console
from rich.progress import track
from rich.table import Table
from workers import Worker, pin

SCRIPT = Path(__file__).with_name("offline_workers.py")
#: Updates per turn, by the algorithm.
UPDATES = {"bcq": 20, "bc_mlp": 200, "bc_vae": 50}


def updates(name: str, share: float) -> int:
    """Updates per turn of a learner, such as "bcq/dense"."""
    return max(1, int(share * UPDATES[name.split("/")[0]]))


def measure(workers: list[Worker], rounds: int, share: float) -> dict[str, np.ndarray]:
    """
    :param workers: The sides.
    :param rounds: Number of rounds in which every learner has its turn; one more before them is not counted.
    :param share: Of the usual number of updates per turn.
    :return: By side and learner ("engine/bcq/dense"), seconds per update in each round
    """
    rng = np.random.default_rng(0)
    turns = [(worker, name) for worker in workers for name in worker.learners]
    times: dict[str, list[float]] = {f"{worker.side}/{name}": [] for worker, name in turns}
    for number in track(range(rounds + 1), description="rounds"):
        for turn in rng.permutation(len(turns)):
            worker, name = turns[turn]
            took = worker.seconds(name, updates(name, share))
            if number > 0:
                times[f"{worker.side}/{name}"].append(took)
    return {name: np.array(values) for name, values in times.items()}


def compare(times: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """
    :param times: Seconds per update in each round, see :func:`measure`.
    :return: By our learner, see :func:`called`, its updates per second over those of d3rlpy's dense one in each round
    """
    ratios = {}
    for name, values in times.items():
        side, _, learner = name.partition("/")
        other = times.get(f"d3rlpy/{learner.split('/')[0]}")
        if side != "d3rlpy" and other is not None:
            ratios[called(name)] = other / values
    return ratios


def called(name: str) -> str:
    """
    :param name: Side and learner, such as "engine/bcq/dense".
    :return: The name of its ratio: the learner alone in the engine, with the side elsewhere
    """
    return name.removeprefix("engine/")


def summarize(times: dict[str, np.ndarray]) -> dict[str, dict[str, object]]:
    """
    :param times: Seconds per update in each round, see :func:`measure`.
    :return: Medians over the rounds, of speeds and of ratios, and the intervals of the latter
    """
    rng = np.random.default_rng(0)
    ratios = compare(times)
    return {
        "ratios": {name: round(float(np.median(values)), 4) for name, values in ratios.items()},
        "intervals": {name: interval(values, rng) for name, values in ratios.items()},
        "updates_per_second": {name: round(1.0 / float(np.median(values)), 2) for name, values in times.items()},
    }


def show(result: dict[str, dict[str, object]]) -> None:
    """
    :param result: What :func:`summarize` returns.
    """
    table = Table("side", "learner", "updates per second", "over d3rlpy", "95 % interval")
    for name, speed in result["updates_per_second"].items():
        side, _, learner = name.partition("/")
        ratio = result["ratios"].get(called(name))
        cells = ("", "") if ratio is None else (f"{ratio:.3f}", "{:.3f} - {:.3f}".format(*result["intervals"][called(name)]))
        table.add_row(side, learner, f"{speed:,.1f}", *cells)
    Console().print(table)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d3rlpy", type=Path, help="a Python that has d3rlpy 2.8.1; without it there are no ratios")
    parser.add_argument("--quick", action="store_true", help="three short rounds, for a check")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path, help="where to store the result")
    args = parser.parse_args()
    pin()
    rounds, share = (3, 0.25) if args.quick else (args.rounds, 1.0)
    with ExitStack() as stack:
        sides = {"engine": sys.executable, "torch": sys.executable} | ({"d3rlpy": args.d3rlpy} if args.d3rlpy else {})
        workers = []
        for side, python in sides.items():
            workers.append(Worker(python, SCRIPT, [side]))
            stack.callback(workers[-1].close)
        times = measure(workers, rounds, share)
    result = summarize(times)
    show(result)
    if not args.d3rlpy:
        print("The ratios are skipped: give --d3rlpy a Python that has d3rlpy 2.8.1.")
    if args.json:
        theirs = workers[-1].versions if args.d3rlpy else {}
        versions = describe_versions() | {f"{package} beside d3rlpy": number for package, number in theirs.items()}
        rows = {"rounds": rounds, "updates_per_turn": {name: updates(name, share) for name in UPDATES}, "versions": versions}
        store(args.json, result | rows)


if __name__ == "__main__":
    main()
