"""
The folder of a sweep: results, and what belongs to the cells that make them. It is all that runners, their workers and reports
share, on one machine or on several.

A file appears whole or not at all, and a cell is claimed by a lock on a file (``flock``), which the system releases when the
last process that holds it has ended, however it ended. Nothing has to be cleaned up after a crash. Where a folder is shared by
several machines, its file system has to know ``flock`` between them, as NFSv4, CephFS, GPFS, and Lustre mounted with ``-o
flock`` do; a lost machine keeps its claims until the server gives up on it. Where locks hold on one machine only, two machines
may compute the same cell: its result is then written twice, and whole each time.
"""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from typing import IO, Any

from sb3_sparse.lock import try_lock

#: Errors that say that there is no room.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
#: How often the process of a cell may die before the others go on without it.
ATTEMPTS = 3
#: Exit code of a process that found no room.
NO_ROOM = 74
#: What every result has.
_PARTS, _MEASURED = ("kind", "settings", "cpu_seconds", "origin"), ("evaluations", "curve", "networks", "steps")
#: Bytes that a disk has left when it is full in practice.
_LEFT = 1 << 16


class NoRoomError(Exception):
    """There is no room on the disk."""


class Folder:
    """
    The folder of a sweep.

    :param root: Where it is.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def result_file(self, name: str) -> Path:
        """
        :param name: Name of a cell, its hash.
        :return: The file of its result, which exists when the cell is finished
        """
        return self.root / "results" / f"{name}.json"

    def cell_folder(self, name: str) -> Path:
        """
        :param name: Name of a cell.
        :return: The folder of its log, its checkpoints and its agent
        """
        return self.root / "cells" / name

    def finished(self) -> set[str]:
        """
        :return: The names of all finished cells
        """
        return {path.stem for path in (self.root / "results").glob("*.json")}

    def read(self, name: str) -> dict[str, Any] | None:
        """
        :param name: Name of a cell.
        :return: Its result; None if there is none
        :raises ValueError: if the file is damaged, lacks a part of a result, or has returns that are not finite
        """
        file = self.result_file(name)
        try:
            result: dict[str, Any] = json.loads(file.read_text())
            check_result(result)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(f"{file} is damaged ({error}): delete it, and its cell runs again") from error
        return result

    def publish(self, name: str, result: dict[str, Any]) -> None:
        """
        :param name: Name of a cell.
        :param result: Its result, plain JSON.
        :raises ValueError: if it lacks a part, or a return is not finite
        :raises OSError: if it cannot be written; nothing is left then
        """
        check_result(result)
        write_whole(self.result_file(name), json.dumps(result, indent=1, allow_nan=False) + "\n")

    def deaths(self, name: str) -> list[str]:
        """
        :param name: Name of a cell.
        :return: How each of its processes died in the present sweep
        """
        try:
            deaths: list[str] = json.loads((self.cell_folder(name) / "deaths.json").read_text())
        except FileNotFoundError:
            return []
        return deaths

    def add_death(self, name: str, reason: str) -> None:
        """
        :param name: Name of a cell.
        :param reason: How its process died; the caller has claimed the cell.
        """
        write_whole(self.cell_folder(name) / "deaths.json", json.dumps([*self.deaths(name), reason]))

    def is_over(self, name: str) -> bool:
        """
        :param name: Name of a cell.
        :return: Whether it is finished, or has died too often
        """
        return self.result_file(name).exists() or len(self.deaths(name)) >= ATTEMPTS

    def forget_deaths(self, name: str) -> None:
        """
        :param name: Name of a cell, which gets all its attempts again.
        """
        (self.cell_folder(name) / "deaths.json").unlink(missing_ok=True)

    def progress(self, name: str) -> float:
        """
        :param name: Name of a cell that is not finished.
        :return: Which share of it is done, as far as it says
        """
        try:
            return float(json.loads((self.cell_folder(name) / "progress.json").read_text())["share"])
        except (FileNotFoundError, ValueError):
            return 0.0

    @contextmanager
    def claim(self, name: str) -> Iterator[IO[bytes] | None]:
        """
        Claim a cell. A process that inherits the file holds the claim as well.

        :param name: Name of a cell.
        :return: A context with the locked file; with None if somebody else has the cell
        :raises OSError: if the file system does not know locks, or has no room
        """
        with try_lock(self.cell_folder(name) / "lock") as file:
            yield file

    def take_name(self, name: str, title: str) -> None:
        """
        Take the name of a table for a grid.

        :param name: Name and size of the grid.
        :param title: Its title, which tells it from another one whose file has the same name.
        :raises ValueError: if another grid has it
        :raises OSError: if the folder cannot be written
        """
        file = self.root / "grids.json"
        with self.alone():
            titles = json.loads(file.read_text()) if file.exists() else {}
            if titles.setdefault(name, title) != title:
                raise ValueError(
                    f"{self.root} has the table {name}.csv of another grid, '{titles[name]}': rename one of the files or take "
                    f"another --folder. If it is this one with a new title, delete {file}"
                )
            write_whole(file, json.dumps(titles, indent=1) + "\n")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """
        Wait for other runners that write what all of them share, as those do that waited for the same last cell.

        :return: A context in which no other runner is here
        :raises OSError: if the file system does not know locks, or has no room
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / "lock", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def check_result(result: Any) -> None:
    """
    :param result: What should be the result of a cell.
    :raises ValueError: if it lacks a part, or a return is not finite
    """
    if not isinstance(result, dict):
        raise ValueError("it does not hold the result of a cell")
    # The students of a benchmark are cells that no report reads, and have parts of their own.
    measured = any(part in result for part in _MEASURED)
    if lacking := [part for part in (*_PARTS, *_MEASURED * measured) if part not in result]:
        raise ValueError(f"it lacks {', '.join(lacking)}")
    if not measured:
        return
    try:
        evaluations = {form: found["returns"] for form, found in result["evaluations"].items()}
        curve = [value for returns in result["curve"]["returns"] for value in returns]
        finite = {form: all(map(isfinite, returns)) for form, returns in {**evaluations, "the curve": curve}.items()}
    except (AttributeError, KeyError, OverflowError, TypeError) as error:
        raise ValueError("its evaluations or its curve are not those of a cell") from error
    if empty := [form for form, returns in evaluations.items() if not returns]:
        raise ValueError(f"there are no returns of {empty[0]}")
    if diverged := [form for form in finite if not finite[form]]:
        raise ValueError(f"returns of {diverged[0]} are not finite: the training has diverged")


def write_whole(file: Path, content: str | bytes, *, durable: bool = True) -> None:
    """
    :param file: A file, which holds the old content or the new one at any time. Two writers at a time are not allowed.
    :param content: Its new content; text is written in UTF-8.
    :param durable: Whether this holds when the machine loses its power as well.
    :raises OSError: if it cannot be written; the old content stays then
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.part")
    try:
        with open(partial, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        os.replace(partial, file)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def make_durable(folder: Path) -> None:
    """
    :param folder: A folder whose files shall survive a loss of power from now on.
    """
    for file in folder.iterdir():
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())


def is_full(error: BaseException | None, folder: Path) -> bool:
    """
    :param error: An error, if there was one; torch raises one of its own after that of the system.
    :param folder: Where something was written.
    :return: Whether there is no room for more
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    try:
        return shutil.disk_usage(folder).free < _LEFT
    except OSError:
        return False
