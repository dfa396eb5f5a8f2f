"""``sb3-sparse train`` and ``enjoy``: rl-zoo3's commands."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sb3_sparse import zoo
from sb3_sparse.cli.arguments import Commands


def add_train(commands: Commands) -> None:
    """
    :param commands: The commands of ``sb3-sparse``.
    """
    parser = commands.add_parser(
        "train",
        allow_abbrev=False,
        help="train with rl-zoo3",
        epilog="All other options go to rl-zoo3; `python -m rl_zoo3.train --help` lists them.",
    )
    parser.add_argument("--algo", default="ppo", help="RL algorithm (%(default)s)")
    parser.add_argument("--env", default="CartPole-v1", help="environment (%(default)s)")
    parser.add_argument("--recipe", help="name of one of our recipes, such as gmp")
    parser.add_argument(
        "--sparsity", type=float, help="sparsity of the layers that the recipe prunes; 0 trains the dense twin"
    )
    parser.add_argument("--engine", action="store_true", help="train in the engine: the same training, many times faster")
    parser.add_argument(
        "--precision",
        choices=("float32", "bf16"),
        default="float32",
        help="of the products of dense layers in the engine: bf16 is nearly twice as fast (%(default)s)",
    )
    parser.add_argument("--dataset", help="id of a Minari dataset, for the offline algorithms")
    parser.add_argument("-conf", "--conf-file", help="hyperparameter file, instead of a recipe")
    parser.add_argument(
        "-params", "--hyperparams", nargs="+", default=[], help="hyperparameters to overwrite, as rl-zoo3 takes them"
    )
    parser.add_argument(
        "--flush-denormal",
        action="store_true",
        help="round numbers below 1e-38 to zero: on a CPU they slow down saturated actors and dead units; use --num-threads 1",
    )
    parser.add_argument("-i", "--trained-agent", help="zip of an agent to continue training")
    parser.set_defaults(run=_train)


def add_enjoy(commands: Commands) -> None:
    """
    :param commands: The commands of ``sb3-sparse``.
    """
    parser = commands.add_parser(
        "enjoy", allow_abbrev=False, add_help=False, help="watch an agent with rl-zoo3; takes all its options"
    )
    parser.set_defaults(run=lambda _, rest: partial(zoo.enjoy, rest))


def _train(args: argparse.Namespace, rest: list[str]) -> Callable[[], None]:
    if args.trained_agent is not None:
        from sb3_sparse.agents.archive import read_policy

        rest = [*rest, "--trained-agent", args.trained_agent]
        # rl-zoo3's message about a damaged file is not clear.
        read_policy(Path(args.trained_agent))
    arguments = zoo.train_arguments(
        args.algo,
        args.env,
        recipe=args.recipe,
        conf_file=args.conf_file,
        sparsity=args.sparsity,
        dataset=args.dataset,
        engine=args.engine,
        precision=args.precision,
        overrides=args.hyperparams,
        others=rest,
    )

    def run() -> None:
        if args.flush_denormal:
            _flush_denormal()
        zoo.train(arguments)

    return run


def _flush_denormal() -> None:
    import torch as th

    if not th.set_flush_denormal(True):
        print("--flush-denormal: this processor cannot do it; training continues without")
