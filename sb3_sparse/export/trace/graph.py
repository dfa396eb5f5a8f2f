"""
A trained model as a short graph: which layers stand between an observation and the action that ``predict`` gives.

Only what is known is exported, by exact type or by the very ``forward`` of SB3's own module; everything else is refused with
its name, for a graph that leaves out a user's own code would act differently and not say so.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gymnasium import spaces
from sb3_contrib.crossq.policies import CrossQPolicy
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from sb3_contrib.tqc.policies import TQCPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from sb3_sparse.export.trace.modules import Affine, chain, refuse
from sb3_sparse.nn import quantized_bits
from sb3_sparse.offline import BCQPolicy, DiscreteBCPolicy, DiscreteBCQPolicy, MLPPolicy, OfflinePolicy, VAEPolicy
from sb3_sparse.runtime.network.records import Activation, Head, Layer, Normalize, Shape
from sb3_sparse.state import saved_bits


@dataclass(frozen=True, eq=False)
class Graph:
    """
    A policy as it was trained; :func:`sb3_sparse.export.passes.fold.fold` makes a network of it.

    :param shape: Shape of an observation, channels first for images.
    :param image: Whether it is an image.
    :param normalize: Statistics of ``VecNormalize``, if there are.
    :param operations: What is computed, in order.
    :param names: Full names of the layers among the operations.
    :param head: What makes an action of the last output.
    :param notes: What was left out of the model's own layers, a sentence each.
    """

    shape: Shape
    image: bool
    normalize: Normalize | None
    operations: tuple[Layer | Affine, ...]
    names: tuple[str, ...]
    head: Head
    notes: tuple[str, ...] = ()


def trace(model: BaseAlgorithm, normalization: VecNormalize | None = None) -> Graph:
    """
    :param model: A model of SAC, TD3, DDPG, TQC, CrossQ, DQN, QRDQN, PPO, A2C, TRPO, BC or DiscreteBC with ``Box``
        observations.
    :param normalization: The statistics that its observations were normalized with, if they were.
    :return: The graph of its deterministic policy
    :raises ValueError: if there is something in it that cannot be exported; the sentence names it
    """
    policy, space = model.policy, model.observation_space
    if not isinstance(space, spaces.Box):
        raise ValueError(f"only Box observations can be exported, and this model has {type(space).__name__} observations")
    _check_code(policy)
    policy.set_training_mode(False)
    image = is_image_space(space)
    names = {module: name for name, module in policy.named_modules()}
    called = ((names[module], module) for module in _modules(policy))
    operations, found = chain(called, {**saved_bits(model), **quantized_bits(policy)})
    notes = []
    if isinstance(policy, VAEPolicy):
        notes.append(_without_latents(operations, policy))
    if image and policy.normalize_images:
        operations.insert(0, Affine(np.full(1, 1 / 255, np.float32), np.zeros(1, np.float32)))
    if isinstance(policy, QRDQNPolicy):
        operations[-1] = _mean_quantiles(operations[-1], policy.quantile_net.n_quantiles)
    if isinstance(policy, _SQUASHED) or (policy.squash_output and isinstance(policy, ActorCriticPolicy)):
        operations = _squash(operations)
    normalize = _normalize(normalization, space.shape)
    return Graph(tuple(space.shape), image, normalize, tuple(operations), tuple(found), _head(policy), tuple(notes))


#: Their action is the tanh of a mean.
_SQUASHED = (SACPolicy, TQCPolicy, CrossQPolicy)
#: The ways to an action that are known.
_KNOWN = (*_SQUASHED, TD3Policy, DQNPolicy, QRDQNPolicy, ActorCriticPolicy, MLPPolicy, VAEPolicy, DiscreteBCPolicy)
_PREDICTS = {policy._predict for policy in _KNOWN}
#: Policies that are no feed-forward network, and what they do instead.
_CHOOSERS: dict[type[OfflinePolicy], str] = {
    BCQPolicy: "BCQ lets a critic choose among many actions that a VAE proposes",
    DiscreteBCQPolicy: "DiscreteBCQ takes the best action by its Q-network among those that another network finds likely",
}
#: What an observation passes on its way to an action, wherever a class has it.
_METHODS = (
    "predict obs_to_tensor _predict extract_features get_distribution _get_action_dist_from_latent get_action_dist_params "
    "forward_actor unscale_action features decode _shaped"
).split()
#: Where these methods may come from.
_HOMES = ("stable_baselines3.", "sb3_contrib.", "sb3_sparse.offline.")


def _check_code(policy: BasePolicy) -> None:
    """Refuse a policy whose way to an action is not that of SB3's own classes."""
    for chooser, what in _CHOOSERS.items():
        if isinstance(policy, chooser):
            raise ValueError(
                f"{what}, which is no single network and cannot be exported: clone the actions that it takes with BC or "
                "DiscreteBC, and export that"
            )
    if policy.__class__._predict not in _PREDICTS:
        refuse(f"the policy {type(policy).__name__}")
    for name, module in policy.named_modules():
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            refuse(f"the module '{name}' ({type(module).__name__}) with a hook or a forward() of its own")
    parts = {name: getattr(policy, name, None) for name in ("actor", "q_net", "quantile_net", "mlp_extractor", "vae")}
    for name, part in {"policy": policy, **parts}.items():
        # The policies of an actor and a critic have a forward that predict does not use, and a VAE has none.
        methods = _METHODS if name in ("policy", "vae") else [*_METHODS, "forward"]
        for method in methods:
            home = getattr(getattr(type(part), method, None), "__module__", None)
            if home is not None and not home.startswith(_HOMES):
                refuse(f"the {name} {type(part).__name__} with a {method}() of its own")


