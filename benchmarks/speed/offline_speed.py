"""
How fast BCQ and behaviour cloning learn, beside d3rlpy: updates per CPU second over those of d3rlpy.

    python3.11 -m venv d3rlpy-venv && d3rlpy-venv/bin/pip install torch==2.13.0 d3rlpy==2.8.1
    python -m benchmarks.speed.offline_speed --d3rlpy d3rlpy-venv/bin/python --json benchmarks/results/offline_speed.json

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

import sys
from argparse import Namespace
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.shared.question import ask, option, ratio_table
from benchmarks.shared.store import Result, describe_versions
from benchmarks.shared.turns import Rounds, pin, summarize, take_turns
from benchmarks.shared.workers import Worker

#: Updates per turn, by the algorithm.
UPDATES = {"bcq": 20, "bc_mlp": 200, "bc_vae": 50}


def updates(name: str, share: float) -> int:
    """Updates per turn of a learner, such as "bcq/dense"."""
    return max(1, int(share * UPDATES[name.split("/")[0]]))


def compare(times: Rounds) -> Rounds:
    """
    :param times: Seconds per update by side and learner, such as "engine/bcq/dense".
    :return: By our learner, alone in the engine and with the side elsewhere: its updates per second over those of d3rlpy's
        dense one in each round
    """
    ratios = {}
    for name, values in times.items():
        side, _, learner = name.partition("/")
        other = times.get(f"d3rlpy/{learner.split('/')[0]}")
        if side != "d3rlpy" and other is not None:
            ratios[name.removeprefix("engine/")] = other / values
    return ratios


def measure(args: Namespace) -> Result:
    """
    :param args: The rounds, whether to be quick, and the Python of d3rlpy.
    :return: Ratios and speeds
    """
    pin()
    share, rng = 0.25 if args.quick else 1.0, np.random.default_rng(0)
    sides = {"engine": sys.executable, "torch": sys.executable} | ({"d3rlpy": args.d3rlpy} if args.d3rlpy else {})
    with ExitStack() as stack:
        turns, theirs = {}, {}
        for side, python in sides.items():
            worker = Worker(python, "benchmarks.speed.offline_workers", [side])
            stack.callback(worker.close)
            theirs = worker.versions if side == "d3rlpy" else {}
            turns |= {f"{side}/{name}": partial(worker.seconds, name, updates(name, share)) for name in worker.learners}
        # The first round does not count.
        times = {name: values[1:] for name, values in take_turns(turns, args.rounds + 1, rng, "rounds").items()}
    return {
        **summarize(compare(times), rng),
        "updates_per_second": {name: round(1.0 / float(np.median(values)), 2) for name, values in times.items()},
        "rounds": args.rounds,
        "updates_per_turn": {name: updates(name, share) for name in UPDATES},
        "versions": describe_versions() | {f"{package} beside d3rlpy": number for package, number in theirs.items()},
    }


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: A table, and why there may be no ratios
    """
    speeds = {name.removeprefix("engine/"): f"{speed:,.1f}" for name, speed in result["updates_per_second"].items()}
    yield ratio_table("updates per CPU second", "over d3rlpy", result, {"updates per second": speeds})
    if not result["ratios"]:
        yield "The ratios are skipped: give --d3rlpy a Python that has d3rlpy 2.8.1."


if __name__ == "__main__":
    without = "a Python that has d3rlpy 2.8.1; without it there are no ratios"
    rounds = option("--rounds", 60, "rounds in which every learner has its turn", quick=3)
    ask(measure, rounds, option("--d3rlpy", None, without, type=Path), show=show, quick="short rounds")
