"""PPO (Schulman et al. 2017), as ``stable_baselines3.PPO.train`` computes it."""

from __future__ import annotations

from collections import defaultdict
from typing import ClassVar

import numpy as np
from stable_baselines3 import PPO

from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Value
from sb3_sparse.engine.rollout import RolloutBatch
from sb3_sparse.engine.updates.actor_critic import ActorCriticUpdate


class PPOUpdate(ActorCriticUpdate):
    """
    The epochs of PPO. The ranges of clipping may follow a schedule, so the programs read them.

    :param model: The model.
    """

    algorithms: ClassVar[tuple[type, ...]] = (PPO,)
    constants: ClassVar[tuple[str, ...]] = ("ent_coef", "vf_coef", "max_grad_norm", "clip_range_vf")

    def __init__(self, model: PPO) -> None:
        super().__init__(model)
        #: clip_range, and from one less to one more; the same for clip_range_vf, around 0.
        self._clip, self._low, self._high, self._low_vf, self._high_vf = (np.zeros(1, dtype=np.float32) for _ in range(5))

    def gradient_steps(self, count: int, batch_size: int) -> dict[str, float]:
        """
        :param count: Number of passes over the rollout.
        :param batch_size: Number of steps in a minibatch.
        :return: What SB3 logs
        """
        model = self.model
        self._prepare()
        settings = self._read_clipping()
        values: dict[str, list[float]] = defaultdict(list)
        goes_on = True
        for epoch in range(count):
            # SB3 logs that of the last pass.
            values["approx_kl"] = []
            for batch in self._rollout.minibatches(batch_size, normalize=model.normalize_advantage):
                gradient, step = self._find_programs(batch)
                for name, value in gradient.run().items():
                    values[name].append(value)
                divergence = values["approx_kl"][-1]
                if model.target_kl is not None and divergence > 1.5 * model.target_kl:
                    goes_on = False
                    if model.verbose >= 1:
                        print(f"Early stopping at step {epoch} due to reaching max kl: {divergence:.2f}")
                    break
                step.run()
            model._n_updates += 1
            if not goes_on:
                break
        last = values["loss"][-1]
        self._expect_finite(last)
        return {name: sum(column) / len(column) for name, column in values.items()} | {"loss": last} | settings

    def _read_clipping(self) -> dict[str, float]:
        """Ask the schedules."""
        model = self.model
        progress = model._current_progress_remaining
        settings = {"clip_range": model.clip_range(progress)}
        self._clip[0], self._low[0], self._high[0] = (x + settings["clip_range"] * y for x, y in ((0, 1), (1, -1), (1, 1)))
        if model.clip_range_vf is not None:
            settings["clip_range_vf"] = model.clip_range_vf(progress)
            self._low_vf[0], self._high_vf[0] = -settings["clip_range_vf"], settings["clip_range_vf"]
        return settings

    def _loss(self, trace: Trace, batch: RolloutBatch, values: Value, log_prob: Value, entropy: Value) -> Value:
        advantages = trace.load(batch.advantages)
        log_ratio = log_prob - trace.load(batch.log_probs)
        ratio = log_ratio.exp()
        clipped = ratio.max(trace.constant(self._low)).min(trace.constant(self._high))
        policy_loss = -(advantages * ratio).min(advantages * clipped)
        trace.log("policy_gradient_loss", policy_loss)
        trace.log("clip_fraction", trace.constant(self._clip).less((ratio - 1.0).abs()))
        trace.log("approx_kl", (ratio - 1.0) - log_ratio)

        if self.model.clip_range_vf is not None:
            old = trace.load(batch.values)
            values = old + (values - old).max(trace.constant(self._low_vf)).min(trace.constant(self._high_vf))
        value_loss = (trace.load(batch.returns) - values).square()
        trace.log("value_loss", value_loss)
        trace.log("entropy_loss", -entropy)
        return policy_loss - entropy * float(self.model.ent_coef) + value_loss * float(self.model.vf_coef)
