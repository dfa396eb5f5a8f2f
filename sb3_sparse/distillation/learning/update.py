"""An update of a distillation as a program of the engine."""

from __future__ import annotations

import copy
from collections.abc import Hashable
from typing import Any

from torch.optim import Adam, Optimizer

from sb3_sparse.engine.batch import Batch
from sb3_sparse.engine.networks.parameters import Parameters
from sb3_sparse.engine.program.gradient import backward
from sb3_sparse.engine.program.source import Array
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Value
from sb3_sparse.engine.updates import Update
from sb3_sparse.engine.updates.chain import Chain, Unsupported


class StatesBatch(Batch):
    """
    A minibatch of states, read where they lie.

    :param model: The distillation.
    :param size: States in it.
    """

    def __init__(self, model: Any, size: int) -> None:
        super().__init__(size, features=model.states.inputs.shape[1], actions=1)
        self.labels = Array(model.states.targets.shape[1])
        self._model = model

    def targets(self, trace: Trace, next_values: Value) -> Value:
        raise TypeError("states have no successors here")

    def draw(self, step: int) -> None:
        model = self._model
        rows = model.rows(model._n_updates + step)
        self.observations.set(model.states.inputs, rows)
        self.labels.set(model.states.targets, rows)


class DistillationUpdate(Update):
    """
    An update of a student's network.

    :param model: The distillation.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        student = model.policy.student
        if student.features_extractor is not None:
            raise Unsupported("a features extractor with weights")
        self._chain = Chain(student.layers)
        self._student = Parameters(model.policy.optimizer, self._chain.weights)
        # The engine trains what it holds in memory, so it gets copies of networks that nobody trains, and never makes a step.
        copies = [copy.deepcopy(network).requires_grad_(True) for network in model.behavior.frozen]
        self._frozen = [Chain(network) for network in copies]
        self.parameters = [self._student]
        if copies:
            weights = [w for chain in self._frozen for w in chain.weights]
            self.parameters.append(Parameters(Adam([p for network in copies for p in network.parameters()]), weights))

    @property
    def optimizers(self) -> list[Optimizer]:
        return [self._student.optimizer]

    def _make_batch(self, size: int) -> Batch:
        return StatesBatch(self.model, size)

    def _equations(self, trace: Trace, batch: Batch, variant: Hashable) -> None:
        assert isinstance(batch, StatesBatch)
        outputs, estimates = self._chain(trace.load(batch.observations)), self.model.policy.student.estimates
        if estimates > 1:
            outputs = outputs.sum_groups(outputs.features // estimates) / estimates
        loss = self.model.behavior.equation(outputs, trace.load(batch.labels), self._frozen)
        backward(trace, loss, self._student)
        trace.log("student", loss)
        trace.step(self._student)
