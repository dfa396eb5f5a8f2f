"""Stacks of frames that behave like an array of observations."""

from dataclasses import dataclass
from operator import index

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sb3_sparse.pixels.pool import BLANK, FramePool, Frames, Slots

Rows = int | slice | NDArray[np.integer]
Where = Rows | tuple[Rows, ...]


@dataclass
class Newest:
    """
    The last stored stack of each environment; most frames of its next stack are in it.

    :param memory: The order of the axes of the stacks in memory, and their bytes in that order.
    :param frames: By environment: the bytes of each frame.
    :param slots: By environment: the slot of each frame.
    """

    memory: tuple[list[int], bytes]
    frames: list[list[bytes]]
    slots: list[list[int]]

    @classmethod
    def nothing(cls, n_envs: int) -> "Newest":
        """The state before anything is stored."""
        return cls(([], b""), [[] for _ in range(n_envs)], [[] for _ in range(n_envs)])


class FrameStacks:
    """
    Takes the place of a replay buffer's array of observations ``[rows, n_envs, channels, ...]``: it is written by row and read
    like an array, with the same values to the last bit. It holds the slots of the frames only.

    A frame is not stored again if it is in the environment's previous stack, earlier in its own stack, or blank. So a stack
    usually adds its newest frame only.

    :param pool: The storage of the frames.
    :param newest: The last stored stacks; observations and next observations share it, since a buffer writes them in turns.
    :param rows: Number of rows.
    :param n_envs: Number of environments.
    :param shape: Shape of an observation: frames are stacked along the first axis.
    """

    def __init__(self, pool: FramePool, newest: Newest, rows: int, n_envs: int, shape: tuple[int, ...]) -> None:
        self.shape = (rows, n_envs, *shape)
        self._pool = pool
        self._newest = newest
        self._slots: Slots = np.full((rows, n_envs, shape[0] // pool.shape[0]), BLANK, np.int32)
        pool.refer([BLANK], times=self._slots.size)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of the elements."""
        return self._pool.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the slots, without the frames."""
        return self._slots.nbytes

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._slots)

    def __getitem__(self, where: Where) -> Frames:
        """
        :param where: Rows, or rows and environments, as an array takes them; full slices may follow.
        :return: A copy of the observations
        :raises IndexError: on a part of an observation
        """
        if isinstance(where, tuple):
            where, rest = where[:2], where[2:]
            if any(not isinstance(part, slice) or part != slice(None) for part in rest):
                raise IndexError("observations are indexed by row and environment alone: take them whole, then their parts")
        slots = self._slots[where]
        return self._pool.take(slots).reshape(*slots.shape[:-1], *self.shape[2:])

    def __setitem__(self, row: int, observations: ArrayLike) -> None:
        """
        :param row: The row, a single one.
        :param observations: ``[n_envs, channels, ...]``.
        :raises TypeError: on several rows
        :raises ValueError: on observations of another shape
        """
        row = index(row)
        stacks = np.asarray(observations, self.dtype).reshape(self.shape[1:])
        # SB3 transposes images by changing the strides, and copying them into C order takes longer than everything else here.
        # Most observations equal the previous next observations, which this comparison in memory order finds without a copy.
        axes = sorted(range(stacks.ndim), key=stacks.strides.__getitem__, reverse=True)
        memory = axes, stacks.transpose(axes).tobytes()
        if memory != self._newest.memory:
            size, n_stack = self._pool.frame_nbytes, self._slots.shape[-1]
            stored = stacks.tobytes()
            every = [stored[start : start + size] for start in range(0, len(stored), size)]
            frames = [every[start : start + n_stack] for start in range(0, len(every), n_stack)]
            slots = [self._find(env, stack) for env, stack in enumerate(frames)]
            self._newest.memory, self._newest.frames, self._newest.slots = memory, frames, slots
        # In this order: a frame that both stacks hold must not lose its last reference in between.
        for new, old in zip(self._newest.slots, self._slots[row].tolist(), strict=True):
            self._pool.refer(new)
            self._pool.release(old)
        self._slots[row] = self._newest.slots

    def _find(self, env: int, frames: list[bytes]) -> list[int]:
        """Slots of the frames of a stack; new frames are stored."""
        known, slots = [*self._newest.frames[env], self._pool.blank], [*self._newest.slots[env], BLANK]
        for frame in frames:
            if frame not in known:
                known.append(frame)
                slots.append(self._pool.put(frame))
        return [slots[known.index(frame)] for frame in frames]
