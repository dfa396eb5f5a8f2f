"""BCQ for discrete actions (Fujimoto et al. 2019), as ``sb3_sparse.offline.DiscreteBCQ`` computes it."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import ClassVar

from sb3_sparse.engine.batch import Batch
from sb3_sparse.engine.networks.parameters import Parameters
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Value
from sb3_sparse.engine.updates.chain import Chain
from sb3_sparse.engine.updates.dqn import huber
from sb3_sparse.engine.updates.offline.base import OfflineUpdate
from sb3_sparse.engine.updates.offline.discrete_bc import cross_entropy
from sb3_sparse.offline import DiscreteBCQ
from sb3_sparse.offline.discrete_bcq import LOGIT_WEIGHT


class DiscreteBCQUpdate(OfflineUpdate):
    """
    An update of BCQ for discrete actions.

    :param model: The model.
    """

    algorithms: ClassVar[tuple[type, ...]] = (DiscreteBCQ,)
    constants: ClassVar[tuple[str, ...]] = ("tau", "gamma")

    def __init__(self, model: DiscreteBCQ) -> None:
        super().__init__(model)
        policy = model.policy
        self._q_net = Chain(policy.q_net.mlp, policy.q_net_target.mlp)
        self._imitation = Chain(policy.imitation.mlp)
        self.parameters = [
            Parameters(policy.q_net.optimizer, self._q_net.weights),
            Parameters(policy.imitation.optimizer, self._imitation.weights),
        ]

    def _variant(self, step: int) -> Hashable:
        return float(self.model.__dict__["policy"].threshold)

    def _equations(self, trace: Trace, batch: Batch, variant: Hashable) -> None:
        assert isinstance(variant, float)
        observations, next_observations = trace.load(batch.observations), trace.load(batch.next_observations)
        actions = batch.load_actions(trace)
        q_net, imitation = self.parameters

        best = self._best_action(next_observations, variant)
        next_values = self._q_net(next_observations, target=True)
        values = self._q_net(observations)
        choices = values.features
        targets = batch.targets(trace, next_values.take(best, choices)).detach()
        self._minimize(trace, q_net, "q_net", huber(values.take(actions, choices), targets))

        logits = self._imitation(observations)
        loss = cross_entropy(logits, actions) + logits.square().mean() * LOGIT_WEIGHT
        self._minimize(trace, imitation, "imitation", loss)
        trace.follow(q_net, self.model.tau)

    def _best_action(self, observations: Value, threshold: float) -> Value:
        """Of the actions that the imitation network finds likely enough, the one of the highest value."""
        logits = self._imitation(observations)
        shares = (logits - logits.largest()).exp()
        likelihood = shares / shares.sum()
        unlikely = likelihood.less(likelihood.largest() * threshold)
        return unlikely.affine(0.0, -math.inf).where(self._q_net(observations), unlikely).argmax()
