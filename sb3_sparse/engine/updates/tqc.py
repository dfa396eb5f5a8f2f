"""TQC (Kuznetsov et al. 2020), as ``sb3_contrib.TQC.train`` computes it: SAC with truncated quantile critics."""

from __future__ import annotations

from typing import ClassVar

from sb3_contrib import TQC

from sb3_sparse.engine.batch import Batch
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Value
from sb3_sparse.engine.updates.chain import Unsupported
from sb3_sparse.engine.updates.sac import SACUpdate

#: Features that the kernels sort.
MOST_SORTED = 1024


class TQCUpdate(SACUpdate):
    """
    A gradient step of TQC.

    :param model: The model.
    """

    algorithms: ClassVar[tuple[type, ...]] = (TQC,)
    constants: ClassVar[tuple[str, ...]] = (*SACUpdate.constants, "top_quantiles_to_drop_per_net")

    def __init__(self, model: TQC) -> None:
        super().__init__(model)  # type: ignore[arg-type]
        if model.critic.quantiles_total > MOST_SORTED:
            raise Unsupported(f"{model.critic.quantiles_total} quantiles; at most {MOST_SORTED} are sorted")

    def _targets(self, trace: Trace, batch: Batch, inputs: Value, entropy: Value) -> Value:
        quantiles = trace.concat([critic(inputs, target=True) for critic in self._critics]).sort()
        dropped = self.model.top_quantiles_to_drop_per_net * len(self._critics)
        return batch.targets(trace, quantiles[: quantiles.features - dropped] - entropy)

    def _critic_loss(self, trace: Trace, estimate: Value, targets: Value) -> Value:
        pairs = estimate.features * targets.features * len(self._critics)
        return trace.quantile_huber(estimate, targets) / pairs

    def _value(self, inputs: Value) -> Value:
        means = [critic(inputs).mean() for critic in self._critics]
        return sum(means[1:], means[0]) / len(means)
