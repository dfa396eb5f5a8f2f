"""What the commands share: the arguments that say which agent is meant, and how its environment is made."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    #: What ``add_subparsers`` returns.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Commands = object

TRUST = (
    "unpickle and import whatever the files name, with any arguments, which may run any code: for policies and wrappers of "
    "your own; by default only classes of SB3, gymnasium, numpy and torch are unpickled, only modules of known wrappers "
    "imported, and only small numbers and words taken as arguments of an environment"
)


def add_agent(parser: argparse.ArgumentParser, env: str, *, required: bool = False) -> None:
    """
    :param parser: A command that opens an agent.
    :param env: What its environment is for.
    :param required: Whether it must be given.
    """
    parser.add_argument("agent", type=Path, help="zip of an agent")
    add_environment(parser, env, settings=True, required=required)
    parser.add_argument(
        "--config", type=Path, help="rl-zoo3's settings of the training, or none; by default the config.yml next to the zip"
    )
    parser.add_argument("--algo", help="algorithm, such as sac; by default the zip says")
    parser.add_argument(
        "--vecnormalize", type=Path, help="statistics of VecNormalize, or none; by default the file next to the zip"
    )
    parser.add_argument("--trust", action="store_true", help=TRUST)


def add_environment(parser: argparse.ArgumentParser, env: str, *, settings: bool, required: bool = False) -> None:
    """
    :param parser: A command that makes an environment.
    :param env: What it is for.
    :param settings: Whether settings of rl-zoo3 may say how it is made.
    :param required: Whether it must be given.
    """
    parser.add_argument("--env", required=required, help=env)
    before, default = ("; they come before the settings'", "; by default those of the settings") if settings else ("", "")
    parser.add_argument("--env-kwargs", nargs="+", default=[], help=f"arguments of the environment, as name:value{before}")
    parser.add_argument(
        "--env-wrapper",
        nargs="+",
        help="wrappers of the environment, as rl-zoo3 writes them: package.Name, {package.Name: {argument: value}}, or none"
        + default,
    )
    parser.add_argument("--frame-stack", type=int, help=f"observations that VecFrameStack puts together{default}")


def read_agent(args: argparse.Namespace) -> dict[str, Any]:
    """
    :param args: What was given on the command line.
    :return: The arguments of :func:`~sb3_sparse.agents.opening.open_agent` by name
    :raises ValueError: if they cannot be read, or the zip is damaged
    """
    from sb3_sparse.agents.archive import find_agent, read_policy
    from sb3_sparse.zoo.notation import read_arguments
    from sb3_sparse.zoo.wrappers import read_notation

    env_kwargs = read_arguments(args.env_kwargs)
    agent = find_agent(args.agent)
    # For a clear message about a damaged file.
    read_policy(agent)
    return {
        "path": agent,
        "env": args.env,
        "env_kwargs": env_kwargs,
        "env_wrapper": None if args.env_wrapper is None else read_notation(args.env_wrapper),
        "frame_stack": args.frame_stack,
        "config": args.config,
        "algorithm": args.algo,
        "vecnormalize": args.vecnormalize,
        "trust": args.trust,
    }
