"""``sb3-sparse benchmark``: grids of runs, and their reports."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sb3_sparse.cli.arguments import Commands
from sb3_sparse.cores import BACKENDS

#: Where a checkout keeps results, seen from where the command runs.
_STORED = Path("benchmarks/results")


def add_benchmark(commands: Commands) -> None:
    """
    :param commands: The commands of ``sb3-sparse``.
    """
    parser = commands.add_parser("benchmark", allow_abbrev=False, help="run grids of trainings, from a laptop to a cluster")
    parts = parser.add_subparsers(dest="part", required=True)
    _add_run(parts)
    _add_import(parts)
    _add_report(parts)
    _add_store(parts)


def _add_grid(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: A command that reads a grid and its results.
    """
    parser.add_argument("grid", help="name of a grid in benchmarks/grids, or the path of a file")
    parser.add_argument("--size", default="full", help="size of the grid, such as reduced or smoke (%(default)s)")
    parser.add_argument(
        "--folder", type=Path, default=Path("logs/sweeps"), help="where results and runs are kept (%(default)s)"
    )


def _add_run(parts: Commands) -> None:
    run = parts.add_parser(
        "run",
        allow_abbrev=False,
        help="run what is missing of a grid",
        epilog="After any interruption the same command goes on. The exit code is 1 if cells have failed.",
    )
    _add_grid(run)
    run.add_argument(
        "--backend", default="loky", choices=BACKENDS, help="workers on this machine, or on a Ray cluster (%(default)s)"
    )
    run.add_argument("--jobs", type=int, help="processes at a time; by default one for each core")
    run.add_argument("--shard", metavar="I/N", default="1/1", help="run one of N parts of the grid, such as 2/5")
    run.add_argument("--budget", metavar="TIME", help="run the cells that fit into this time, such as 6h")
    run.add_argument("--dry-run", action="store_true", help="print what it would cost in core-hours, and run nothing")
    run.set_defaults(run=_run)


def _add_import(parts: Commands) -> None:
    importing = parts.add_parser(
        "import",
        allow_abbrev=False,
        help="take runs that rl-zoo3 has made elsewhere, and results of another version",
        epilog="A run is taken if its settings are those of a cell. Its agent is played now, which runs none of its code.",
    )
    _add_grid(importing)
    importing.add_argument("source", type=Path, help="folder of rl-zoo3 or of a sweep, or one that holds some of them")
    importing.set_defaults(run=_import)


def _import(args: argparse.Namespace, _: list[str]) -> None:
    from sb3_sparse.sweeps.command import import_into

    import_into(args.grid, args.folder, args.source, size=args.size)


def _run(args: argparse.Namespace, _: list[str]) -> Callable[[], object] | None:
    from sb3_sparse.sweeps.command import read_budget, read_shard, run_grid
    from sb3_sparse.sweeps.folder import NoRoomError

    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {args.jobs}")
    try:
        complete = run_grid(
            args.grid,
            args.folder,
            size=args.size,
            backend=args.backend,
            jobs=args.jobs,
            shard=read_shard(args.shard),
            budget=float("inf") if args.budget is None else read_budget(args.budget),
            dry=args.dry_run,
        )
    except KeyboardInterrupt:
        print("\ninterrupted: finished cells are kept, and the same command goes on", file=sys.stderr)
        return partial(sys.exit, 130)
    except NoRoomError as error:
        raise SystemExit(str(error)) from error
    return None if complete else partial(sys.exit, 1)


def _add_report(parts: Commands) -> None:
    report = parts.add_parser(
        "report", allow_abbrev=False, help="write a grid's report: an HTML page, a page of Markdown, and the figures of both"
    )
    _add_grid(report)
    report.add_argument(
        "--stored",
        metavar="PLACE",
        type=Path,
        nargs="?",
        const=_STORED,
        help=f"report what benchmark store has written, in {_STORED} or another folder",
    )
    report.add_argument("-o", "--out", type=Path, help="folder of the report; by default report in that of the results")
    report.set_defaults(run=_report)


def _report(args: argparse.Namespace, _: list[str]) -> None:
    from sb3_sparse.sweeps import Folder, Stored, read_grid
    from sb3_sparse.sweeps.report import write_report

    grid = read_grid(args.grid, args.size, check=args.stored is None)
    source = Folder(args.folder) if args.stored is None else Stored(grid, args.stored)
    print(f"report: {', '.join(map(str, write_report(grid, source, args.out or args.folder / 'report')))}")


def _add_store(parts: Commands) -> None:
    store = parts.add_parser(
        "store",
        allow_abbrev=False,
        help="write what is finished of a grid into one text file for a repository",
        epilog="Results that are stored and not in the folder stay. The file names neither machines nor paths.",
    )
    _add_grid(store)
    store.add_argument("-o", "--out", type=Path, default=_STORED, help="folder of GRID-SIZE.jsonl (%(default)s)")
    store.set_defaults(run=_store)


def _store(args: argparse.Namespace, _: list[str]) -> None:
    from sb3_sparse.sweeps.command import store

    store(args.grid, args.folder, args.out, size=args.size)
