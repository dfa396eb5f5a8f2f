"""Behaviour cloning of discrete actions, as ``sb3_sparse.offline.DiscreteBC`` computes it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from sb3_sparse.engine.batch import Batch
from sb3_sparse.engine.networks.parameters import Parameters
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Value
from sb3_sparse.engine.updates.chain import Chain
from sb3_sparse.engine.updates.offline.base import OfflineUpdate
from sb3_sparse.offline import DiscreteBC


def cross_entropy(logits: Value, index: Value) -> Value:
    """
    :param logits: Logits of the classes.
    :param index: Index of the right one.
    :return: ``F.cross_entropy`` of each sample
    """
    # The largest one cancels out, so it needs no gradient.
    shifted = logits - logits.largest().detach()
    return shifted.exp().sum().log() - shifted.take(index, logits.features)


class DiscreteBCUpdate(OfflineUpdate):
    """
    An update of behaviour cloning of discrete actions.

    :param model: The model.
    """

    algorithms: ClassVar[tuple[type, ...]] = (DiscreteBC,)

    def __init__(self, model: DiscreteBC) -> None:
        super().__init__(model)
        actor = model.policy.actor
        self._actor = Chain(actor.mlp)
        self.parameters = [Parameters(actor.optimizer, self._actor.weights)]

    def _equations(self, trace: Trace, batch: Batch, variant: Hashable) -> None:
        if variant:
            loss = cross_entropy(self._actor(trace.load(batch.observations)), batch.load_actions(trace))
            self._minimize(trace, self.parameters[0], "actor", loss)
