"""The minibatches of a rollout: drawn as SB3 draws them, and read where the rollout buffer has them."""

from __future__ import annotations

from collections.abc import Iterator
from operator import is_
from typing import TYPE_CHECKING

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from sb3_sparse.engine.observations import as_rows
from sb3_sparse.engine.program.source import TYPES, Array

if TYPE_CHECKING:
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

#: What a minibatch has of each step, by the buffer's names.
COLUMNS = ("observations", "actions", "values", "log_probs", "advantages", "returns")


class RolloutBatch:
    """
    A minibatch, as the equations of an update load it.

    :param size: Number of steps.
    :param features: Components of an observation.
    :param actions: Components of an action.
    """

    def __init__(self, size: int, *, features: int, actions: int) -> None:
        self.size = size
        self.observations, self.actions = Array(features), Array(actions)
        self.values, self.log_probs, self.returns = Array(1), Array(1), Array(1)
        self.advantages = Array(1)
        self._rows = np.zeros(size, dtype=np.int64)
        self._advantages = np.zeros((size, 1), dtype=np.float32)
        self.advantages.set(self._advantages)
        self._bound: list[np.ndarray] = []

    def bind(self, arrays: list[np.ndarray]) -> None:
        """
        Let the programs read a buffer's arrays at the rows that are drawn.

        :param arrays: The flattened arrays of :data:`COLUMNS`.
        """
        if len(self._bound) == len(arrays) and all(map(is_, self._bound, arrays)):
            return
        self._bound = arrays
        for name, array in zip(COLUMNS, arrays, strict=True):
            if name != "advantages":
                readable = array.dtype in TYPES and array.flags.c_contiguous
                source: Array = getattr(self, name)
                source.set(array if readable else np.ascontiguousarray(array, dtype=np.float32), self._rows)

    def set(self, rows: np.ndarray, advantages: np.ndarray) -> None:
        """
        :param rows: The steps, as rows of the arrays.
        :param advantages: Their advantages, of shape ``[size, 1]``.
        """
        self._rows[:] = rows
        self._advantages[:] = advantages


class Rollout:
    """
    The rollout of a model, in minibatches.

    :param model: The model.
    """

    def __init__(self, model: OnPolicyAlgorithm) -> None:
        self._model = model
        self._batches: dict[int, RolloutBatch] = {}

    def minibatches(self, size: int | None, *, normalize: bool) -> Iterator[RolloutBatch]:
        """
        One pass over the rollout, as ``rollout_buffer.get(size)``.

        :param size: Steps of a minibatch, of which the last one may have fewer; None for all.
        :param normalize: Whether to normalize the advantages of each minibatch.
        """
        buffer = self._model.rollout_buffer
        assert buffer.full, ""
        length = buffer.buffer_size * buffer.n_envs
        indices = np.random.permutation(length)
        if not buffer.generator_ready:
            _flatten(buffer)
        size = length if size is None else size
        advantages = buffer.advantages[indices]
        if normalize:
            advantages = _normalized(th.as_tensor(advantages), size).numpy()
        observations = as_rows(buffer.observations, buffer.observation_space)
        assert observations is not None
        arrays = [observations, *(getattr(buffer, name) for name in COLUMNS[1:])]
        for start in range(0, length, size):
            rows = indices[start : start + size]
            batch = self._find_batch(len(rows), buffer)
            batch.bind(arrays)
            batch.set(rows, advantages[start : start + size])
            yield batch

    def _find_batch(self, size: int, buffer: RolloutBuffer) -> RolloutBatch:
        if size not in self._batches:
            features = spaces.flatdim(buffer.observation_space)
            self._batches[size] = RolloutBatch(size, features=features, actions=buffer.action_dim)
        return self._batches[size]


def _flatten(buffer: RolloutBuffer) -> None:
    """One row for each step of each environment, as ``get()`` leaves the buffer."""
    for name in COLUMNS:
        column = getattr(buffer, name)
        if isinstance(column, dict):
            column.update({key: buffer.swap_and_flatten(part) for key, part in column.items()})
        else:
            setattr(buffer, name, buffer.swap_and_flatten(column))
    buffer.generator_ready = True


def _normalized(advantages: th.Tensor, size: int) -> th.Tensor:
    """Advantages of shape ``[steps, 1]``, with mean 0 and standard deviation 1 in each minibatch."""
    whole = len(advantages) // size * size
    parts = [advantages[:whole].reshape(-1, size), advantages[whole:].reshape(1, -1)]
    # Of a single step there is no standard deviation.
    normal = [(p - p.mean(1, keepdim=True)) / (p.std(1, keepdim=True) + 1e-8) if p.shape[1] > 1 else p for p in parts]
    return th.cat([part.reshape(-1, 1) for part in normal])
