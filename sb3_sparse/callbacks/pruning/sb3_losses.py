"""
The losses of SAC, TD3 and DQN. SB3 computes them in the middle of ``train()``, where they cannot be called, so they are
repeated here. Each equals the loss in ``train()`` for the same batch and the same random numbers.
"""

from collections.abc import Callable
from typing import Any

import torch as th
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor
from torch.nn import functional as F


def _sac_draws(model: SAC, batch: ReplayBufferSamples) -> tuple[Tensor, ...]:
    """Actions and log-probabilities of the present and of the next observations, in the order of ``SAC.train()``."""
    if model.use_sde:
        model.actor.reset_noise()
    actions, log_prob = model.actor.action_log_prob(batch.observations)
    with th.no_grad():
        next_actions, next_log_prob = model.actor.action_log_prob(batch.next_observations)
    return actions, log_prob.reshape(-1, 1), next_actions, next_log_prob.reshape(-1, 1)


def _sac_temperature(model: SAC) -> Tensor:
    return model.ent_coef_tensor if model.log_ent_coef is None else th.exp(model.log_ent_coef.detach())


def _sac_actor(model: SAC, batch: ReplayBufferSamples) -> Tensor:
    actions, log_prob, *_ = _sac_draws(model, batch)
    values, _ = th.min(th.cat(model.critic(batch.observations, actions), dim=1), dim=1, keepdim=True)
    return (_sac_temperature(model) * log_prob - values).mean()


def _sac_critic(model: SAC, batch: ReplayBufferSamples) -> Tensor:
    with th.no_grad():
        _, _, actions, log_prob = _sac_draws(model, batch)
        values, _ = th.min(th.cat(model.critic_target(batch.next_observations, actions), dim=1), dim=1, keepdim=True)
        target = _target(model, batch, values - _sac_temperature(model) * log_prob)
    losses = [F.mse_loss(values, target) for values in model.critic(batch.observations, batch.actions)]
    return 0.5 * th.stack(losses).sum()


def _td3_actor(model: TD3, batch: ReplayBufferSamples) -> Tensor:
    return -model.critic.q1_forward(batch.observations, model.actor(batch.observations)).mean()


def _td3_critic(model: TD3, batch: ReplayBufferSamples) -> Tensor:
    with th.no_grad():
        noise = th.empty_like(batch.actions).normal_(0, model.target_policy_noise)
        noise = noise.clamp(-model.target_noise_clip, model.target_noise_clip)
        actions = (model.actor_target(batch.next_observations) + noise).clamp(-1, 1)
        values, _ = th.min(th.cat(model.critic_target(batch.next_observations, actions), dim=1), dim=1, keepdim=True)
        target = _target(model, batch, values)
    losses = [F.mse_loss(values, target) for values in model.critic(batch.observations, batch.actions)]
    return th.stack(losses).sum()


def _dqn(model: DQN, batch: ReplayBufferSamples) -> Tensor:
    with th.no_grad():
        values, _ = model.q_net_target(batch.next_observations).max(dim=1, keepdim=True)
        target = _target(model, batch, values)
    return F.smooth_l1_loss(th.gather(model.q_net(batch.observations), dim=1, index=batch.actions.long()), target)


def _target(model: OffPolicyAlgorithm, batch: ReplayBufferSamples, next_values: Tensor) -> Tensor:
    """Targets of the values, shape ``[n, 1]``: ``r + (1 - done) * discount * next_values``, also over several steps."""
    # Older versions of SB3 have no discounts in a batch.
    discounts = getattr(batch, "discounts", None)
    return batch.rewards + (1 - batch.dones) * (model.gamma if discounts is None else discounts) * next_values


#: The loss of a network on a batch of the replay buffer.
NetworkLoss = Callable[[Any, ReplayBufferSamples], Tensor]
#: By algorithm and network. Subclasses (DDPG is a TD3) have the same losses if they have the same ``train()``.
LOSSES: dict[type[OffPolicyAlgorithm], dict[str, NetworkLoss]] = {
    SAC: {"actor": _sac_actor, "critic": _sac_critic},
    TD3: {"actor": _td3_actor, "critic": _td3_critic},
    DQN: {"q_net": _dqn},
}
