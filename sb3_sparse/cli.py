"""
The command ``sb3-sparse``:

    sb3-sparse train --algo sac --env Pendulum-v1 --recipe gmp --sparsity 0.95    rl-zoo3's train with our recipes
    sb3-sparse enjoy --algo sac --env Pendulum-v1                                 rl-zoo3's enjoy
    sb3-sparse summary agent.zip                                                  connections, neurons, FLOPs and bytes
    sb3-sparse compress agent.zip --env Pendulum-v1 -o out/                       a small, fast policy, compared with SB3's
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from sb3_sparse import zoo

# Torch and SB3 are imported by the commands that need them: they take seconds, and --help should not.


_TRUST = (
    "unpickle and import whatever the files name, with any arguments, which may run any code: for policies and wrappers of "
    "your own; by default only classes of SB3, gymnasium, numpy and torch are unpickled, only modules of known wrappers "
    "imported, and only small numbers and words taken as arguments of an environment"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """
    :param arguments: Command line without the program's name; that of the process by default.
    """
    parser = _parser()
    args, rest = parser.parse_known_args(arguments)
    if rest and args.command in ("summary", "compress"):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    try:
        # A command of rl-zoo3 is returned, and runs below: its errors are not those of our arguments.
        run = args.run(args, rest)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if run is not None:
        run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sb3-sparse", description="Sparse policies for Stable-Baselines3.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_train(
        commands.add_parser(
            "train",
            allow_abbrev=False,
            help="train with rl-zoo3",
            epilog="All other options go to rl-zoo3; `python -m rl_zoo3.train --help` lists them.",
        )
    )
    enjoy = commands.add_parser(
        "enjoy", allow_abbrev=False, add_help=False, help="watch an agent with rl-zoo3; takes all its options"
    )
    enjoy.set_defaults(run=lambda _, rest: partial(zoo.enjoy, rest))
    _add_summary(
        commands.add_parser("summary", allow_abbrev=False, help="connections, neurons, FLOPs and bytes of an SB3 zip")
    )
    _add_compress(
        commands.add_parser(
            "compress",
            allow_abbrev=False,
            help="export an SB3 zip as a small, fast policy, and compare the two",
            epilog="The files that this command writes hold no pickles.",
        )
    )
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--algo", default="ppo", help="RL algorithm (%(default)s)")
    parser.add_argument("--env", default="CartPole-v1", help="environment (%(default)s)")
    parser.add_argument("--recipe", help="name of one of our recipes, such as gmp")
    parser.add_argument(
        "--sparsity", type=float, help="sparsity of the layers that the recipe prunes; 0 trains the dense twin"
    )
    parser.add_argument("--engine", action="store_true", help="train in the engine: the same training, many times faster")
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


def _add_summary(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("agent", type=Path, help="zip of an agent")
    parser.add_argument(
        "--load",
        action="store_true",
        help="load the whole agent, for the FLOPs of convolutions and of training and for the masks of callbacks",
    )
    parser.add_argument("--trust", action="store_true", help=_TRUST)
    parser.set_defaults(run=_summary)


def _summary(args: argparse.Namespace, _: list[str]) -> None:
    from sb3_sparse.agents.archive import find_agent, read_policy
    from sb3_sparse.agents.count import summarize_agent

    agent = find_agent(args.agent)
    print(summarize_agent(agent, load=args.load or args.trust, trust=args.trust))
    if not (args.load or args.trust) and not any(name.endswith(".mask") for name in read_policy(agent)):
        print("without --load the connections are the nonzero weights: the masks of callbacks are not read")


def _add_compress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("agent", type=Path, help="zip of an agent")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--env", help="environment for calibration and returns; without it, neither is done")
    parser.add_argument(
        "--env-kwargs",
        nargs="+",
        default=[],
        help="arguments of the environment, as name:value; they come before the settings'",
    )
    parser.add_argument(
        "--env-wrapper",
        nargs="+",
        help="wrappers of the environment, as rl-zoo3 writes them: package.Name, {package.Name: {argument: value}}, or none; "
        "by default those of the settings",
    )
    parser.add_argument(
        "--frame-stack", type=int, help="observations that VecFrameStack puts together; by default the settings'"
    )
    parser.add_argument(
        "--one-frame", action="store_true", help="the exported policy takes one of them at a time and keeps the others itself"
    )
    parser.add_argument(
        "--config", type=Path, help="rl-zoo3's settings of the training, or none; by default the config.yml next to the zip"
    )
    parser.add_argument("--algo", help="algorithm, such as sac; by default the zip says")
    parser.add_argument("--episodes", type=int, default=20, help="episodes to compare the returns over (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first episode (%(default)s)")
    parser.add_argument(
        "--bits", type=int, default=8, choices=(*range(2, 9), 32), help="bits per weight; 32 rounds nothing (%(default)s)"
    )
    parser.add_argument(
        "--vecnormalize", type=Path, help="statistics of VecNormalize, or none; by default the file next to the zip"
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
    parser.add_argument("--no-latency", action="store_true", help="do not measure times")
    parser.add_argument("--trust", action="store_true", help=_TRUST)
    parser.set_defaults(run=_compress)


def _compress(args: argparse.Namespace, _: list[str]) -> None:
    from sb3_sparse.agents.archive import find_agent, read_policy
    from sb3_sparse.agents.compare import compress_agent
    from sb3_sparse.zoo.notation import read_arguments
    from sb3_sparse.zoo.wrappers import read_notation

    env_kwargs = read_arguments(args.env_kwargs)
    agent = find_agent(args.agent)
    # For a clear message about a damaged file.
    read_policy(agent)
    compress_agent(
        agent,
        args.out,
        env=args.env,
        env_kwargs=env_kwargs,
        env_wrapper=None if args.env_wrapper is None else read_notation(args.env_wrapper),
        frame_stack=args.frame_stack,
        one_frame=args.one_frame,
        config=args.config,
        algorithm=args.algo,
        vecnormalize=args.vecnormalize,
        bits=args.bits,
        calibration_steps=args.calibration_steps,
        episodes=args.episodes,
        seed=args.seed,
        time_limit=args.time_limit,
        latency=not args.no_latency,
        trust=args.trust,
    )
