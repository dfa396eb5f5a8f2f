"""
The arrays that hold recorded transitions, in memory or in files.

There is one array of observations. Transition ``i`` begins at its row ``index[i]`` and ends at the next row, so successive
transitions of an episode share an observation, and an episode of ``T`` transitions needs ``T + 1`` rows.
"""

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sb3_sparse.offline.data.checks import Array, Leaf, kept_type

#: Share of the available memory that a dataset may take; a larger dataset is stored in files.
_MEMORY_SHARE = 0.8
_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


@dataclass
class Arrays:
    """
    The arrays of a dataset with ``n`` transitions.

    :param observations: By key: ``[rows, *shape]``.
    :param index: ``[n]``, the row at which each transition begins.
    :param actions: float32 ``[n, *shape]`` or int64 ``[n, 1]``.
    :param rewards: float32 ``[n, 1]``.
    :param terminations: float32 ``[n, 1]``.
    :param ends: ``[episodes]``, the index after the last transition of each episode, in ascending order.
    """

    observations: dict[str, Array]
    index: Array
    actions: Array
    rewards: NDArray[np.float32]
    terminations: NDArray[np.float32]
    ends: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (self.index, self.actions, self.rewards, self.terminations, self.ends)
        return sum(array.nbytes for array in (*self.observations.values(), *arrays))

    def trim(self, rows: int) -> None:
        """
        Drop the rows of observations that were not needed.

        :param rows: Number of rows to keep.
        """
        self.observations = {key: array[:rows] for key, array in self.observations.items()}


def allocate(
    count: int, rows: int, *, leaves: dict[str, Leaf], action_space: Leaf, memmap: str | Path | None = None
) -> Arrays:
    """
    Allocate the arrays of a dataset, uninitialized. If they would take more than 80 % of the available memory, they become
    files in a temporary folder, which is deleted with them.

    :param count: Number of transitions.
    :param rows: Number of observations.
    :param leaves: Spaces of the observations by key.
    :param action_space: Space of the actions.
    :param memmap: Folder for the arrays, as ``.npy`` files that stay there; None for memory.
    :return: The arrays, uninitialized
    :raises OSError: if the disk has no room for the files
    """
    action_shape = (1,) if isinstance(action_space, spaces.Discrete) else action_space.shape or ()
    action_type = np.int64 if isinstance(action_space, spaces.Discrete) else np.float32
    parts: dict[str, tuple[tuple[int, ...], np.dtype[np.generic]]] = {
        "index": ((count,), np.dtype(np.int32 if rows <= np.iinfo(np.int32).max else np.int64)),
        "actions": ((count, *action_shape), np.dtype(action_type)),
        "rewards": ((count, 1), np.dtype(np.float32)),
        "terminations": ((count, 1), np.dtype(np.float32)),
    }
    names = {key: f"observations.{quote(key, safe='')}" if key else "observations" for key in leaves}
    for key, leaf in leaves.items():
        parts[names[key]] = (rows, *(leaf.shape or ())), kept_type(leaf)
    needed = sum(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize for shape, dtype in parts.values())
    available = available_memory()
    folder = Path(memmap) if memmap is not None else None
    temporary = None
    if folder is None and available is not None and needed > _MEMORY_SHARE * available:
        folder = temporary = Path(tempfile.mkdtemp(prefix="sb3_sparse_"))
    try:
        made = _in_memory(parts) if folder is None else _in_files(parts, folder, needed)
    except BaseException:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    observations = {key: made.pop(name) for key, name in names.items()}
    arrays = Arrays(observations, **made)
    if temporary is not None:
        weakref.finalize(arrays, shutil.rmtree, temporary, ignore_errors=True)
    return arrays


def available_memory() -> int | None:
    """
    :return: Bytes of memory that this process can still take, within the limit of its container; None if that is unknown
    """
    found = [*_available_in_container()]
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        found.append(1024 * int(lines["MemAvailable"].split()[0]))
    except (OSError, KeyError, ValueError):
        try:
            found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        except (AttributeError, OSError, ValueError):
            pass
    return min(found, default=None)


def _available_in_container() -> Iterator[int]:
    try:  # Without a limit, memory.max holds "max", which int() refuses.
        limit, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        # Cached files count as used, but the system frees them on demand.
        yield max(0, limit - used + int(statistics["inactive_file"]))
    except (OSError, KeyError, ValueError):
        return


def _in_memory(parts: dict[str, tuple[tuple[int, ...], np.dtype[np.generic]]]) -> dict[str, Array]:
    return {name: np.empty(shape, dtype=dtype) for name, (shape, dtype) in parts.items()}


def _in_files(parts: dict[str, tuple[tuple[int, ...], np.dtype[np.generic]]], folder: Path, needed: int) -> dict[str, Array]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in parts:
        # Another dataset may still map a file of this name: after unlinking, it keeps its data.
        (folder / f"{name}.npy").unlink(missing_ok=True)
    # Checked first, because the system kills a process whose mapped file finds no room.
    if (free := shutil.disk_usage(folder).free) < needed:
        raise OSError(
            f"the dataset needs {needed / 1e6:.0f} MB, and '{folder}' has room for {free / 1e6:.0f} MB: give a folder on a "
            "larger disk with memmap=, or load fewer transitions"
        )
    return {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
        for name, (shape, dtype) in parts.items()
    }
