"""
Which modules an observation passes on its way to an action, by the class of the policy.

SB3's own policies stand in :data:`PATHS`. Any other policy says so itself, by a method ``action_path()``: see
:class:`~sb3_sparse.nn.ActionPath`. Subclasses that change a method on the way are refused, for an export that ignored the
change would act differently without a word.
"""

from collections.abc import Callable, Iterator
from typing import Any

from sb3_contrib.crossq.policies import CrossQPolicy
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from sb3_contrib.tqc.policies import TQCPolicy
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from sb3_sparse.export.trace.modules import refuse
from sb3_sparse.nn import ActionPath


def _actor_critic(policy: ActorCriticPolicy) -> ActionPath:
    extractor = policy.features_extractor if policy.share_features_extractor else policy.pi_features_extractor
    return ActionPath(extractor, (policy.mlp_extractor.policy_net, policy.action_net), tanh=policy.squash_output)


def _squashed_gaussian(policy: Any) -> ActionPath:
    # The action is the tanh of the mean.
    return ActionPath(policy.actor.features_extractor, (policy.actor.latent_pi, policy.actor.mu), tanh=True)


def _deterministic(policy: Any) -> ActionPath:
    return ActionPath(policy.actor.features_extractor, (policy.actor.mu,))


def _values(policy: DQNPolicy) -> ActionPath:
    return ActionPath(policy.q_net.features_extractor, (policy.q_net.q_net,))


def _quantiles(policy: QRDQNPolicy) -> ActionPath:
    network = policy.quantile_net
    return ActionPath(network.features_extractor, (network.quantile_net,), estimates=network.n_quantiles)


#: Class of a policy -> the path from an observation to its deterministic action.
PATHS: dict[type[BasePolicy], Callable[[Any], ActionPath]] = {
    SACPolicy: _squashed_gaussian,
    TQCPolicy: _squashed_gaussian,
    CrossQPolicy: _squashed_gaussian,
    TD3Policy: _deterministic,
    DQNPolicy: _values,
    QRDQNPolicy: _quantiles,
    ActorCriticPolicy: _actor_critic,
}
#: The ``forward`` of a features extractor -> its modules. Subclasses that keep the ``forward`` are found as well.
EXTRACTORS: dict[Callable[..., Any], Callable[[Any], tuple[nn.Module, ...]]] = {
    FlattenExtractor.forward: lambda extractor: (),
    NatureCNN.forward: lambda extractor: (extractor.cnn, extractor.linear),
}
#: SB3's methods that an observation passes, wherever a class has them.
_METHODS = (
    "predict obs_to_tensor _predict extract_features get_distribution _get_action_dist_from_latent get_action_dist_params "
    "forward_actor unscale_action"
).split()


def find_path(policy: BasePolicy) -> ActionPath:
    """
    :param policy: The policy of a model.
    :return: Its path to an action
    :raises ValueError: if the policy has none that is known, or changes what happens on the way; the sentence names it
    """
    owner: Any = next((cls for cls in type(policy).__mro__ if cls in PATHS or "action_path" in vars(cls)), None)
    if owner is None or type(policy)._predict is not owner._predict:
        refuse(f"the policy {type(policy).__name__}")
    path: ActionPath = PATHS[owner](policy) if owner in PATHS else owner.action_path(policy)
    for name, module in policy.named_modules():
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            refuse(f"the module '{name}' ({type(module).__name__}) with a hook or a forward() of its own")
    for method in (*_METHODS, *path.calls):
        if getattr(type(policy), method, None) is not getattr(owner, method, None):
            refuse(f"the policy {type(policy).__name__} with a {method}() of its own")
    homes = {"stable_baselines3", "sb3_contrib", owner.__module__.split(".")[0]}
    for name, network in _networks(policy, path):
        for method in (*_METHODS, *path.calls, "forward"):
            function = getattr(type(network), method, None)
            if function not in (None, nn.Module.forward) and function.__module__.split(".")[0] not in homes:
                refuse(f"the {name} {type(network).__name__} with a {method}() of its own")
    return path


def _networks(policy: BasePolicy, path: ActionPath) -> Iterator[tuple[str, nn.Module]]:
    """The networks of the policy that hold a module of the path, such as the actor."""
    for name, child in policy.named_children():
        if child not in path.modules and not set(path.modules).isdisjoint(child.modules()):
            yield name, child


def flatten(path: ActionPath) -> tuple[list[nn.Module], list[nn.Module]]:
    """
    :param path: A path.
    :return: The modules of the features extractor and those behind it, in order and without their containers
    :raises ValueError: if the features extractor is unknown
    """
    extractor = path.features_extractor
    if type(extractor).forward not in EXTRACTORS:
        refuse(f"the layer 'features_extractor' ({type(extractor).__name__})")
    parts = EXTRACTORS[type(extractor).forward](extractor), path.modules
    features, rest = ([leaf for module in part for leaf in _leaves(module)] for part in parts)
    return features, rest


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    if type(module) is nn.Sequential:
        for child in module:
            yield from _leaves(child)
    else:
        yield module
