"""A2C (Mnih et al. 2016), as ``stable_baselines3.A2C.train`` computes it."""

from __future__ import annotations

from typing import ClassVar

from stable_baselines3 import A2C

from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Value
from sb3_sparse.engine.rollout import RolloutBatch
from sb3_sparse.engine.updates.actor_critic import ActorCriticUpdate


class A2CUpdate(ActorCriticUpdate):
    """
    The gradient step of A2C, on all steps of a rollout.

    :param model: The model.
    """

    algorithms: ClassVar[tuple[type, ...]] = (A2C,)
    constants: ClassVar[tuple[str, ...]] = ("ent_coef", "vf_coef", "max_grad_norm")

    def gradient_steps(self, count: int, batch_size: int) -> dict[str, float]:
        self._prepare()
        values: dict[str, float] = {}
        for _ in range(count):
            for batch in self._rollout.minibatches(batch_size, normalize=self.model.normalize_advantage):
                gradient, step = self._find_programs(batch)
                values = gradient.run()
                step.run()
        self._expect_finite(values.pop("loss"))
        self.model._n_updates += 1
        return values

    def _loss(self, trace: Trace, batch: RolloutBatch, values: Value, log_prob: Value, entropy: Value) -> Value:
        policy_loss = -(trace.load(batch.advantages) * log_prob)
        value_loss = (trace.load(batch.returns) - values).square()
        trace.log("policy_loss", policy_loss)
        trace.log("value_loss", value_loss)
        trace.log("entropy_loss", -entropy)
        return policy_loss - entropy * float(self.model.ent_coef) + value_loss * float(self.model.vf_coef)
