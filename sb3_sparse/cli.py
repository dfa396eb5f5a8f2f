"""
The command ``sb3-sparse``:

    sb3-sparse train --algo sac --env Pendulum-v1 --recipe gmp --sparsity 0.95    rl-zoo3's train with our recipes
    sb3-sparse enjoy --algo sac --env Pendulum-v1                                 rl-zoo3's enjoy
    sb3-sparse summary agent.zip                                                  connections, neurons, FLOPs and bytes
    sb3-sparse compress agent.zip --env Pendulum-v1 -o out/                       a small, fast policy, compared with SB3's
"""

import argparse
import ast
import json
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from sb3_sparse import zoo

# Torch and SB3 are imported by the commands that need them: they take seconds, and --help should not.
if TYPE_CHECKING:
    import torch as th


def main(arguments: Sequence[str] | None = None) -> None:
    """
    :param arguments: Command line without the program's name; that of the process by default.
    """
    parser = _parser()
    args, rest = parser.parse_known_args(arguments)
    if rest and args.command in ("summary", "compress"):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    try:
        if args.command == "train":
            rest = _train_arguments(args, rest)
        elif args.command == "summary":
            _summary(args)
        elif args.command == "compress":
            _compress(args)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if args.command == "train":
        if args.flush_denormal:
            _flush_denormal()
        zoo.train(rest)
    elif args.command == "enjoy":
        zoo.enjoy(rest)


def _flush_denormal() -> None:
    import torch as th

    if not th.set_flush_denormal(True):
        print("--flush-denormal: this processor cannot, training goes on without")


def _parser() -> argparse.ArgumentParser:
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
    train.add_argument("--sparsity", type=float, help="sparsity of the layers that the recipe prunes; 0 trains the dense twin")
    train.add_argument("--dataset", help="id of a Minari dataset, for the offline algorithms")
    train.add_argument("-conf", "--conf-file", help="hyperparameter file, instead of a recipe")
    train.add_argument(
        "-params", "--hyperparams", nargs="+", default=[], help="hyperparameters to overwrite, as rl-zoo3 takes them"
    )
    train.add_argument(
        "--flush-denormal",
        action="store_true",
        help="take numbers below 1e-38 for zero: on a CPU they slow down saturated actors and dead units; use --num-threads 1",
    )
    train.add_argument("-i", "--trained-agent", help="zip of an agent to go on training")
    commands.add_parser("enjoy", allow_abbrev=False, add_help=False, help="watch an agent with rl-zoo3; takes all its options")
    summary = commands.add_parser("summary", allow_abbrev=False, help="connections, neurons, FLOPs and bytes of an SB3 zip")
    summary.add_argument("agent", type=Path, help="zip of an agent")
    summary.add_argument(
        "--load",
        action="store_true",
        help="load the agent whole, for the FLOPs of convolutions and of training, and for the masks of callbacks; this runs "
        "the pickles in the zip: only load files that you trust",
    )
    _add_compress(
        commands.add_parser(
            "compress",
            allow_abbrev=False,
            help="export an SB3 zip as a small, fast policy, and compare the two",
            epilog="An SB3 zip and a VecNormalize file hold pickles, and loading them runs what they say: only load files "
            "that you trust. What is written holds none.",
        )
    )
    return parser


def _summary(args: argparse.Namespace) -> None:
    state_dict, settings = read_policy(args.agent), read_settings(args.agent)
    from sb3_sparse.cost import read_training, summarize, summarize_parameters

    if args.load:
        from sb3_sparse.agents.load import load_agent

        model = load_agent(args.agent)
        summary = summarize(model)
        # A zip of A2C loads as PPO, with the defaults of PPO for what is not in the file.
        settings = {name: value for name, value in vars(model).items() if name in settings}
    else:
        summary = summarize_parameters(state_dict)
    print(replace(summary, training=read_training(settings)))
    if not args.load and not any(name.endswith(".mask") for name in state_dict):
        print("without --load the connections are the nonzero weights: the masks of callbacks are not read")


def _add_compress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("agent", type=Path, help="zip of an agent")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--env", help="environment for calibration and returns; without it there are neither")
    parser.add_argument("--env-kwargs", nargs="+", default=[], help="arguments of the environment, as name:value")
    parser.add_argument("--algo", help="algorithm, such as sac; by default the zip says")
    parser.add_argument("--episodes", type=int, default=20, help="episodes to compare the returns over (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first episode (%(default)s)")
    parser.add_argument(
        "--bits", type=int, default=8, choices=(*range(2, 9), 32), help="bits per weight; 32 rounds nothing (%(default)s)"
    )
    parser.add_argument(
        "--vecnormalize", type=Path, help="statistics of VecNormalize, or none; by default found beside the zip"
    )
    parser.add_argument(
        "--calibration-steps", type=int, default=4096, help="observations to calibrate with; 0 for none (%(default)s)"
    )
    parser.add_argument("--no-latency", action="store_true", help="measure no times")


def _compress(args: argparse.Namespace) -> None:
    env_kwargs = dict(_env_argument(text) for text in args.env_kwargs)
    # For a clear sentence about a damaged file.
    read_policy(args.agent)
    from sb3_sparse.agents.compare import compress_agent

    compress_agent(
        args.agent,
        args.out,
        env=args.env,
        env_kwargs=env_kwargs,
        algorithm=args.algo,
        vecnormalize=args.vecnormalize,
        bits=args.bits,
        calibration_steps=args.calibration_steps,
        episodes=args.episodes,
        seed=args.seed,
        latency=not args.no_latency,
    )


def _env_argument(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition(":")
    if not separator or not name.isidentifier():
        raise ValueError(f"--env-kwargs takes name:value, got '{text}'")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        # A word without quotes is a string.
        return name, value


def _train_arguments(args: argparse.Namespace, rest: list[str]) -> list[str]:
    """
    :param args: The options that we look at.
    :param rest: What is rl-zoo3's alone.
    :return: The command line for rl-zoo3
    """
    if args.recipe and args.conf_file:
        raise ValueError("--recipe and --conf-file are two ways to name one file: give one of them")
    conf = zoo.find_recipe(args.algo, args.recipe) if args.recipe else args.conf_file
    if conf is not None:
        zoo.check_environment(Path(conf), args.env)
    zoo.check_dataset(args.algo, None if conf is None else Path(conf), args.env, args.dataset)
    overrides = list(args.hyperparams)
    if args.dataset is not None:
        overrides.append(f"dataset:{args.dataset!r}")
    if args.sparsity is not None:
        from sb3_sparse.sparsity import check_sparsity

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


def read_policy(agent: Path) -> "dict[str, th.Tensor]":
    """
    :param agent: An SB3 zip.
    :return: The state dict of its policy; nothing else of the file is read, and nothing is unpickled but tensors
    :raises ValueError: if the file is damaged or not of SB3
    :raises OSError: if it cannot be read
    """
    import torch as th

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


def read_settings(agent: Path) -> dict[str, object]:
    """
    :param agent: An SB3 zip.
    :return: The attributes of its model as JSON holds them: plain values, and dicts for what is pickled, which stays so
    :raises ValueError: if the file is damaged or not of SB3
    :raises OSError: if it cannot be read
    """
    try:
        with zipfile.ZipFile(agent) as archive:
            settings = json.loads(archive.read("data")) if "data" in archive.namelist() else {}
    except (zipfile.BadZipFile, ValueError, RecursionError) as error:
        raise ValueError(f"{agent} is damaged: its part 'data' is no JSON ({error}); save or copy the agent again") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{agent} is damaged: its part 'data' holds no attributes; save or copy the agent again")
    return settings
