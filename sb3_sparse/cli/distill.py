"""``sb3-sparse distill``."""

import argparse
from pathlib import Path

from sb3_sparse.cli.arguments import Commands, add_agent, read_agent


def add_distill(commands: Commands) -> None:
    """
    :param commands: The commands of ``sb3-sparse``.
    """
    parser = commands.add_parser(
        "distill",
        allow_abbrev=False,
        help="train a smaller student to act as an agent does, in minutes",
        epilog="The student is an SB3 zip of the same algorithm, with the agent's hyperparameters.",
    )
    add_agent(parser, env="environment that the student plays in, and that the returns are compared in")
    parser.add_argument("-o", "--out", type=Path, required=True, help="zip to write")
    parser.add_argument("--minari", metavar="DATASET", help="learn from the observations of this dataset instead of playing")
    parser.add_argument("--sparsity", type=float, default=0.95, help="share of zeros in the network that acts (%(default)s)")
    parser.add_argument("--net-arch", type=int, nargs="+", help="widths of the hidden layers; by default the agent's")
    parser.add_argument("--bits", type=int, help="bits of a weight, 2 to 8; fewer than 8 are trained with")
    parser.add_argument("--activation-bits", type=int, help="bits of the outputs of hidden layers, 2 to 8; by default float")
    parser.add_argument("--steps", type=int, help="environment steps; by default 300,000, or 400,000 above 96 %%")
    parser.add_argument("--updates", type=int, help="gradient updates; by default 100,000, or 600,000 above 96 %%")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn (%(default)s)")
    parser.add_argument(
        "--critic-updates", type=int, default=0, help="updates of a last phase through the agent's critics (%(default)s)"
    )
    parser.add_argument(
        "--stop-at", type=float, metavar="SHARE", help="stop when the student has this share of the agent's return"
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FOLDER", help="save the run here; after an interruption the same command goes on"
    )
    parser.add_argument("--episodes", type=int, default=20, help="episodes to compare the returns over (%(default)s)")
    parser.set_defaults(run=_distill)


def _distill(args: argparse.Namespace, _: list[str]) -> None:
    from sb3_sparse.agents.opening import open_agent
    from sb3_sparse.distillation.command import distill_agent

    try:
        distill_agent(
            open_agent(**read_agent(args)),
            args.out,
            args.sparsity,
            args.net_arch,
            args.steps,
            args.updates,
            args.seed,
            bits=args.bits,
            activation_bits=args.activation_bits,
            critic_updates=args.critic_updates,
            stop_at=args.stop_at,
            checkpoint=args.checkpoint,
            dataset=args.minari,
            episodes=args.episodes,
            trust=args.trust,
        )
    except KeyboardInterrupt:
        raise SystemExit("interrupted" + (": the same command goes on" if args.checkpoint else "")) from None