def _modules(policy: BasePolicy) -> Iterator[nn.Module]:
    """The modules that an observation passes, in order, without their containers."""
    if isinstance(policy, ActorCriticPolicy):
        extractor = policy.features_extractor if policy.share_features_extractor else policy.pi_features_extractor
        yield from _extractor(extractor)
        yield from _leaves(policy.mlp_extractor.policy_net)
        yield from _leaves(policy.action_net)
    elif isinstance(policy, DQNPolicy):
        yield from _extractor(policy.q_net.features_extractor)
        yield from _leaves(policy.q_net.q_net)
    elif isinstance(policy, QRDQNPolicy):
        yield from _extractor(policy.quantile_net.features_extractor)
        yield from _leaves(policy.quantile_net.quantile_net)
    elif isinstance(policy, VAEPolicy):
        yield from _extractor(policy.vae.features_extractor)
        yield from _leaves(policy.vae.decoder)
    elif isinstance(policy, MLPPolicy | DiscreteBCPolicy):
        yield from _extractor(policy.actor.features_extractor)
        yield from _leaves(policy.actor.mlp)
    else:
        actor: Any = policy.actor
        yield from _extractor(actor.features_extractor)
        if not isinstance(policy, TD3Policy):
            yield from _leaves(actor.latent_pi)
        yield from _leaves(actor.mu)


def _extractor(extractor: Any) -> Iterator[nn.Module]:
    if type(extractor).forward is NatureCNN.forward:
        yield from _leaves(extractor.cnn)
        yield from _leaves(extractor.linear)
    elif type(extractor).forward is not FlattenExtractor.forward:
        refuse(f"the layer 'features_extractor' ({type(extractor).__name__})")


def _leaves(module: Any) -> Iterator[nn.Module]:
    if type(module) is nn.Sequential:
        for child in module:
            yield from _leaves(child)
    else:
        yield module


def _without_latents(operations: list[Layer | Affine], policy: VAEPolicy) -> str:
    """
    Cut the latent variable off the decoder, in place: it is 0, and its columns add nothing.

    :param operations: The operations; the last ones are those of the decoder.
    :param policy: The policy.
    :return: What to say of it
    """
    first = len(operations) - sum(isinstance(module, nn.Linear) for module in policy.vae.decoder)
    layer = operations[first]
    assert isinstance(layer, Layer)
    operations[first] = replace(layer, weight=layer.weight[:, : policy.vae.features_dim])
    return f"The VAE's latent variable is 0, its mean, so {policy.vae.latent_dim} columns of 'vae.decoder.0' are left out."


def _mean_quantiles(layer: Layer | Affine, quantiles: int) -> Layer:
    """The mean over quantiles is linear, so the last layer can give it: ``[quantiles * actions, in]`` to ``[actions, in]``."""
    assert isinstance(layer, Layer)
    weight = layer.dense().reshape(quantiles, -1, layer.weight.shape[1]).mean(axis=0)
    return Layer(weight.astype(np.float32), layer.biases.reshape(quantiles, -1).mean(axis=0).astype(np.float32))


def _squash(operations: list[Layer | Affine]) -> list[Layer | Affine]:
    """The tanh after the mean of a squashed Gaussian."""
    last = operations[-1]
    assert isinstance(last, Layer)
    tanh = Activation("tanh")
    if last.activation == Activation():
        return [*operations[:-1], replace(last, activation=tanh)]
    # With gSDE the mean is clipped first: a unit layer carries the tanh.
    size = last.outputs
    return [*operations, Layer(np.eye(size, dtype=np.float32), np.zeros(size, np.float32), tanh)]


def _normalize(normalization: VecNormalize | None, shape: Shape) -> Normalize | None:
    if normalization is None or not normalization.norm_obs:
        return None
    statistics = normalization.obs_rms
    if isinstance(statistics, dict) or statistics.mean.shape != shape:
        raise ValueError(f"the statistics of VecNormalize do not fit observations of shape {shape}")
    scale = 1 / np.sqrt(statistics.var + normalization.epsilon)
    return Normalize(statistics.mean.astype(np.float32), scale.astype(np.float32), float(normalization.clip_obs))


def _head(policy: BasePolicy) -> Head:
    space = policy.action_space
    if isinstance(space, spaces.Box):
        low, high = (bound.reshape(-1).astype(np.float32) for bound in (space.low, space.high))
        return Head("unscale" if policy.squash_output else "clip", tuple(space.shape), low, high)
    if isinstance(space, spaces.Discrete):
        return Head("argmax", (), groups=(int(space.n),))
    if isinstance(space, spaces.MultiDiscrete):
        return Head("argmax", tuple(space.shape), groups=tuple(map(int, space.nvec)))
    if isinstance(space, spaces.MultiBinary):
        return Head("positive", tuple(space.shape))
    refuse(f"the action space {space}")
