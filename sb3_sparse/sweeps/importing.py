"""``sb3-sparse benchmark import``: runs that rl-zoo3 has made elsewhere, and results of another version of the code."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sb3_sparse.sweeps.folder import Folder
from sb3_sparse.sweeps.grid import Grid
from sb3_sparse.sweeps.kinds import Cell, Zoo, find_kind
from sb3_sparse.sweeps.origin import describe_origin
from sb3_sparse.sweeps.stored import read_lines


def import_runs(grid: Grid, folder: Folder, source: Path) -> list[Cell]:
    """
    Give cells that have no result one that was made elsewhere. Results of a sweep, and stored ones, are taken if their
    settings, and their recipe or agent, are the same, whatever the version of the code was. Folders of rl-zoo3 are taken if
    their settings are those that the cell would train with. Their agents are played now, for as many episodes as the cell
    says. What they took is not known: ``seconds`` and ``cpu_seconds`` are null. ``origin`` says under "imported" where a
    result was found.

    :param grid: A grid.
    :param folder: Where its results are.
    :param source: A folder of a sweep or of rl-zoo3, or one that holds some of them.
    :return: The cells that have a result now
    :raises ValueError: if there is nothing to take, a file is damaged, or an agent cannot be played
    :raises OSError: if a file cannot be read or written
    """
    if not source.is_dir():
        raise ValueError(f"there is no folder {source}")
    missing = [cell for cell in grid.cells if not folder.result_file(cell.name).exists()]
    imported = []
    results, runs = list(_results(grid, source)), sorted({path.parent.parent for path in source.rglob("config.yml")})
    if not results and not runs:
        raise ValueError(f"{source} holds neither results of a sweep nor runs of rl-zoo3")
    for found, same, result in results:
        for cell in missing:
            # What has no hash of its recipe or agent may have been made by another one.
            if cell == same and cell not in imported and result.get("content") == cell.content_hash:
                origin = {**result["origin"], "imported": str(found)}
                folder.publish(cell.name, {**result, "name": cell.name, "settings": cell.settings, "origin": origin})
                imported.append(cell)
    for run in runs:
        for cell in missing:
            if cell not in imported and isinstance(cell, Zoo) and cell.is_run(run):
                origin = {**describe_origin(), "commit": None, "imported": str(run)}
                identity = {"name": cell.name, "kind": cell.kind, "settings": cell.settings, "content": cell.content_hash}
                spent = {"seconds": None, "cpu_seconds": None}
                folder.publish(cell.name, {**identity, **cell.measure(run, trust=False), **spent, "origin": origin})
                imported.append(cell)
    return imported


def _results(grid: Grid, source: Path) -> Iterator[tuple[Path, Cell, dict[str, Any]]]:
    """Settings that another version did not have count as their defaults."""
    for file in sorted(source.rglob(f"{grid.name}-*.jsonl")):
        yield from ((file, cell, result) for cell, result in read_lines(file))
    for file in sorted(source.rglob("results/*.json")):
        if _is_other(file):
            continue
        result = Folder(file.parents[1]).read(file.stem)
        assert result is not None
        try:
            cell = find_kind(result["kind"]).read(result["settings"])
        except ValueError:
            # Of a kind, or with a setting, that there is not here.
            continue
        yield file, cell, result


def _is_other(file: Path) -> bool:
    """Whether it is JSON, and not the result of a cell, as files in another folder of this name may be."""
    try:
        found = json.loads(file.read_text())
    except ValueError:
        return False
    return not isinstance(found, dict) or not {"kind", "settings", "origin", "evaluations"} <= found.keys()
