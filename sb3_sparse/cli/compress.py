"""``sb3-sparse compress``."""

import argparse
from pathlib import Path

from sb3_sparse.cli.arguments import Commands, add_agent, read_agent


def add_compress(commands: Commands) -> None:
    """
    :param commands: The commands of ``sb3-sparse``.
    """
    parser = commands.add_parser(
        "compress",
        allow_abbrev=False,
        help="export an SB3 zip as a small, fast policy, and compare the two",
        epilog="The files that this command writes hold no pickles.",
    )
    add_agent(parser, env="environment for calibration and returns; without it, neither is done")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--one-frame", action="store_true", help="the exported policy takes one of them at a time and keeps the others itself"
    )
    parser.add_argument("--episodes", type=int, default=20, help="episodes to compare the returns over (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first episode (%(default)s)")
    parser.add_argument(
        "--bits", type=int, default=8, choices=(*range(2, 9), 32), help="bits per weight; 32 rounds nothing (%(default)s)"
    )
    parser.add_argument(
        "--calibration-steps", type=int, default=4096, help="observations to calibrate with; 0 for none (%(default)s)"
    )
    parser.add_argument(
        "--time-limit",
        type=float,
        default=600,
        metavar="SECONDS",
        help="for calibration and episodes together, inf for no limit; what there is by then is used (%(default)s)",
    )
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="NAME",
        help="also write a project around the C header: arduino, cmake, esp-idf, ros2 or zephyr; may be given several times",
    )
    parser.add_argument("--no-latency", action="store_true", help="do not measure times")
    parser.add_argument("--web", action="store_true", help="write a web page in which the policy plays, too")
    parser.add_argument(
        "--dense",
        type=Path,
        metavar="ZIP",
        help="with --web: agent to play beside it, such as the teacher; by default the same",
    )
    parser.set_defaults(run=_compress)


def _compress(args: argparse.Namespace, _: list[str]) -> None:
    from sb3_sparse.agents.compression.compare import compress_agent

    agent = read_agent(args)
    compress_agent(
        agent.pop("path"),
        args.out,
        one_frame=args.one_frame,
        bits=args.bits,
        calibration_steps=args.calibration_steps,
        episodes=args.episodes,
        seed=args.seed,
        time_limit=args.time_limit,
        latency=not args.no_latency,
        targets=args.target,
        web=args.web,
        dense=args.dense,
        **agent,
    )
