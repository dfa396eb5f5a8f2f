"""
How fast SAC trains in the engine, beside SBX and RLtools: CPU time of an environment step over that of stock SB3.

    python benchmarks/rivals.py --json benchmarks/results/rivals.json

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

import argparse
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from overhead import interval
from report import describe_versions, store
from rich.console import Console
from rich.progress import track
from rich.table import Table
from workers import Worker, pin

HERE = Path(__file__).parent
SCRIPT = HERE / "rival_workers.py"
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
    pip = [str(python), "-m", "pip", "install", "-q", "-c", str(HERE.parent / "constraints.txt")]
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
    return Worker(python, SCRIPT, [side, comparison.env, *sizes, str(folder)])


def measure(
    workers: dict[str, Worker], rounds: int, seconds: float, description: str, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """
    :param workers: Contestants by name.
    :param rounds: Number of rounds in which each has its turn.
    :param seconds: CPU seconds of a turn, about.
    :param description: What to show meanwhile.
    :param rng: Source of the order of turns.
    :return: CPU seconds per environment step in each round
    """
    steps = {name: int(np.clip(seconds / worker.seconds(name, 10), 10, 20_000)) for name, worker in workers.items()}
    times: dict[str, list[float]] = {name: [] for name in workers}
    for _ in track(range(rounds), description=description):
        for name in map(str, rng.permutation(list(workers))):
            times[name].append(workers[name].seconds(name, steps[name]))
    return {name: np.array(values) for name, values in times.items()}


def compare(comparison: Comparison, result: dict, folder: Path, seconds: float, rng: np.random.Generator) -> None:
    """
    Start the contestants of a comparison, measure and end them.

    :param comparison: The comparison.
    :param result: Where to add ratios, intervals, times, versions, and why somebody was skipped.
    :param folder: Where environments are kept.
    :param seconds: CPU seconds of a turn.
    :param rng: Source of the order of turns, and of the bootstrap.
    """
    with ExitStack() as stack:
        workers = {}
        for side in comparison.sides:
            try:
                workers[side] = start(comparison, side, folder)
            except RuntimeError as error:
                if side.split("/")[0] not in RIVALS:
                    raise
                result["skipped"][f"{comparison.name}/{side}"] = last_line(str(error))
                continue
            stack.callback(workers[side].close)
            result["versions"] |= workers[side].versions
        times = measure(workers, result["rounds"], seconds, comparison.name, rng)
    table = Table("contestant", "over stock SB3", "95 % interval", "ms per step")
    for side, values in times.items():
        name = f"{comparison.name}/{side}"
        result["milliseconds"][name] = round(1000.0 * float(np.median(values)), 3)
        if side != BASE:
            result["ratios"][name] = round(float(np.median(times[BASE] / values)), 3)
            result["intervals"][name] = interval(times[BASE] / values, rng)
        low, high = result["intervals"].get(name, (1.0, 1.0))
        table.add_row(
            name, f"{result['ratios'].get(name, 1.0):.2f}", f"{low:.2f} to {high:.2f}", f"{result['milliseconds'][name]:.3f}"
        )
    Console(width=110).print(table)


def main() -> None:
    """Measure, print and store, after every comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few contestants and rounds: a check, not a result")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each comparison")
    parser.add_argument("--folder", type=Path, default=Path("logs/rivals"), help="where the rivals' environments are kept")
    parser.add_argument("--json", type=Path, help="where to store the result")
    args = parser.parse_args()
    pin()
    args.folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rounds, seconds = (3, 0.3) if args.quick else (args.rounds, 1.2)
    result: dict = {"ratios": {}, "intervals": {}, "milliseconds": {}, "skipped": {}, "rounds": rounds}
    result["versions"] = describe_versions()
    for comparison in QUICK if args.quick else COMPARISONS:
        compare(comparison, result, args.folder, seconds, rng)
        if args.json:
            store(args.json, result)
    for name, reason in result["skipped"].items():
        print(f"{name} is skipped: {reason}")


if __name__ == "__main__":
    main()
