"""
The batch of an update: drawn as SB3 draws it, from the same random numbers, and read where it lies.

A plain ``ReplayBuffer`` is read in place, row by row. Any other buffer, and any buffer under ``VecNormalize``, is asked for a
sample.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_sparse.engine.kernels.structs import Source, ElementType
from sb3_sparse.engine.program.trace import Trace, Value

if TYPE_CHECKING:
    from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

TYPES = {
    np.dtype(np.float32): ElementType.FLOAT32,
    np.dtype(np.float64): ElementType.FLOAT64,
    np.dtype(np.uint8): ElementType.UINT8,
    np.dtype(np.int8): ElementType.INT8,
    np.dtype(np.bool_): ElementType.INT8,
    np.dtype(np.int32): ElementType.INT32,
    np.dtype(np.int64): ElementType.INT64,
}


class Array:
    """
    An array that programs load batches from. It may be another one at every run.

    :param columns: Number of its columns.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._source = Source()
        self._held: tuple[np.ndarray, ...] = ()

    def load(self, trace: Trace) -> Value:
        """The rows of the batch."""
        return trace.load(lambda: ctypes.addressof(self._source), self.columns)

    def set(self, data: np.ndarray, rows: np.ndarray | None = None, *, count: int | None = None) -> None:
        """
        :param data: Numbers, of shape ``[rows, columns]``; further dimensions are read as columns.
        :param rows: Index of each sample's row; if None, the samples are the rows in order.
        :param count: Number of samples; by default all rows.
        """
        if data is not (self._held or (None,))[0]:
            if data.dtype not in TYPES or not data.flags.c_contiguous:
                data = np.ascontiguousarray(data, dtype=None if data.dtype in TYPES else np.float32)
            self._source.data = data.ctypes.data
            self._source.type = TYPES[data.dtype]
            self._source.stride = self.columns * data.itemsize
        count = count or (len(data) if rows is None else len(rows))
        self._source.count = count
        self._source.rows = None if rows is None else rows.ctypes.data
        self._held = (data,) if rows is None else (data, rows)


class Batch:
    """
    A batch of transitions of a model's replay buffer.

    :param model: The model.
    :param size: Number of transitions.
    """

    def __init__(self, model: OffPolicyAlgorithm, size: int) -> None:
        self._model = model
        self.size = size
        features = int(np.prod(model.observation_space.shape or (1,)))
        buffer = model.replay_buffer
        assert buffer is not None
        self.observations = Array(features)
        self.next_observations = Array(features)
        self.actions = Array(buffer.action_dim)
        self.rewards, self.dones, self.timeouts, self.discounts = (Array(1) for _ in range(4))
        self._in_place = type(buffer) is ReplayBuffer and model._vec_normalize_env is None
        self._rows, self._next_rows = (np.zeros(size, dtype=np.int64) for _ in range(2))
        self._zeros = np.zeros((size, 1), dtype=np.float32)

    def targets(self, trace: Trace, next_values: Value) -> Value:
        """
        :param next_values: Values of the next states, of any number of features.
        :return: ``rewards + (1 - dones) * discounts * next_values``, where the end by a time limit is not an end
        """
        ends = self.dones.load(trace) * (1.0 - self.timeouts.load(trace))
        return self.rewards.load(trace) + (1.0 - ends) * self.discounts.load(trace) * next_values

    def draw(self) -> None:
        """Draw a batch, as ``replay_buffer.sample(size, env=model._vec_normalize_env)``."""
        if self._in_place:
            self._draw_in_place()
            return
        model = self._model
        assert model.replay_buffer is not None
        data = model.replay_buffer.sample(self.size, env=model._vec_normalize_env)
        self.observations.set(data.observations.numpy())
        self.next_observations.set(data.next_observations.numpy())
        self.actions.set(data.actions.numpy())
        self.rewards.set(data.rewards.numpy())
        self.dones.set(data.dones.numpy())
        self.timeouts.set(self._zeros)
        discounts = getattr(data, "discounts", None)
        self.discounts.set(np.full((self.size, 1), model.gamma, np.float32) if discounts is None else discounts.numpy())

    def _draw_in_place(self) -> None:
        buffer = self._model.replay_buffer
        assert buffer is not None
        length = buffer.buffer_size
        if buffer.optimize_memory_usage and buffer.full:
            steps = (np.random.randint(1, length, size=self.size) + buffer.pos) % length
        else:
            steps = np.random.randint(0, length if buffer.full else buffer.pos, size=self.size)
        environments = np.random.randint(0, high=buffer.n_envs, size=(self.size,))
        np.multiply(steps, buffer.n_envs, out=self._rows)
        self._rows += environments
        rows = next_rows = self._rows
        following = buffer.observations
        if buffer.optimize_memory_usage:
            next_rows = self._next_rows
            next_rows[:] = (steps + 1) % length * buffer.n_envs + environments
        else:
            following = buffer.next_observations
        self.observations.set(buffer.observations, rows)
        self.next_observations.set(following, next_rows)
        self.actions.set(buffer.actions, rows)
        self.rewards.set(buffer.rewards, rows)
        self.dones.set(buffer.dones, rows)
        if buffer.handle_timeout_termination:
            self.timeouts.set(buffer.timeouts, rows)
        else:
            self.timeouts.set(self._zeros, count=self.size)
        self.discounts.set(self._gamma(), count=self.size)

    def _gamma(self) -> np.ndarray:
        if not hasattr(self, "_discount") or self._discount[0, 0] != np.float32(self._model.gamma):
            self._discount = np.full((self.size, 1), self._model.gamma, dtype=np.float32)
        return self._discount
