"""QR-DQN (Dabney et al. 2018), as ``sb3_contrib.QRDQN.train`` computes it."""

from __future__ import annotations

from typing import Any, ClassVar

from sb3_contrib import QRDQN
from torch import nn

from sb3_sparse.engine.batch import Batch
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Value
from sb3_sparse.engine.updates.dqn import DQNUpdate


class QRDQNUpdate(DQNUpdate):
    """
    A gradient step of QR-DQN. The network's outputs are ``[quantiles, actions]``.

    :param model: The model.
    """

    algorithms: ClassVar[tuple[type, ...]] = (QRDQN,)

    def _modules(self, policy: Any) -> tuple[nn.Module, nn.Module]:
        return policy.quantile_net.quantile_net, policy.quantile_net_target.quantile_net

    def _action(self, trace: Trace, observations: Value, deterministic: bool) -> Value:
        return self._network(observations).sum_groups(self._actions).argmax()

    def _loss(self, trace: Trace, batch: Batch) -> Value:
        quantiles = self._network(trace.load(batch.next_observations), target=True)
        greedy = quantiles.sum_groups(self._actions).argmax()
        targets = batch.targets(trace, quantiles.take(greedy, self._actions))
        estimate = self._network(trace.load(batch.observations)).take(trace.load(batch.actions), self._actions)
        return trace.quantile_huber(estimate, targets) / targets.features
