"""The results of a grid in long form: a CSV with one row per episode."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sb3_sparse.sweeps.folder import Folder, write_whole
from sb3_sparse.sweeps.grid import Grid

_LAST = ("form", "phase", "steps", "episode", "return", "length", "cpu_seconds", "commit", "version", "machine")


def write_rows(grid: Grid, folder: Folder) -> Path:
    """
    :param grid: A grid.
    :param folder: Where its results are.
    :return: The file that was written, ``GRID-SIZE.csv`` in the folder
    :raises ValueError: if a result is damaged
    """
    all_settings = {cell.name: {"kind": cell.kind, **cell.settings} for cell in grid.cells}
    # Kinds have different settings; what one does not have is empty.
    names = dict.fromkeys(name for settings in all_settings.values() for name in settings)
    varied = [name for name in names if len({repr(settings.get(name)) for settings in all_settings.values()}) > 1]
    text = io.StringIO()
    # A setting may have the name of a column.
    heading = ["name", *(f"setting_{name}" if name in _LAST else name for name in varied), *_LAST]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    file = folder.root / f"{grid.name}-{grid.size}.csv"
    # The last runner to write has read everything that the others have made.
    with folder.alone():
        for cell in grid.cells:
            result = folder.read(cell.name)
            if result is None:
                continue
            settings = [_cell(all_settings[cell.name].get(name)) for name in varied]
            origin = result["origin"]
            last = [result["cpu_seconds"], origin["commit"], origin["versions"]["sb3_sparse"], origin["machine"]["name"]]
            writer.writerows([cell.name, *settings, *episode, *last] for episode in _episodes(result))
        write_whole(file, text.getvalue())
    return file


def _episodes(result: dict[str, Any]) -> Iterator[list[object]]:
    curve = result["curve"]
    for steps, returns in zip(curve["steps"], curve["returns"], strict=True):
        for episode, value in enumerate(returns):
            yield ["agent", "training", steps, episode, value, None]
    for form, found in result["evaluations"].items():
        for episode, (value, length) in enumerate(zip(found["returns"], found["lengths"], strict=True)):
            yield [form, "final", result["steps"], episode, value, length]


def _cell(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, list) else value
