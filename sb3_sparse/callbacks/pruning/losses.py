"""
The loss of each network of a model on one fixed batch, for saliencies that need data.

An offline algorithm has a method for its losses (:class:`HasLosses`). Those of SB3's algorithms are in
:mod:`sb3_sparse.callbacks.pruning.sb3_losses`. A loss has the same value whenever it is called. Neither taking the batch nor
calling a loss changes a random state or the model.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sb3_sparse.callbacks.pruning.sb3_losses import LOSSES, NetworkLoss
from sb3_sparse.sparsity import Loss

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


@runtime_checkable
class HasLosses(Protocol):
    """An algorithm with a method for its losses. ``batch`` is whatever the algorithm trains on."""

    def sample(self, n_samples: int, generator: Generator) -> object:
        """
        :param n_samples: Number of transitions.
        :param generator: CPU generator of the draw.
        :return: A batch
        """

    def losses(self, batch: Any, *, generator: Generator) -> dict[str, Loss]:
        """
        :param batch: What :meth:`sample` has returned.
        :param generator: CPU generator of the noise, all of which is drawn here and not when a loss is called.
        :return: By name of a network: its loss on the batch, the same whenever it is called
        """


def check_losses(model: "BaseAlgorithm", networks: Iterable[str], n_samples: int) -> None:
    """
    Make sure that there will be a loss for each network, before training.

    :param model: The model.
    :param networks: Names of networks.
    :param n_samples: Number of transitions of a loss's batch.
    :raises ValueError: if the losses of the algorithm are not known, or a network has none
    """
    if isinstance(model, HasLosses):
        # Only the losses of a batch say which networks have one.
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
    :return: Whether there is a batch for them: offline always, online when training begins, after ``learning_starts`` steps
    """
    if isinstance(model, HasLosses):
        return True
    assert isinstance(model, OffPolicyAlgorithm) and model.replay_buffer is not None
    buffer = model.replay_buffer
    begun = model.num_timesteps > model.learning_starts and buffer.size() > 0
    # Hindsight needs a finished episode.
    return begun and (not isinstance(buffer, HerReplayBuffer) or bool(np.any(buffer.ep_length > 0)))


def find_losses(model: "BaseAlgorithm", n_samples: int, generator: Generator) -> dict[str, Loss]:
    """
    :param model: An offline algorithm, or a SAC, TD3, DDPG or DQN whose replay buffer holds transitions.
    :param n_samples: Number of transitions of the one batch of all losses; the replay buffer draws them with replacement.
    :param generator: CPU generator of the batch and of all noise.
    :return: By name of a network: its loss, as a function that computes it from the present weights
    :raises ValueError: if the losses of the algorithm are not known
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
        # SB3's replay buffers draw from NumPy's global generator only.
        np.random.seed(batch_seed)
        batch = model.replay_buffer.sample(n_samples, env=model._vec_normalize_env)
    finally:
        np.random.set_state(state)
    losses = {network: partial(function, model, batch) for network, function in functions.items()}
    return {network: partial(_call, loss, model, noise_seed) for network, loss in losses.items()}


def _functions(model: "BaseAlgorithm") -> dict[str, NetworkLoss]:
    for algorithm, functions in LOSSES.items():
        # A subclass that overrides train() has other losses.
        if isinstance(model, algorithm) and getattr(model, "_stock", type(model)).train is algorithm.train:
            return functions
    raise ValueError(
        f"a saliency that needs data needs the losses of the algorithm, and those of {type(model).__name__} are not known: "
        "use SAC, TD3, DDPG, DQN, an offline algorithm, or a saliency without data, such as 'magnitude'"
    )


def _call(loss: Loss, model: "BaseAlgorithm", seed: int) -> Tensor:
    with _as_in_training(model, seed):
        return loss()


@contextmanager
def _as_in_training(model: "BaseAlgorithm", seed: int) -> Iterator[None]:
    """Training modes as in ``train()``, and seeded generators; everything that a forward pass may change is restored."""
    modules = list(model.policy.modules())
    modes = [module.training for module in modules]
    norms: list[tuple[nn.Module, dict[str, Tensor | None]]] = [(m, m._buffers) for m in modules if isinstance(m, _BatchNorm)]
    # gSDE draws new exploration matrices for each loss.
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
            # Not restored in place, because autograd has saved these tensors.
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
