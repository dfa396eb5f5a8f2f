"""
How fast SAC trains in the engine, beside SBX and RLtools: CPU time of an environment step over that of stock SB3.

    python -m benchmarks.speed.rivals --json benchmarks/results/rivals.json

SBX (SB3's algorithms on JAX) and RLtools (C++, by its Python wheel) are installed from PyPI into an environment each, in
``--folder``; that takes minutes once. RLtools compiles its training loop with the C++ compiler of this machine. It multiplies
by MKL, as its documentation advises for Linux; ``rltools/loops`` is what ``pip install rltools`` alone gives where no BLAS is
installed. A rival that cannot be installed, compiled or started is skipped, with the reason.

All make one gradient step of SAC per environment step. On HalfCheetah-v4 networks have two hidden layers of 256 units and
batches 256 samples. Pendulum has RLtools' own setting, 64-64 and batches of 100, and 256-256 with batches of 256. SB3, the
engine and SBX train in SB3's ``learn()`` on Gymnasium's Pendulum-v1, with Monitor and logger. RLtools trains on its own
Pendulum in C++, which costs next to nothing, and in ``rltools/gymnasium`` on Gymnasium's. Nothing is evaluated.

Every contestant is a process that is kept, all on one core with one thread each. They take turns in an order that is drawn
anew in every round, so that a busy machine slows all alike. Time is the CPU time of all threads of the process after learning
has begun: imports, JAX's compilation and RLtools' are left out, and so are the first ten steps of every call of ``learn()``.
A ratio is the median over the rounds of SB3's time over the contestant's, with a bootstrap interval of that median.
"""

import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.shared.question import ask, option, ratio_table
from benchmarks.shared.store import Result, describe_versions
from benchmarks.shared.turns import Rounds, pin, summarize, take_turns
from benchmarks.shared.workers import ROOT, Worker

#: What pip installs for each rival, call by call. torch comes first: anything else would bring gigabytes of CUDA.
RIVALS = {
    "sbx": (["torch==2.13.0"], ["sbx-rl==0.28.0", "jax==0.10.2", "gymnasium[mujoco]"]),
    "rltools": (["rltools[mkl]==2.2.1", "gymnasium"],),
}
#: The contestant that all others are compared with.
BASE = "sb3"


@dataclass(frozen=True)
class Comparison:
    """Contestants of one environment and one size, see ``rival_workers.py``."""

    name: str
    env: str
    width: int
    batch_size: int
    sides: tuple[str, ...]


RLTOOLS = ("rltools", "rltools/gymnasium", "rltools/loops")
COMPARISONS = (
    Comparison("halfcheetah", "HalfCheetah-v4", 256, 256, (BASE, "sbx", "dense", "sparse/0.9", "sparse/0.99")),
    Comparison("pendulum/64", "Pendulum-v1", 64, 100, (BASE, "sbx", "dense", *RLTOOLS)),
    Comparison("pendulum/256", "Pendulum-v1", 256, 256, (BASE, "sbx", "dense", *RLTOOLS)),
)
QUICK = (
    Comparison("halfcheetah", "HalfCheetah-v4", 256, 256, (BASE, "sbx", "sparse/0.9")),
    Comparison("pendulum/64", "Pendulum-v1", 64, 100, (BASE, "dense", "rltools")),
)


def install(rival: str, folder: Path) -> Path:
    """
    :param rival: One of ``RIVALS``.
    :param folder: Where environments are kept.
    :return: The Python of its environment, which is made where it is missing
    :raises RuntimeError: if pip fails
    """
    root = folder / rival
    python, done = root / "bin" / "python", root / ".installed"
    if done.is_file() and done.read_text() == str(RIVALS[rival]):
        return python
    print(f"installing {rival} in {root}")
    pip = [str(python), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
    for command in ([sys.executable, "-m", "venv", "--clear", str(root)], *([*pip, *packages] for packages in RIVALS[rival])):
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode:
            raise RuntimeError(f"{rival} cannot be installed: {last_line(answer.stderr)}")
    done.write_text(str(RIVALS[rival]))
    return python


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no reason given")


def start(comparison: Comparison, side: str, folder: Path) -> Worker:
    """
    :param comparison: What it is for.
    :param side: Name of a contestant.
    :param folder: Where environments are kept, and RLtools' compiled code.
    :return: The contestant, which has begun to learn
    """
    rival = side.split("/")[0]
    python = install(rival, folder) if rival in RIVALS else sys.executable
    sizes = (str(comparison.width), str(comparison.batch_size))
    return Worker(python, "benchmarks.speed.rival_workers", [side, comparison.env, *sizes, str(folder)])


def time_contestants(comparison: Comparison, result: Result, folder: Path, seconds: float, rng: np.random.Generator) -> Rounds:
    """
    Start the contestants of a comparison, measure and end them.

    :param comparison: The comparison.
    :param result: Where to add versions, and why somebody was skipped.
    :param folder: Where environments are kept.
    :param seconds: CPU seconds of a turn, about.
    :param rng: Source of the order of turns.
    :return: CPU seconds per environment step by contestant in each round
    """
    with ExitStack() as stack:
        turns = {}
        for side in comparison.sides:
            try:
                worker = start(comparison, side, folder)
            except RuntimeError as error:
                if side.split("/")[0] not in RIVALS:
                    raise
                result["skipped"][f"{comparison.name}/{side}"] = last_line(str(error))
                continue
            stack.callback(worker.close)
            result["versions"] |= worker.versions
            steps = int(np.clip(seconds / worker.seconds(side, 10), 10, 20_000))
            turns[side] = partial(worker.seconds, side, steps)
        return take_turns(turns, result["rounds"], rng, comparison.name)


def measure(args: Namespace) -> Iterator[Result]:
    """
    :param args: The rounds, whether to be quick, and where the rivals' environments are kept.
    :return: SB3's time over that of each contestant, after every comparison
    """
    pin()
    args.folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    result: Result = {"ratios": {}, "intervals": {}, "milliseconds": {}, "skipped": {}, "rounds": args.rounds}
    result["versions"] = describe_versions()
    for comparison in QUICK if args.quick else COMPARISONS:
        found = time_contestants(comparison, result, args.folder.resolve(), 0.3 if args.quick else 1.2, rng)
        times = {f"{comparison.name}/{side}": values for side, values in found.items()}
        result["milliseconds"] |= {name: round(1000.0 * float(np.median(values)), 3) for name, values in times.items()}
        base = times.pop(f"{comparison.name}/{BASE}")
        for key, values in summarize({name: base / values for name, values in times.items()}, rng).items():
            result[key] |= values
        yield result


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: A table, and why somebody was skipped
    """
    times = {name: f"{value:.3f}" for name, value in result["milliseconds"].items()}
    yield ratio_table("CPU time of an environment step", "stock SB3 over this", result, {"ms per step": times})
    yield from (f"{name} is skipped: {reason}" for name, reason in result["skipped"].items())


if __name__ == "__main__":
    ask(
        measure,
        option("--rounds", 9, "rounds of each comparison", quick=3),
        option("--folder", Path("logs/rivals"), "where the rivals' environments are kept"),
        show=show,
        quick="few contestants and rounds",
    )
