"""``sb3-sparse benchmark run``, ``import`` and ``store``: from a grid's name to its results."""

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sb3_sparse.cores import count_cores
from sb3_sparse.sweeps.folder import ATTEMPTS, Folder, NoRoomError
from sb3_sparse.sweeps.grid import FULL, Grid, read_grid
from sb3_sparse.sweeps.importing import import_runs
from sb3_sparse.sweeps.kinds import Cell
from sb3_sparse.sweeps.prices import Prices, affordable
from sb3_sparse.sweeps.progress import duration, show_progress
from sb3_sparse.sweeps.report import check_report
from sb3_sparse.sweeps.rows import write_rows
from sb3_sparse.sweeps.runner import run, unfinished
from sb3_sparse.sweeps.stored import store_results
from sb3_sparse.table import format_table

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def run_grid(
    name: str,
    root: Path,
    *,
    size: str = FULL,
    backend: str = "loky",
    jobs: int | None = None,
    shard: tuple[int, int] = (1, 1),
    budget: float = float("inf"),
    dry: bool = False,
) -> bool:
    """
    Run what is missing of a grid, and write its table.

    :param name: Name or file of the grid.
    :param root: Folder of the results.
    :param size: One of the grid's sizes.
    :param backend: See :func:`~sb3_sparse.sweeps.runner.run`.
    :param jobs: Workers; by default one for each core.
    :param shard: Which part of how many this machine runs, counted from 1.
    :param budget: Seconds that it may take; the cells that fit run, in their order.
    :param dry: Whether to print what it would cost, and run nothing.
    :return: Whether no cell has failed; cells that did not fit into the budget have not
    :raises ValueError: if the grid or an option is wrong, or a result is damaged
    :raises NoRoomError: if there is no room on the disk
    """
    grid, folder = read_grid(name, size), Folder(root)
    part = grid.cells[shard[0] - 1 :: shard[1]]
    finished = folder.finished()
    # Whatever the report would refuse is refused before anything runs, damaged results among it.
    check_report(grid, folder)
    missing, prices = [cell for cell in part if cell.name not in finished], Prices(folder)
    if old := sum(cell in prices.known for cell in missing):
        print(
            f"results of another version that are here: {old}. If nothing that matters has changed since then, "
            f"sb3-sparse benchmark import {name} {root} takes them",
            file=sys.stderr,
        )
    limited = budget < float("inf")
    if dry:
        print(_price_table(replace(grid, cells=part), finished, prices))
        if limited:
            print(_fitting(affordable(missing, prices, budget, jobs or count_cores(backend)), missing))
        return True
    available = count_cores(backend)
    cores = jobs or available
    chosen = affordable(missing, prices, budget, cores) if limited else missing
    print(
        f"{grid.title}: {len(part)} cells, {len(part) - len(missing)} finished before, {len(chosen)} to run, about "
        f"{duration(prices.total(chosen) / cores)} on {cores} cores",
        file=sys.stderr,
    )
    folder.take_name(f"{grid.name}-{grid.size}", grid.title)
    with show_progress(chosen, folder, prices, cores):
        run(chosen, root, backend=backend, jobs=jobs, deadline=time.time() + budget)
    try:
        print(f"results: {write_rows(grid, folder)}")
    except OSError as error:
        raise NoRoomError(f"the table of the results cannot be written ({error}): finished cells are whole") from error
    if missing and not chosen:
        price = duration(prices.of(missing[0]).seconds)
        print(f"the first cell alone costs more than the budget, about {price}: {missing[0]}", file=sys.stderr)
        return True
    return _report(chosen, missing, folder)


def import_into(name: str, root: Path, source: Path, *, size: str = FULL) -> None:
    """
    Take what was made elsewhere, and write the table.

    :param name: Name or file of the grid.
    :param root: Folder of the results.
    :param source: See :func:`~sb3_sparse.sweeps.importing.import_runs`.
    :param size: One of the grid's sizes.
    :raises ValueError: if the grid or the source is wrong
    """
    grid, folder = read_grid(name, size), Folder(root)
    folder.take_name(f"{grid.name}-{grid.size}", grid.title)
    imported = import_runs(grid, folder, source)
    for cell in imported:
        print(f"imported: {cell}")
    there = len(folder.finished() & {cell.name for cell in grid.cells})
    print(f"{len(imported)} imported, {there} of {len(grid.cells)} cells have a result: {write_rows(grid, folder)}")


