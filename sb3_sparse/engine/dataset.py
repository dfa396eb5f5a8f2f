"""The minibatch of an offline algorithm: drawn as the algorithm draws it, and read where the dataset has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_sparse.engine.batch import Batch
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Value
from sb3_sparse.offline.update import update_generator

if TYPE_CHECKING:
    from sb3_sparse.offline import OfflineAlgorithm
    from sb3_sparse.offline.data.batch_sampler import BatchSampler


class DatasetBatch(Batch):
    """
    A minibatch of a model's dataset. Where a wrapper of the environment changes observations, the model is asked for a sample.

    :param model: The model.
    :param size: Number of transitions.
    """

    def __init__(self, model: OfflineAlgorithm, size: int) -> None:
        space = model.action_space
        components = 1 if isinstance(space, spaces.Discrete) else spaces.flatdim(space)
        super().__init__(size, features=spaces.flatdim(model.observation_space), actions=components)
        #: Which attributes it has depends on the algorithm.
        self._model: Any = model
        self.generator: th.Generator = th.Generator()
        self._scaled = isinstance(space, spaces.Box)
        self._factor, self._shift = (np.zeros(components, dtype=np.float32) for _ in range(2))
        self._transitions, self._rows, self._next_rows = (np.zeros(size, dtype=np.int64) for _ in range(3))
        self._sampler: BatchSampler | None = None

    def load_actions(self, trace: Trace) -> Value:
        actions = trace.load(self.actions)
        # The dataset has them in the environment's units.
        return actions * trace.constant(self._factor) - trace.constant(self._shift) if self._scaled else actions

    def targets(self, trace: Trace, next_values: Value) -> Value:
        return trace.load(self.rewards) + (1.0 - trace.load(self.dones)) * float(self._model.gamma) * next_values

    def draw(self, step: int) -> None:
        """Draw a batch, as ``model.sample(size, generator)``. The generator goes on with the noise."""
        model = self._model
        update_generator(model.draw_seed, model._n_updates + step, self.generator)
        sampler: BatchSampler = model._find_sampler()
        if sampler is not self._sampler:
            self._bind(sampler)
        if sampler.keeps_observations:
            transitions = sampler.dataset.draw(self.size, self.generator).numpy()
            self._transitions[:] = transitions
            self._rows[:] = sampler.dataset.arrays.index[transitions]
            np.add(self._rows, 1, out=self._next_rows)
            return
        data = sampler.sample(self.size, self.generator)
        assert isinstance(data.observations, th.Tensor) and isinstance(data.next_observations, th.Tensor)
        self.observations.set(data.observations.numpy())
        self.next_observations.set(data.next_observations.numpy())
        self.actions.set(data.actions.numpy())
        self.rewards.set(data.rewards.numpy())
        self.dones.set(data.terminations.numpy())

    def _bind(self, sampler: BatchSampler) -> None:
        """Let the programs read a dataset's arrays at the transitions that are drawn."""
        self._sampler = sampler
        # A sample has scaled actions.
        self._factor[:], self._shift[:] = 1.0, 0.0
        if not sampler.keeps_observations:
            return
        if sampler.scale is not None:
            self._factor[:], self._shift[:] = (numbers.numpy().reshape(-1) for numbers in sampler.scale)
        arrays = sampler.dataset.arrays
        (observations,) = arrays.observations.values()
        self.observations.set(observations, self._rows)
        self.next_observations.set(observations, self._next_rows)
        self.actions.set(arrays.actions, self._transitions)
        self.rewards.set(arrays.rewards, self._transitions)
        self.dones.set(arrays.terminations, self._transitions)
