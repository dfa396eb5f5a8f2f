"""
The command ``sb3-sparse``:

    sb3-sparse train --algo sac --env Pendulum-v1 --recipe gmp --sparsity 0.95    rl-zoo3's train with our recipes
    sb3-sparse enjoy --algo sac --env Pendulum-v1                                 rl-zoo3's enjoy
    sb3-sparse summary agent.zip                                                  connections, neurons and bytes
"""

import argparse
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch as th

from sb3_sparse import zoo
from sb3_sparse.cost import summarize_parameters


def main(arguments: Sequence[str] | None = None) -> None:
    """
    :param arguments: Command line without the program's name; that of the process by default.
    """
    parser = argparse.ArgumentParser(prog="sb3-sparse", description="Sparse policies for Stable-Baselines3.")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser(
        "train",
        allow_abbrev=False,
        help="train with rl-zoo3",
        epilog="All other options go to rl-zoo3; `python -m rl_zoo3.train --help` lists them.",
    )
    train.add_argument("--algo", default="ppo", help="RL algorithm")
    train.add_argument("--recipe", help="name of one of our recipes, such as gmp")
    train.add_argument("--sparsity", type=float, help="sparsity of the recipe's callbacks; 0 trains the dense twin")
    train.add_argument("-conf", "--conf-file", help="hyperparameter file, instead of a recipe")
    train.add_argument("-i", "--trained-agent", help="zip of an agent to go on training")
    commands.add_parser("enjoy", allow_abbrev=False, add_help=False, help="watch an agent with rl-zoo3; takes all its options")
    summary = commands.add_parser("summary", help="connections, neurons and bytes of an SB3 zip")
    summary.add_argument("agent", type=Path, help="zip of an agent")

    args, rest = parser.parse_known_args(arguments)
    if args.command == "enjoy":
        zoo.enjoy(rest)
        return
    with ExitStack() as stack:
        try:
            if args.command == "train":
                rest = _train_arguments(args, rest, stack)
            elif rest:
                raise ValueError(f"unknown arguments: {' '.join(rest)}")
            else:
                print(summarize_parameters(read_policy(args.agent)))
        except (OSError, ValueError) as error:
            parser.error(str(error))
        if args.command == "train":
            zoo.train(rest)


def _train_arguments(args: argparse.Namespace, rest: list[str], stack: ExitStack) -> list[str]:
    """
    :param args: Our own options.
    :param rest: What is rl-zoo3's alone.
    :param stack: What has to stay open while it trains.
    :return: The command line for rl-zoo3
    """
    if args.recipe and args.conf_file:
        raise ValueError("--recipe and --conf-file are two ways to name one file: give one of them")
    conf = zoo.find_recipe(args.algo, args.recipe) if args.recipe else args.conf_file
    if args.sparsity is not None:
        if conf is None:
            raise ValueError("--sparsity sets the sparsity of a recipe: give --recipe or --conf-file")
        if not 0.0 <= args.sparsity < 1.0:
            raise ValueError(f"--sparsity is the share of zeros and must lie in [0, 1), got {args.sparsity}")
        conf = stack.enter_context(zoo.with_sparsity(Path(conf), args.sparsity))
    arguments = ["--algo", args.algo, *rest]
    if conf is not None:
        arguments += ["--conf-file", str(conf)]
    if args.trained_agent is not None:
        read_policy(Path(args.trained_agent))
        arguments += ["--trained-agent", args.trained_agent]
    return arguments


def read_policy(agent: Path) -> dict[str, th.Tensor]:
    """
    :param agent: An SB3 zip.
    :return: The state dict of its policy; nothing else of the file is read, and nothing is unpickled but tensors
    :raises ValueError: if the file is damaged or not of SB3
    :raises OSError: if it cannot be read
    """
    try:
        with zipfile.ZipFile(agent) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"{agent} is damaged: its part '{damaged}' fails the checksum; save or copy the agent again")
            if "policy.pth" not in archive.namelist():
                raise ValueError(f"{agent} holds no 'policy.pth': it is damaged, or was not saved by Stable-Baselines3")
            with archive.open("policy.pth") as file:
                state_dict: dict[str, th.Tensor] = th.load(file, map_location="cpu", weights_only=True)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{agent} is damaged or no zip at all ({error}); save or copy the agent again") from error
    return state_dict
