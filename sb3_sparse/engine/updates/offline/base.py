"""The base class of the updates of offline algorithms: one optimizer step after the other, each with a loss of its own."""

from __future__ import annotations

from collections.abc import Hashable

from sb3_sparse.engine.batch import Batch
from sb3_sparse.engine.dataset import DatasetBatch
from sb3_sparse.engine.networks.parameters import Parameters
from sb3_sparse.engine.program.gradient import backward
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Value
from sb3_sparse.engine.updates.base import Update


class OfflineUpdate(Update):
    """
    An update of an offline algorithm, in the order of its ``losses()``. Its generator follows from the seed and the number of
    the update, and gives first the minibatch, and then the noise.

    :param model: The model.
    """

    def _make_batch(self, size: int) -> Batch:
        return DatasetBatch(self.model, size)

    def _variant(self, step: int) -> Hashable:
        """Whether the network "actor" takes a step."""
        return bool((self.model._n_updates + step + 1) % self.model.policy_delay == 0)

    def _minimize(self, trace: Trace, parameters: Parameters, name: str, *losses: Value) -> None:
        """
        Take an optimizer step.

        :param trace: Where to write it.
        :param parameters: What to change.
        :param name: Name of the network.
        :param losses: The summands of its loss.
        """
        for loss in losses:
            backward(trace, loss, parameters)
        trace.log(name, sum(losses[1:], losses[0]))
        trace.step(parameters)
