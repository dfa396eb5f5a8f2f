"""
The loss of each network of a model on one fixed batch, for saliencies that need data.

An offline algorithm knows its own losses (:class:`HasLosses`). Those of SB3 compute theirs in the middle of ``train()``, so
they stand here once more, each equal to what ``train()`` computes with the same batch and the same random numbers. A loss has
the same value whenever it is called, and neither taking the batch nor calling it moves a random state or the model.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch as th
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from sb3_sparse.sparsity import Loss

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


@runtime_checkable
class HasLosses(Protocol):
    """An algorithm that can be asked for its losses at any time. ``batch`` is whatever the algorithm trains on."""

    def sample(self, n_samples: int, generator: Generator) -> object:
        """
        :param n_samples: Number of transitions.
        :param generator: CPU generator of the draw.
        :return: A batch
        """

    def losses(self, batch: Any, *, generator: Generator) -> dict[str, Loss]:
        """
        :param batch: What :meth:`sample` has returned.
        :param generator: CPU generator of the noise, all of which is drawn here.
        :return: By name of a network: its loss on the batch, the same whenever it is called
        """


def check_losses(model: "BaseAlgorithm", networks: Iterable[str], n_samples: int) -> None:
    """
    Make sure that there will be a loss for each network, before training.

    :param model: The model.
    :param networks: Names of networks.
    :param n_samples: Number of transitions that a loss will be asked for.
    :raises ValueError: if the algorithm has no losses that could be asked for, or a network has none
    """
    if isinstance(model, HasLosses):
        known = list(find_losses(model, n_samples, Generator().manual_seed(0)))
    else:
        known = list(_functions(model))
    missing = [name for name in networks if name not in known]
    if missing:
        raise ValueError(
            f"{type(model).__name__} has no loss for network {', '.join(map(repr, missing))}, so a saliency that needs data "
            f"cannot rank it; it has losses for: {', '.join(known)}"
        )


def has_data(model: "BaseAlgorithm") -> bool:
    """
    :param model: A model with losses.
    :return: Whether there is a batch for them. Online there is from when training begins: after ``learning_starts`` steps
    """
    if isinstance(model, HasLosses):
        return True
    assert isinstance(model, OffPolicyAlgorithm) and model.replay_buffer is not None
    buffer = model.replay_buffer
    begun = model.num_timesteps > model.learning_starts and buffer.size() > 0
    # Hindsight needs an episode that has ended.
    return begun and (not isinstance(buffer, HerReplayBuffer) or bool(np.any(buffer.ep_length > 0)))


def find_losses(model: "BaseAlgorithm", n_samples: int, generator: Generator) -> dict[str, Loss]:
    """
    :param model: An offline algorithm, or a SAC, TD3, DDPG or DQN whose replay buffer holds transitions.
    :param n_samples: Number of transitions of the one batch of all losses; the replay buffer draws them with replacement.
    :param generator: CPU generator of the batch and of all noise.
    :return: By name of a network: its loss, as a function that computes it anew from the present weights
    :raises ValueError: if the algorithm has no losses that could be asked for
    """
    if isinstance(model, HasLosses):
        losses = model.losses(model.sample(n_samples, generator), generator=generator)
        seed = int(th.randint(2**32, (), generator=generator))
        return {network: partial(_call, loss, model, seed) for network, loss in losses.items()}
    functions = _functions(model)
    assert isinstance(model, OffPolicyAlgorithm) and model.replay_buffer is not None
    batch_seed, noise_seed = th.randint(2**32, (2,), generator=generator).tolist()
    state = np.random.get_state()
    try:
        # SB3's replay buffers know no generator but NumPy's global one.
        np.random.seed(batch_seed)
        batch = model.replay_buffer.sample(n_samples, env=model._vec_normalize_env)
    finally:
        np.random.set_state(state)
    losses = {network: partial(function, model, batch) for network, function in functions.items()}
    return {network: partial(_call, loss, model, noise_seed) for network, loss in losses.items()}


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


_Function = Callable[[Any, ReplayBufferSamples], Tensor]
#: By algorithm, by network.
_LOSSES: dict[type[OffPolicyAlgorithm], dict[str, _Function]] = {
    SAC: {"actor": _sac_actor, "critic": _sac_critic},
    TD3: {"actor": _td3_actor, "critic": _td3_critic},
    DQN: {"q_net": _dqn},
}


def _functions(model: "BaseAlgorithm") -> dict[str, _Function]:
    for algorithm, functions in _LOSSES.items():
        # A subclass with a train() of its own has losses of its own.
        if isinstance(model, algorithm) and type(model).train is algorithm.train:
            return functions
    raise ValueError(
        f"a saliency that needs data needs the losses of the algorithm, and {type(model).__name__} cannot be asked for them: "
        "use SAC, TD3, DDPG, DQN, an offline algorithm, or a saliency without data, such as 'magnitude'"
    )


def _call(loss: Loss, model: "BaseAlgorithm", seed: int) -> Tensor:
    with _as_in_training(model, seed):
        return loss()


@contextmanager
def _as_in_training(model: "BaseAlgorithm", seed: int) -> Iterator[None]:
    """The modes of ``train()`` and these random numbers; what a forward pass may change is put back."""
    modules = list(model.policy.modules())
    modes = [module.training for module in modules]
    norms: list[tuple[nn.Module, dict[str, Tensor | None]]] = [(m, m._buffers) for m in modules if isinstance(m, _BatchNorm)]
    # The exploration matrices of gSDE are drawn anew for each loss.
    noise = getattr(getattr(model, "actor", None), "action_dist", None)
    kept = dict(vars(noise)) if noise is not None else {}
    generators = [th.default_generator]
    if model.device.type == "cuda":
        index = th.cuda.current_device() if model.device.index is None else model.device.index
        generators.append(th.cuda.default_generators[index])
    states = [generator.get_state() for generator in generators]
    try:
        model.policy.set_training_mode(True)
        for module, buffers in norms:
            # Not restored in place: what autograd has saved must stay what it was.
            module._buffers = {name: buffer if buffer is None else buffer.clone() for name, buffer in buffers.items()}
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        for module, buffers in norms:
            module._buffers = buffers
        if noise is not None:
            vars(noise).clear()
            vars(noise).update(kept)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
