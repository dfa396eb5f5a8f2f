"""SAC (Haarnoja et al. 2018), as ``stable_baselines3.SAC.train`` computes it."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, ClassVar

import numpy as np
from stable_baselines3 import SAC
from stable_baselines3.common.preprocessing import get_action_dim

from sb3_sparse.engine.batch import Batch
from sb3_sparse.engine.networks.parameters import Parameters
from sb3_sparse.engine.networks.vector import Vector
from sb3_sparse.engine.program.gradient import backward
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Value
from sb3_sparse.engine.updates.base import Update
from sb3_sparse.engine.updates.chain import Chain

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
#: SB3 adds it to ``1 - tanh(x)^2`` before it takes the logarithm.
EPSILON = 1e-6


class SACUpdate(Update):
    """
    A gradient step of SAC. Both actions are drawn by the reparameterization trick from the noise of ``rsample()``.

    :param model: The model.
    """

    algorithms: ClassVar[tuple[type, ...]] = (SAC,)
    constants: ClassVar[tuple[str, ...]] = ("tau", "target_entropy")

    def __init__(self, model: SAC) -> None:
        super().__init__(model)
        policy = model.policy
        actor: Any = policy.actor
        self._latent, self._mean, self._log_std = (Chain(part) for part in (actor.latent_pi, actor.mu, actor.log_std))
        heads = [*self._latent.weights, *self._mean.weights, *self._log_std.weights]
        self._actor = Parameters(actor.optimizer, heads)
        self._critics = self._find_critics(model)
        self._critic = Parameters(policy.critic.optimizer, [w for q in self._critics for w in q.weights])
        self.parameters = [self._actor, self._critic]
        self._log_ent_coef: Vector | None = None
        if model.ent_coef_optimizer is not None and model.log_ent_coef is not None:
            self._log_ent_coef = Vector(model.log_ent_coef)
            self._entropy = Parameters(model.ent_coef_optimizer, [], [self._log_ent_coef])
            self.parameters.append(self._entropy)
        self._fixed = np.zeros(1, dtype=np.float32)
        self._actions = get_action_dim(policy.action_space)

    def _find_critics(self, model: SAC) -> list[Chain]:
        critic, target = model.policy.critic, model.policy.critic_target
        first = critic.features_extractor.features_dim
        return [Chain(q, twin, first=first) for q, twin in zip(critic.q_networks, target.q_networks, strict=True)]

    def trouble(self) -> str | None:
        present = self.model.__dict__.get("log_ent_coef")
        if present is not (None if self._log_ent_coef is None else self._log_ent_coef.tensor):
            return "log_ent_coef has been replaced"
        return super().trouble()

    def gradient_steps(self, count: int, batch_size: int) -> dict[str, float]:
        if self._log_ent_coef is None:
            self._fixed[0] = float(self.model.ent_coef_tensor)
        means = super().gradient_steps(count, batch_size)
        if not all(map(math.isfinite, means.values())):
            # SB3 finds it when it draws the next action.
            raise ValueError(f"training has diverged: {means}")
        return means

    def _variant(self, step: int) -> Hashable:
        return bool(step % self.model.target_update_interval == 0)

    def _sample(self, observations: Value, noise: Value) -> tuple[Value, Value]:
        """Actions and their log probability (appendix C of the paper)."""
        latent = self._latent(observations)
        log_std = self._log_std(latent).clamp(LOG_STD_MIN, LOG_STD_MAX)
        actions = (self._mean(latent) + log_std.exp() * noise).tanh()
        gaussian = noise.square() * -0.5 - log_std - 0.5 * math.log(2.0 * math.pi)
        return actions, (gaussian - (1.0 + EPSILON - actions.square()).log()).sum()

    def _action(self, trace: Trace, observations: Value, deterministic: bool) -> Value:
        latent = self._latent(observations)
        if deterministic:
            return self._mean(latent).tanh()
        std = self._log_std(latent).clamp(LOG_STD_MIN, LOG_STD_MAX).exp()
        return (self._mean(latent) + std * trace.noise(self._actions)).tanh()

    def _equations(self, trace: Trace, batch: Batch, variant: Hashable) -> None:
        observations, next_observations = trace.load(batch.observations), trace.load(batch.next_observations)
        # SB3 draws the actions that the actor is trained with before those of the targets.
        noise, next_noise = trace.noise(self._actions), trace.noise(self._actions)
        coefficient = self._coefficient(trace)
        trace.log("ent_coef", coefficient)

        next_actions, next_log_prob = self._sample(next_observations, next_noise)
        targets = self._targets(trace, batch, trace.concat([next_observations, next_actions]), coefficient * next_log_prob)
        inputs = trace.concat([observations, trace.load(batch.actions)])
        self._train_critics(trace, inputs, targets)

        actions, log_prob = self._sample(observations, noise)
        value = self._value(trace.concat([observations, actions]))
        actor_loss = coefficient * log_prob - value
        trace.log("actor_loss", actor_loss)
        backward(trace, actor_loss, self._actor)
        trace.step(self._actor)
        if self._log_ent_coef is not None:
            loss = -(trace.rows(self._log_ent_coef) * (log_prob + float(self.model.target_entropy)))
            trace.log("ent_coef_loss", loss)
            backward(trace, loss, self._entropy)
            trace.step(self._entropy)
        if variant:
            trace.follow(self._critic, self.model.tau)

    def _coefficient(self, trace: Trace) -> Value:
        """The entropy coefficient before this step."""
        if self._log_ent_coef is not None:
            return trace.rows(self._log_ent_coef).exp()
        return trace.constant(self._fixed)

    def _targets(self, trace: Trace, batch: Batch, inputs: Value, entropy: Value) -> Value:
        value = self._critics[0](inputs, target=True)
        for critic in self._critics[1:]:
            value = value.min(critic(inputs, target=True))
        return batch.targets(trace, value - entropy)

    def _train_critics(self, trace: Trace, inputs: Value, targets: Value) -> None:
        losses = []
        for critic in self._critics:
            losses.append(self._critic_loss(trace, critic(inputs), targets))
            backward(trace, losses[-1], self._critic)
        trace.log("critic_loss", sum(losses[1:], losses[0]))
        trace.step(self._critic)

    def _critic_loss(self, trace: Trace, estimate: Value, targets: Value) -> Value:
        return (estimate - targets).square() * 0.5

    def _value(self, inputs: Value) -> Value:
        """The value that the actor maximizes."""
        value = self._critics[0](inputs)
        for critic in self._critics[1:]:
            value = value.min(critic(inputs))
        return value
