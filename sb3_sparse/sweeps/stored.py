"""
Results that a repository keeps: one text file for each size of a grid, ``benchmarks/results/GRID-SIZE.jsonl``, with a line of
JSON for each finished cell, in the order of the grid.

A line is a result without what says more of a machine than of the cell: it has no name, which follows from the settings, and
neither names nor paths of machines. Returns have five significant digits, and of each evaluation during training the mean.
"""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from sb3_sparse.sweeps.folder import Folder, check_result, write_whole
from sb3_sparse.sweeps.grid import Grid
from sb3_sparse.sweeps.kinds import Cell, find_kind


def stored_file(grid: Grid, root: Path) -> Path:
    """
    :param grid: A grid.
    :param root: The folder of stored results.
    :return: The file of this grid and size
    """
    return root / f"{grid.name}-{grid.size}.jsonl"


def read_lines(file: Path) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """
    :param file: A file of stored results.
    :return: Each cell, and its result
    :raises ValueError: if a line is damaged, or is of a kind or has a setting that there is not any more
    :raises OSError: if the file cannot be read
    """
    for index, line in enumerate(file.read_text().splitlines(), 1):
        try:
            result = json.loads(line)
            check_result(result)
            yield find_kind(result["kind"]).read(result["settings"]), result
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"line {index} of {file} is not the result of a cell ({error})") from error


class Stored:
    """
    The stored results of a grid. A report reads them as it reads a folder.

    :param grid: A grid.
    :param root: The folder of stored results.
    :raises ValueError: if there are none, a line is damaged, or one is of a cell that the grid does not have, or has already
    """

    def __init__(self, grid: Grid, root: Path) -> None:
        self.root = root
        file, cells = stored_file(grid, root), set(grid.cells)
        if not file.is_file():
            raise ValueError(f"there is no {file.absolute()}: sb3-sparse benchmark store writes it")
        self._results: dict[str, dict[str, Any]] = {}
        #: Names of those whose recipe, or agent, has changed since.
        self.changed: set[str] = set()
        for cell, result in read_lines(file):
            if cell not in cells:
                raise ValueError(f"{file} has the result of a cell that is not in the grid: delete its line ({cell})")
            if cell.name in self._results:
                raise ValueError(f"{file} has two results of a cell: delete a line, or store it again ({cell})")
            self._results[cell.name] = result
            if result["content"] != cell.content_hash and all(each.is_file() for each in cell.files):
                self.changed.add(cell.name)

    def read(self, name: str) -> dict[str, Any] | None:
        """
        :param name: Name of a cell.
        :return: Its result; None if there is none
        """
        return self._results.get(name)

    def deaths(self, name: str) -> list[str]:
        """
        :param name: Name of a cell.
        :return: Nothing: how processes died is not stored
        """
        return []


def store_results(grid: Grid, folder: Folder, root: Path) -> tuple[Path, int]:
    """
    Write what is finished of a grid. Stored results that the folder lacks stay.

    :param grid: A grid.
    :param folder: Where its results are.
    :param root: The folder of stored results.
    :return: The file, and how many results it has
    :raises ValueError: if nothing is finished, a result is damaged, a setting is a path of this machine, or a stored result
        that the folder lacks is not of the grid, or of another recipe or agent than today's
    """
    if not root.is_dir():
        raise ValueError(f"there is no folder {root} to store results in: give another one with --out")
    file = stored_file(grid, root)
    before = dict(read_lines(file)) if file.is_file() else {}
    cells = set(grid.cells)
    lost = [str(cell) for cell in before if cell not in cells]
    lines = []
    for cell in grid.cells:
        result = folder.read(cell.name)
        if result is None:
            result = before.get(cell)
            if result is None:
                continue
            if result["content"] != cell.content_hash:
                lost.append(str(cell))
        _check_paths(cell)
        lines.append(json.dumps(_shorten(result), separators=(",", ":"), allow_nan=False) + "\n")
    if lost:
        raise ValueError(
            f"{file} has results that {folder.root} lacks, and that are not of this grid or are of another recipe or agent:"
            f" {len(lost)}, the first of {lost[0]}. Rename the grid's file to keep them, or delete their lines"
        )
    if not lines:
        raise ValueError(f"no cell of {grid.name} (size {grid.size}) is finished in {folder.root}: sb3-sparse benchmark run")
    write_whole(file, "".join(lines))
    return file, len(lines)


def _shorten(result: dict[str, Any]) -> dict[str, Any]:
    curve, origin = result["curve"], result["origin"]
    means = [[_round(sum(returns) / len(returns))] for returns in curve["returns"]]
    evaluations = {
        form: {**found, "returns": [_round(value) for value in found["returns"]]}
        for form, found in result["evaluations"].items()
    }
    short = {
        **result,
        "evaluations": evaluations,
        "curve": {"steps": curve["steps"], "returns": means},
        "origin": {
            **origin,
            "machine": {**origin["machine"], "name": None},
            **({"imported": True} if "imported" in origin else {}),
        },
    }
    short.pop("name", None)
    return short


def _round(value: float) -> float:
    return float(f"{value:.5g}")


def _check_paths(cell: Cell) -> None:
    for name, value in cell.settings.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and (PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()):
                raise ValueError(
                    f"{name} is {text}, a path of this machine: give it in the grid as seen from where the command runs"
                )
