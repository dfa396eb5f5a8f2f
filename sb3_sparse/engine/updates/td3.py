"""TD3 (Fujimoto et al. 2018) and DDPG (Lillicrap et al. 2015), as ``stable_baselines3.TD3.train`` computes them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from stable_baselines3 import DDPG, TD3
from stable_baselines3.common.preprocessing import get_action_dim

from sb3_sparse.engine.batch import Batch
from sb3_sparse.engine.networks.parameters import Parameters
from sb3_sparse.engine.program.gradient import backward
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Value
from sb3_sparse.engine.updates.base import Update
from sb3_sparse.engine.updates.chain import Chain


class TD3Update(Update):
    """
    A gradient step of TD3. The actor and the target networks follow every ``policy_delay`` steps.

    :param model: The model.
    """

    algorithms: ClassVar[tuple[type, ...]] = (TD3, DDPG)
    constants: ClassVar[tuple[str, ...]] = ("tau", "target_noise_clip", "target_policy_noise")

    def __init__(self, model: TD3) -> None:
        super().__init__(model)
        policy = model.policy
        self._policy = Chain(policy.actor.mu, policy.actor_target.mu)
        first = policy.critic.features_extractor.features_dim
        pairs = zip(policy.critic.q_networks, policy.critic_target.q_networks, strict=True)
        self._critics = [Chain(critic, twin, first=first) for critic, twin in pairs]
        self._actor = Parameters(policy.actor.optimizer, self._policy.weights)
        self._critic = Parameters(policy.critic.optimizer, [w for critic in self._critics for w in critic.weights])
        self.parameters = [self._actor, self._critic]
        self._actions = get_action_dim(policy.action_space)

    def _variant(self, step: int) -> Hashable:
        # SB3 counts the step before it takes it.
        return bool((self.model._n_updates + step + 1) % self.model.policy_delay == 0)

    def _action(self, trace: Trace, observations: Value, deterministic: bool) -> Value:
        return self._policy(observations)

    def _equations(self, trace: Trace, batch: Batch, variant: Hashable) -> None:
        observations, next_observations = trace.load(batch.observations), trace.load(batch.next_observations)
        clip = self.model.target_noise_clip
        noise = trace.noise(self._actions, self.model.target_policy_noise).clamp(-clip, clip)
        next_actions = (self._policy(next_observations, target=True) + noise).clamp(-1.0, 1.0)
        inputs = trace.concat([next_observations, next_actions])
        value = self._critics[0](inputs, target=True)
        for critic in self._critics[1:]:
            value = value.min(critic(inputs, target=True))
        targets = batch.targets(trace, value)

        inputs = trace.concat([observations, trace.load(batch.actions)])
        losses = []
        for critic in self._critics:
            losses.append((critic(inputs) - targets).square())
            backward(trace, losses[-1], self._critic)
        trace.log("critic_loss", sum(losses[1:], losses[0]))
        trace.step(self._critic)
        if not variant:
            return
        actor_loss = -self._critics[0](trace.concat([observations, self._policy(observations)]))
        trace.log("actor_loss", actor_loss)
        backward(trace, actor_loss, self._actor)
        trace.step(self._actor)
        trace.follow(self._critic, self.model.tau)
        trace.follow(self._actor, self.model.tau)
