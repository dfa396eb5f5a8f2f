"""Storage for frames with reference counts: each frame has a slot, in memory or in a file, while anything refers to it."""

import os
import shutil
import tempfile
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Slots = NDArray[np.int32]
Frames = NDArray[np.generic]

#: The slot of the frame of zeros, which is always stored: VecFrameStack fills its stacks with it at a reset.
BLANK = 0
#: Frames per part of a pickle.
_PART = 4096


class FramePool:
    """
    Frames by slot, with a count of the references to each. A slot without references is reused; the memory of slots that were
    never used is not touched.

    :param shape: Shape of a frame.
    :param dtype: Type of its elements.
    :param capacity: Number of frames to allocate, at least 1; a full pool grows by 1/32.
    :param folder: Folder for the file with the frames; None for memory. The file has no name, and is deleted with the pool.
    :raises OSError: if the disk has no room for the file
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, capacity: int, folder: Path | None = None) -> None:
        self.shape = shape
        self.folder = folder
        self._file = None if folder is None else _make_file(folder)
        self._frames: Frames = np.empty((0, *shape), dtype)
        self.blank = np.zeros(shape, dtype).tobytes()
        self.frame_nbytes = len(self.blank)
        # NumPy arrays are slow at single elements.
        self._references = array("i")
        self._free: list[int] = []
        self._resize(capacity)
        self.refer([self.put(self.blank)])

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of the elements."""
        return self._frames.dtype

    @property
    def capacity(self) -> int:
        """Number of frames that are allocated."""
        return len(self._frames)

    @property
    def nbytes(self) -> int:
        """Bytes of the slots that have ever been used."""
        return len(self._references) * (self.frame_nbytes + self._references.itemsize)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._references) - len(self._free)

    def put(self, frame: bytes) -> int:
        """
        Store a frame, with a reference count of 0.

        :param frame: Its bytes, in C order.
        :return: Its slot
        """
        if self._free:
            slot = self._free.pop()
        else:
            slot = len(self._references)
            if slot == len(self._frames):
                self._resize(slot + slot // 32 + 1)
            self._references.append(0)
        self._frames[slot] = np.frombuffer(frame, self._frames.dtype).reshape(self.shape)
        return slot

    def take(self, slots: Slots) -> Frames:
        """
        :param slots: Slots, of any shape.
        :return: A copy of their frames, ``[*slots.shape, *shape]``
        """
        return self._frames.take(slots, axis=0)

    def refer(self, slots: Iterable[int], times: int = 1) -> None:
        """
        Add references.

        :param slots: Slots; a slot that occurs several times gets as many references.
        :param times: References per occurrence.
        """
        for slot in slots:
            self._references[slot] += times

    def release(self, slots: Iterable[int]) -> None:
        """
        Remove references; a slot without any becomes free.

        :param slots: Slots; a slot that occurs several times loses as many references.
        """
        for slot in slots:
            self._references[slot] -= 1
            if self._references[slot] == 0:
                self._free.append(slot)

    def _resize(self, capacity: int) -> None:
        if self._file is not None:
            self._frames = self._mapped(self._file, capacity)
        elif self._frames.flags.owndata and len(self._frames):
            # In place if the system can: a copy would take twice the memory for a moment. There are no views of this array.
            self._frames.resize((capacity, *self.shape), refcheck=False)
        else:
            frames = np.empty((capacity, *self.shape), self._frames.dtype)
            frames[: len(self._frames)] = self._frames
            self._frames = frames

    def _mapped(self, file: IO[bytes], capacity: int) -> Frames:
        nbytes, present = capacity * self.frame_nbytes, os.fstat(file.fileno()).st_size
        # Checked first, because the system kills a process whose mapped file finds no room.
        if (free := shutil.disk_usage(self.folder or ".").free) < nbytes - present:
            raise OSError(
                f"the frames need {(nbytes - present) / 1e6:.0f} MB, and '{self.folder}' has room for {free / 1e6:.0f} MB: "
                "give a folder on a larger disk with memmap=, or make the replay buffer smaller"
            )
        file.truncate(nbytes)
        return np.asarray(np.memmap(file, self._frames.dtype, "r+", shape=(capacity, *self.shape)))

    # A pickle holds the frames that were used, from memory or from the file. It holds them in parts, so that loading can free
    # each part as soon as it is copied.
    def __getstate__(self) -> dict[str, Any]:
        used = len(self._references)
        parts = [self._frames[start : min(start + _PART, used)] for start in range(0, used, _PART)]
        return self.__dict__ | {"_frames": self._frames[:0], "_file": None, "parts": parts, "capacity": self.capacity}

    def __setstate__(self, state: dict[str, Any]) -> None:
        parts, capacity = state.pop("parts"), state.pop("capacity")
        self.__dict__.update(state)
        self._file = None if self.folder is None else _make_file(self.folder)
        self._resize(capacity)
        start = 0
        while parts:
            part = parts.pop(0)
            self._frames[start : start + len(part)] = part
            start += len(part)


def _make_file(folder: Path) -> IO[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder)
