"""
The batch of an update: drawn as SB3 draws it, from the same random numbers, and read where it lies.

What it is drawn from has a class: :class:`ReplayBatch`, and :class:`~sb3_sparse.engine.dataset.DatasetBatch`. A plain
``ReplayBuffer`` is read in place, row by row. Any other buffer, and any buffer under ``VecNormalize``, is asked for a sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from operator import is_
from typing import TYPE_CHECKING

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_sparse.engine.observations import as_rows
from sb3_sparse.engine.program.source import TYPES, Array
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Value

if TYPE_CHECKING:
    from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
    from stable_baselines3.common.type_aliases import TensorDict


class Batch(ABC):
    """
    A batch of transitions, as the equations of an update load it.

    :param size: Number of transitions.
    :param features: Components of an observation.
    :param actions: Components of an action.
    """

    #: Generator of the update's noise; None for torch's global one.
    generator: th.Generator | None = None

    def __init__(self, size: int, *, features: int, actions: int) -> None:
        self.size = size
        self.observations = Array(features)
        self.next_observations = Array(features)
        self.actions = Array(actions)
        self.rewards, self.dones = Array(1), Array(1)

    def load_actions(self, trace: Trace) -> Value:
        """The actions as the algorithm's networks take them."""
        return trace.load(self.actions)

    @abstractmethod
    def targets(self, trace: Trace, next_values: Value) -> Value:
        """
        :param next_values: Values of the next states, of any number of features.
        :return: ``rewards + (1 - dones) * discounts * next_values``
        """

    @abstractmethod
    def draw(self, step: int) -> None:
        """
        Draw the batch.

        :param step: Number of the gradient step in this call of ``train()``, from 0.
        """


class ReplayBatch(Batch):
    """
    A batch of transitions of a model's replay buffer.

    :param model: The model.
    :param size: Number of transitions.
    """

    def __init__(self, model: OffPolicyAlgorithm, size: int) -> None:
        buffer = model.replay_buffer
        assert buffer is not None
        super().__init__(size, features=spaces.flatdim(model.observation_space), actions=buffer.action_dim)
        self._model = model
        self.timeouts, self.discounts = Array(1), Array(1)
        self._rows, self._next_rows = (np.zeros(size, dtype=np.int64) for _ in range(2))
        self._zeros = np.zeros((size, 1), dtype=np.float32)
        self._bound: list[np.ndarray] = []
        self._discount = model.gamma

    def targets(self, trace: Trace, next_values: Value) -> Value:
        # The end by a time limit is not an end.
        ends = trace.load(self.dones) * (1.0 - trace.load(self.timeouts))
        return trace.load(self.rewards) + (1.0 - ends) * trace.load(self.discounts) * next_values

    def draw(self, step: int) -> None:
        """Draw a batch, as ``replay_buffer.sample(size, env=model._vec_normalize_env)``."""
        model = self._model
        if type(model.replay_buffer) is ReplayBuffer and model._vec_normalize_env is None:
            arrays = _arrays(model.replay_buffer)
            same = len(arrays) == len(self._bound) and all(map(is_, arrays, self._bound)) and self._discount == model.gamma
            if same or self._bind(model.replay_buffer, arrays):
                self._draw_in_place(model.replay_buffer)
                return
        assert model.replay_buffer is not None
        self._bound = []
        data = model.replay_buffer.sample(self.size, env=model._vec_normalize_env)
        self.observations.set(self._rows_of(data.observations))
        self.next_observations.set(self._rows_of(data.next_observations))
        self.actions.set(data.actions.numpy())
        self.rewards.set(data.rewards.numpy())
        self.dones.set(data.dones.numpy())
        self.timeouts.set(self._zeros)
        discounts = getattr(data, "discounts", None)
        self.discounts.set(np.full((self.size, 1), model.gamma, np.float32) if discounts is None else discounts.numpy())

    def _rows_of(self, observations: th.Tensor | TensorDict) -> np.ndarray:
        if isinstance(observations, th.Tensor):
            rows = as_rows(observations.numpy(), self._model.observation_space)
        else:
            rows = as_rows({name: part.numpy() for name, part in observations.items()}, self._model.observation_space)
        assert rows is not None
        return rows

    def _draw_in_place(self, buffer: ReplayBuffer) -> None:
        length = buffer.buffer_size
        if buffer.optimize_memory_usage and buffer.full:
            steps = (np.random.randint(1, length, size=self.size) + buffer.pos) % length
        else:
            steps = np.random.randint(0, length if buffer.full else buffer.pos, size=self.size)
        # Of a single environment SB3 draws nothing: numpy takes no random number where there is no choice.
        environments = np.random.randint(0, high=buffer.n_envs, size=(self.size,)) if buffer.n_envs > 1 else 0
        np.multiply(steps, buffer.n_envs, out=self._rows)
        self._rows += environments
        if buffer.optimize_memory_usage:
            self._next_rows[:] = (steps + 1) % length * buffer.n_envs + environments

    def _bind(self, buffer: ReplayBuffer, arrays: list[np.ndarray]) -> bool:
        """
        Let the programs read a buffer's arrays at the rows that are drawn.

        :param buffer: The buffer.
        :param arrays: Its arrays.
        :return: Whether they can be read in place
        """
        rows = (buffer.buffer_size, buffer.n_envs)
        if not all(array.dtype in TYPES and array.flags.c_contiguous and array.shape[:2] == rows for array in arrays):
            return False
        self._bound, self._discount = arrays, self._model.gamma
        flat = [array.reshape(rows[0] * rows[1], -1) for array in arrays]
        observations, following, actions, rewards, dones, timeouts = flat
        self.observations.set(observations, self._rows)
        self.next_observations.set(following, self._next_rows if buffer.optimize_memory_usage else self._rows)
        self.actions.set(actions, self._rows)
        self.rewards.set(rewards, self._rows)
        self.dones.set(dones, self._rows)
        if buffer.handle_timeout_termination:
            self.timeouts.set(timeouts, self._rows)
        else:
            self.timeouts.set(self._zeros)
        self.discounts.set(np.full((self.size, 1), self._discount, dtype=np.float32))
        return True


def _arrays(buffer: ReplayBuffer) -> list[np.ndarray]:
    """What a buffer holds; where it saves memory, next observations are those of the next step."""
    following = buffer.observations if buffer.optimize_memory_usage else buffer.next_observations
    return [buffer.observations, following, buffer.actions, buffer.rewards, buffer.dones, buffer.timeouts]
