"""The command ``sb3-sparse``: its parser, and what runs."""

import argparse
from collections.abc import Sequence

from sb3_sparse.cli.benchmark import add_benchmark
from sb3_sparse.cli.compress import add_compress
from sb3_sparse.cli.distill import add_distill
from sb3_sparse.cli.fit import add_fit
from sb3_sparse.cli.play import add_play
from sb3_sparse.cli.summary import add_summary
from sb3_sparse.cli.train import add_enjoy, add_train

#: Commands in the order of ``--help``. Torch and SB3 are imported when one runs: they take seconds, and --help should not.
_COMMANDS = (add_train, add_enjoy, add_summary, add_compress, add_play, add_distill, add_fit, add_benchmark)


def main(arguments: Sequence[str] | None = None) -> None:
    """
    :param arguments: Command line without the program's name; that of the process by default.
    """
    parser = argparse.ArgumentParser(prog="sb3-sparse", description="Sparse policies for Stable-Baselines3.")
    commands = parser.add_subparsers(dest="command", required=True)
    for add in _COMMANDS:
        add(commands)
    args, rest = parser.parse_known_args(arguments)
    command = commands.choices[args.command]
    if rest and args.command not in ("train", "enjoy"):
        command.error(f"unknown arguments: {' '.join(rest)}")
    try:
        # A command of rl-zoo3 is returned, and runs below: its errors are not those of our arguments.
        run = args.run(args, rest)
    except (OSError, ValueError) as error:
        command.error(str(error))
    if run is not None:
        run()
