"""``sb3-sparse benchmark import``: runs that rl-zoo3 has made elsewhere, and results of another version of the code."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sb3_sparse.sweeps.folder import Folder
from sb3_sparse.sweeps.grid import Grid
from sb3_sparse.sweeps.kinds import Cell, Zoo
from sb3_sparse.sweeps.origin import describe_origin


def import_runs(grid: Grid, folder: Folder, source: Path) -> list[Cell]:
    """
    Give cells that have no result one that was made elsewhere: results of a sweep whose settings, and recipe or agent, are the
    same, whatever the version of the code was, and folders of rl-zoo3 whose settings are those that the cell would train with.
    The agents in those are played now, for as many episodes as the cell says. What they took is not known: ``seconds`` and
    ``cpu_seconds`` are null. ``origin`` says where a result was found under "imported".

    :param grid: A grid.
    :param folder: Where its results are.
    :param source: A folder of a sweep or of rl-zoo3, or one that holds some of them.
    :return: The cells that have a result now
    :raises ValueError: if a file is damaged, or an agent cannot be played
    :raises OSError: if a file cannot be read or written
    """
    if not source.is_dir():
        raise ValueError(f"there is no folder {source}")
    missing = [cell for cell in grid.cells if not folder.result_file(cell.name).exists()]
    imported = []
    for found, result in _results(source):
        for cell in missing:
            same = result["kind"] == cell.kind and result["settings"] == cell.settings
            # What has no hash of its recipe or agent may have been made by another one.
            if same and cell not in imported and result.get("content") == cell.content_hash:
                origin = {**result["origin"], "imported": str(found)}
                folder.publish(cell.name, {**result, "name": cell.name, "origin": origin})
                imported.append(cell)
    for run in sorted({path.parent.parent for path in source.rglob("config.yml")}):
        for cell in missing:
            if cell not in imported and isinstance(cell, Zoo) and cell.is_run(run):
                origin = {**describe_origin(), "commit": None, "imported": str(run)}
                identity = {"name": cell.name, "kind": cell.kind, "settings": cell.settings, "content": cell.content_hash}
                spent = {"seconds": None, "cpu_seconds": None}
                folder.publish(cell.name, {**identity, **cell.measure(run, trust=False), **spent, "origin": origin})
                imported.append(cell)
    return imported


def _results(source: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for file in sorted(source.rglob("results/*.json")):
        result = Folder(file.parents[1]).read(file.stem)
        if result is not None and {"kind", "settings", "origin", "evaluations"} <= result.keys():
            yield file, result
