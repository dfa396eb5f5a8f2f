"""``sb3-sparse fit``."""

import argparse
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sb3_sparse.cli.arguments import Commands, add_agent, read_agent
from sb3_sparse.cores import BACKENDS

_UNITS = {"": 1, "k": 1024, "m": 1024**2}


def add_fit(commands: Commands) -> None:
    """
    :param commands: The commands of ``sb3-sparse``.
    """
    parser = commands.add_parser(
        "fit",
        allow_abbrev=False,
        help="search the smallest policy that plays like an agent, or the best that fits",
        epilog="The exit code is 1 if nothing reaches the target; the files then hold the nearest policy. After Ctrl-C the "
        "same command goes on.",
    )
    add_agent(parser, env="environment that it plays in", required=True)
    parser.add_argument("-o", "--out", type=Path, help="folder to write to; by default the agent's name with -fit")
    parser.add_argument("--flash", type=_bytes, help="most bytes of the C header in flash, such as 4k or 4096")
    parser.add_argument("--keep", type=float, help="least share of the return, such as 0.98: the smallest that keeps it")
    parser.add_argument("--us", type=float, help="most microseconds of a call on this machine")
    parser.add_argument(
        "--cycles",
        type=_count,
        help="most instructions of an action on the board, such as 20k (20,000): counted under QEMU, "
        "not cycles of hardware; on avr cycles",
    )
    parser.add_argument(
        "--board", help="emulated board of --cycles: m4f, m3 or m0+ (Cortex-M), rv32imc (RISC-V) or avr (ATmega2560)"
    )
    parser.add_argument("--bits", type=int, nargs="+", help="bits of the weights to search; by default 8 4 3 2")
    parser.add_argument("--updates", type=int, help="gradient updates of the last students; by default 200,000")
    parser.add_argument("--minutes", type=float, default=20, help="minutes that it may take, inf for no limit (%(default)s)")
    parser.add_argument(
        "--backend",
        default="loky",
        choices=BACKENDS,
        help="processes on this machine, or on a Ray cluster, whose nodes share the folder (%(default)s)",
    )
    parser.add_argument(
        "--jobs", type=int, help="processes, with one thread each; by default 2, with ray one for each core of the cluster"
    )
    parser.add_argument("--episodes", type=int, default=50, help="fresh episodes of each finalist (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn (%(default)s)")
    parser.set_defaults(run=_fit)


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)([km]?)b?", text.lower())
    if found is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of bytes, such as 4096 or 4k")
    return int(found[1]) * _UNITS[found[2]]


def _count(text: str) -> int:
    found = re.fullmatch(r"(\d+)([km]?)", text.lower())
    if found is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of instructions, such as 20000 or 20k")
    return int(found[1]) * {"": 1, "k": 1000, "m": 1000**2}[found[2]]


def _fit(args: argparse.Namespace, _: list[str]) -> Callable[[], object] | None:
    from sb3_sparse.distillation.search.command import fit_agent

    agent = read_agent(args)
    path = agent.pop("path")
    out = Path(f"{path.stem}-fit") if args.out is None else args.out
    names = ("flash", "keep", "us", "cycles", "board", "bits", "updates", "jobs", "backend", "episodes", "seed")
    minutes = None if args.minutes == float("inf") else args.minutes
    try:
        met = fit_agent(path, out, minutes=minutes, **{name: getattr(args, name) for name in names}, **agent)
    except KeyboardInterrupt:
        print(f"\ninterrupted: finished students are in {out}, and the same command goes on from there", file=sys.stderr)
        return partial(sys.exit, 130)
    return None if met else partial(sys.exit, 1)
