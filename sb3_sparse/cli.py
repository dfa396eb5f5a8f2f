"""
The command ``sb3-sparse``:

    sb3-sparse train --algo sac --env Pendulum-v1 --recipe gmp --sparsity 0.95    rl-zoo3's train with our recipes
    sb3-sparse enjoy --algo sac --env Pendulum-v1                                 rl-zoo3's enjoy
    sb3-sparse summary agent.zip                                                  connections, neurons and bytes
"""

import argparse
import zipfile
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch as th

from sb3_sparse import zoo
from sb3_sparse.cost import summarize_parameters
from sb3_sparse.sparsity import check_sparsity


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
    train.add_argument("--env", default="CartPole-v1", help="environment")
    train.add_argument("--recipe", help="name of one of our recipes, such as gmp")
    train.add_argument("--sparsity", type=float, help="sparsity of the recipe's callbacks; 0 trains the dense twin")
    train.add_argument("-conf", "--conf-file", help="hyperparameter file, instead of a recipe")
    train.add_argument(
        "-params", "--hyperparams", nargs="+", default=[], help="hyperparameters to overwrite, as rl-zoo3 takes them"
    )
    train.add_argument("-i", "--trained-agent", help="zip of an agent to go on training")
    commands.add_parser("enjoy", allow_abbrev=False, add_help=False, help="watch an agent with rl-zoo3; takes all its options")
    summary = commands.add_parser("summary", help="connections, neurons and bytes of an SB3 zip")
    summary.add_argument("agent", type=Path, help="zip of an agent")

    args, rest = parser.parse_known_args(arguments)
    try:
        if args.command == "train":
            rest = _train_arguments(args, rest)
        elif args.command == "summary":
            if rest:
                raise ValueError(f"unknown arguments: {' '.join(rest)}")
            print(summarize_parameters(read_policy(args.agent)))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if args.command == "train":
        zoo.train(rest)
    elif args.command == "enjoy":
        zoo.enjoy(rest)


def _train_arguments(args: argparse.Namespace, rest: list[str]) -> list[str]:
    """
    :param args: The options that we look at.
    :param rest: What is rl-zoo3's alone.
    :return: The command line for rl-zoo3
    """
    if args.recipe and args.conf_file:
        raise ValueError("--recipe and --conf-file are two ways to name one file: give one of them")
    conf = zoo.find_recipe(args.algo, args.recipe) if args.recipe else args.conf_file
    overrides = list(args.hyperparams)
    if args.sparsity is not None:
        if conf is None:
            raise ValueError("--sparsity sets the sparsity of a recipe: give --recipe or --conf-file")
        overrides.append(zoo.with_sparsity(Path(conf), args.env, check_sparsity(args.sparsity)))
    arguments = ["--algo", args.algo, "--env", args.env, *rest]
    if conf is not None:
        arguments += ["--conf-file", str(conf)]
    if args.trained_agent is not None:
        read_policy(Path(args.trained_agent))
        arguments += ["--trained-agent", args.trained_agent]
    if overrides:
        arguments += ["--hyperparams", *overrides]
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
    except (zipfile.BadZipFile, RuntimeError, UnpicklingError, EOFError, AttributeError) as error:
        raise ValueError(f"{agent} is damaged or no zip at all ({error}); save or copy the agent again") from error
    if not isinstance(state_dict, dict) or not all(isinstance(value, th.Tensor) for value in state_dict.values()):
        raise ValueError(f"{agent} is damaged: its policy does not consist of tensors; save or copy the agent again")
    return state_dict
