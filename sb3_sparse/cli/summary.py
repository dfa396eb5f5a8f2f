"""``sb3-sparse summary``."""

import argparse
from pathlib import Path

from sb3_sparse.cli.arguments import TRUST, Commands


def add_summary(commands: Commands) -> None:
    """
    :param commands: The commands of ``sb3-sparse``.
    """
    parser = commands.add_parser("summary", allow_abbrev=False, help="connections, neurons, FLOPs and bytes of an SB3 zip")
    parser.add_argument("agent", type=Path, help="zip of an agent")
    parser.add_argument(
        "--load",
        action="store_true",
        help="load the whole agent, for the FLOPs of convolutions and of training and for the masks of callbacks",
    )
    parser.add_argument("--trust", action="store_true", help=TRUST)
    parser.set_defaults(run=_summary)


def _summary(args: argparse.Namespace, _: list[str]) -> None:
    from sb3_sparse.agents.archive import find_agent, read_policy
    from sb3_sparse.agents.count import summarize_agent

    agent = find_agent(args.agent)
    print(summarize_agent(agent, load=args.load or args.trust, trust=args.trust))
    if not (args.load or args.trust) and not any(name.endswith(".mask") for name in read_policy(agent)):
        print("without --load the connections are the nonzero weights: the masks of callbacks are not read")