def store(name: str, root: Path, out: Path, *, size: str = FULL) -> None:
    """
    Store what is finished, for a repository.

    :param name: Name or file of the grid.
    :param root: Folder of the results.
    :param out: The folder of stored results.
    :param size: One of the grid's sizes.
    :raises ValueError: if the grid is wrong, or its results cannot be stored
    """
    grid, folder = read_grid(name, size), Folder(root)
    if root.is_dir():
        folder.take_name(f"{grid.name}-{grid.size}", grid.title)
    file, number = store_results(grid, folder, out)
    print(f"{number} of {len(grid.cells)} cells are stored: {file}")


def read_budget(text: str) -> float:
    """
    >>> read_budget("6h"), read_budget("90m")
    (21600.0, 5400.0)

    :param text: A time: a number and s, m, h or d.
    :return: Seconds
    :raises ValueError: if it is not one
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None or not float(found[1]):
        raise ValueError(f"'{text}' is not a time such as 6h, 90m or 2d")
    return float(found[1]) * _UNITS[found[2]]


def read_shard(text: str) -> tuple[int, int]:
    """
    >>> read_shard("2/5")
    (2, 5)

    :param text: A part of a grid.
    :return: Which part of how many
    :raises ValueError: if it is not one
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"'{text}' is not a part such as 2/5, from 1/5 to 5/5")
    return int(found[1]), int(found[2])


def _report(chosen: Sequence[Cell], missing: Sequence[Cell], folder: Folder) -> bool:
    """Say what is not there, and why; whether no cell has failed."""
    failed = [cell for cell in chosen if len(folder.deaths(cell.name)) >= ATTEMPTS and folder.read(cell.name) is None]
    for cell in failed:
        reason = folder.deaths(cell.name)[-1].replace("\n", "\n    ")
        log = folder.cell_folder(cell.name) / "log.txt"
        print(f"failed: {cell}: its process died {ATTEMPTS} times, the last time {reason}\n    ({log})", file=sys.stderr)
    later = len(missing) - len(chosen) + len(unfinished(chosen, folder))
    if later:
        print(f"{later} cells did not fit into the budget: the same command goes on with them", file=sys.stderr)
    return not failed


def _fitting(chosen: Sequence[Cell], missing: Sequence[Cell]) -> str:
    last = f", the last of them {chosen[-1]}" if chosen else ""
    return f"{len(chosen)} of the {len(missing)} cells that are left fit into the budget{last}"


def _price_table(grid: Grid, finished: set[str], prices: Prices) -> str:
    """One row for all seeds of a setting."""
    groups: dict[str, list[Cell]] = {}
    for cell in grid.cells:
        groups.setdefault(f"{cell.kind} {replace(cell, seed=0)}".rpartition(" seed=")[0], []).append(cell)
    common = set.intersection(*(set(group.split()) for group in groups)) if len(groups) > 1 else set()
    rows = [("cells", "number", "finished", "core-hours left", "price from")]
    for group, cells in groups.items():
        left = [cell for cell in cells if cell.name not in finished]
        source = "finished cells" if all(prices.of(cell).measured for cell in cells) else "usual speeds"
        label = " ".join(word for word in group.split() if word not in common)
        rows.append((label, str(len(cells)), str(len(cells) - len(left)), _hours(prices.total(left)), source))
    left = [cell for cell in grid.cells if cell.name not in finished]
    number = len(grid.cells)
    rows.append(("all", str(number), str(number - len(left)), _hours(prices.total(left)), ""))
    return format_table(rows)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.3f}" if seconds < 36_000 else f"{seconds / 3600:,.0f}"
