"""
What a worker does: it goes through the cells, and makes each that is neither finished nor claimed by somebody else, in a
process of its own with one thread. Workers, runners and machines share the work through the claims alone.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sb3_sparse.parent import end_with
from sb3_sparse.sweeps.folder import NO_ROOM, Folder, NoRoomError, is_full

#: Seconds until a cell is looked at again that somebody else has.
_PATIENCE = 1.0
#: Last lines of a log that are reported.
_LINES = 8
#: Variables that limit the threads of numerical libraries.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

#: Kind, name and settings of a cell: what a worker on another machine needs of it.
Order = tuple[str, str, Mapping[str, Any]]


def work(root: Path, place: Path, orders: Sequence[Order], deadline: float = float("inf")) -> None:
    """
    :param root: Folder of the sweep, an absolute path.
    :param place: Where the runner was called, and the paths in settings begin.
    :param orders: Cells in their order.
    :param deadline: When no further cell is begun, as ``time.time()`` counts.
    :raises NoRoomError: if there is no room on the disk
    """
    folder = Folder(root)
    left = list(orders)
    while left and time.time() < deadline:
        try:
            tried = [_attempt(folder, place, order) for order in left if time.time() < deadline]
        except OSError as error:
            if is_full(error, root):
                raise _no_room(root) from error
            raise
        left = [order for order in left if not folder.is_over(order[1])]
        if left and not any(tried):
            # Somebody else has them all, who may die.
            time.sleep(_PATIENCE)


def work_under_parent(root: Path, place: Path, orders: Sequence[Order], deadline: float) -> None:
    """
    As :func:`work`, in a process that ends with its parent, which for a worker of Ray is its node. The process of a cell ends
    with it: its standard input closes.
    """
    end_with(os.getppid())
    work(root, place, orders, deadline)


def _attempt(folder: Folder, place: Path, order: Order) -> bool:
    """Run the process of a cell once, unless that is not needed or somebody else has it; whether it ran."""
    kind, name, settings = order
    with folder.claim(name) as lock:
        if lock is None or folder.is_over(name):
            return False
        file = folder.cell_folder(name) / "log.txt"
        with open(file, "ab") as log:
            command = [sys.executable, "-m", "sb3_sparse.sweeps.process", kind, json.dumps(settings), name, str(folder.root)]
            process = subprocess.Popen(
                command,
                cwd=place,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | dict.fromkeys(_THREADS, "1"),
                pass_fds=[lock.fileno()],
            )
            try:
                code = process.wait()
            finally:
                process.kill()
                process.wait()
                assert process.stdin is not None
                process.stdin.close()
        if code == NO_ROOM or (code and is_full(None, folder.root)):
            raise _no_room(folder.root)
        if code:
            folder.add_death(name, f"{_describe(code)}\n{_tail(file)}")
    return True


def _describe(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _tail(log: Path) -> str:
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 10_000))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-_LINES:])


def _no_room(root: Path) -> NoRoomError:
    return NoRoomError(
        f"there is no room left in {root}: finished cells are whole, and after making room the same command goes on"
    )
