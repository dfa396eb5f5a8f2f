"""
Which modules an observation passes on its way to an action, by the class of the policy.

SB3's own policies stand in :data:`PATHS`. Any other policy says so itself, by a method ``action_path()``: see
:class:`~sb3_sparse.nn.ActionPath`. A policy is refused if it changes another method on the way, because an export that ignored
the change would act differently without an error.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from gymnasium import spaces
from sb3_contrib.ars.policies import ARSPolicy
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.crossq.policies import CrossQPolicy
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from sb3_contrib.tqc.policies import TQCPolicy
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, MlpExtractor, NatureCNN
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import nn
from torch.nn.utils.prune import BasePruningMethod

from sb3_sparse.export.trace.forward import links
from sb3_sparse.export.trace.modules import MODULES, refuse
from sb3_sparse.nn import ActionPath, is_sequential, named_children, named_modules, original


def _actor_critic(policy: ActorCriticPolicy) -> ActionPath:
    extractor = policy.features_extractor if policy.share_features_extractor else policy.pi_features_extractor
    return ActionPath(extractor, (_latent(policy), policy.action_net), tanh=policy.squash_output)


def _maskable(policy: MaskableActorCriticPolicy) -> ActionPath:
    # All actions are allowed unless predict is given masks.
    return ActionPath(policy.pi_features_extractor, (_latent(policy), policy.action_net))


def _recurrent(policy: RecurrentActorCriticPolicy) -> ActionPath:
    extractor, modules = policy.pi_features_extractor, (_latent(policy), policy.action_net)
    return ActionPath(extractor, (policy.lstm_actor, *modules), tanh=policy.squash_output, calls=("_process_sequence",))


def _latent(policy: ActorCriticPolicy | MaskableActorCriticPolicy) -> nn.Module:
    """The actor's part of the mlp_extractor; one of the user's own is asked what its ``forward_actor`` calls."""
    mlp = original(policy.mlp_extractor)
    return mlp.policy_net if type(mlp).forward_actor is MlpExtractor.forward_actor else mlp


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
    RecurrentActorCriticPolicy: _recurrent,
    MaskableActorCriticPolicy: _maskable,
    ARSPolicy: lambda policy: ActionPath(policy.features_extractor, (policy.action_net,)),
}
#: The ``forward`` of a features extractor -> its modules. Subclasses that keep the ``forward`` are found as well.
EXTRACTORS: dict[Callable[..., Any], Callable[[Any], tuple[nn.Module, ...]]] = {
    FlattenExtractor.forward: lambda extractor: (extractor.flatten,),
    NatureCNN.forward: lambda extractor: (extractor.cnn, extractor.linear),
    # Its modules are those of the parts of an observation.
    CombinedExtractor.forward: lambda extractor: (),
}
#: SB3's methods that an observation passes, wherever a class has them.
_METHODS = (
    "predict obs_to_tensor _predict extract_features get_distribution _get_action_dist_from_latent get_action_dist_params "
    "forward_actor unscale_action"
).split()
#: Those around ``_predict``, which no path describes.
_AROUND = ("predict", "obs_to_tensor", "unscale_action")
#: SB3's ``extract_features``, each of which passes the preprocessed observation through the features extractor.
_EXTRACT = (
    None,
    BasePolicy.extract_features,
    ActorCriticPolicy.extract_features,
    MaskableActorCriticPolicy.extract_features,
)
#: Modules with their full names.
Named = list[tuple[str, nn.Module]]


def find_path(policy: BasePolicy) -> ActionPath:
    """
    :param policy: The policy of a model.
    :return: Its path to an action
    :raises ValueError: if the policy has none that is known, or changes what happens on the way; the sentence names it
    """
    owner = _find_owner(policy)
    if owner is None or type(policy)._predict is not owner._predict:
        refuse(f"the policy {type(policy).__name__}")
    path = PATHS[owner](policy) if owner in PATHS else _check_path(policy, owner.action_path(policy))
    _check_hooks(policy, path)
    _check_methods(policy, path, owner)
    return path


def has_own_path(policy: BasePolicy) -> bool:
    """
    :param policy: The policy of a model.
    :return: Whether it is not one of SB3's in :data:`PATHS`, but says its path by its own ``action_path()``
    """
    owner = _find_owner(policy)
    return owner is not None and owner not in PATHS


def _find_owner(policy: BasePolicy) -> Any:
    """The class that says the path of a policy; None without."""
    return next((cls for cls in type(policy).__mro__ if cls in PATHS or "action_path" in vars(cls)), None)


def _check_path(policy: BasePolicy, path: object) -> ActionPath:
    name = type(policy).__name__
    if not isinstance(path, ActionPath):
        raise ValueError(
            f"action_path() of {name} returned {path!r}, which is not an ActionPath: return "
            "ActionPath(features_extractor, (module, ...))"
        )
    if not isinstance(path.modules, tuple | list | nn.Sequential):
        raise ValueError(f"action_path() of {name} has modules={path.modules!r}: give a tuple of modules")
    for part in (path.features_extractor, *path.modules):
        if not isinstance(part, nn.Module):
            raise ValueError(
                f"action_path() of {name} has {part!r}, which is not an nn.Module: give modules that the policy holds, for "
                "example an nn.Tanh in place of th.tanh"
            )
    return path


def _check_hooks(policy: BasePolicy, path: ActionPath) -> None:
    passed = _within(path.features_extractor, *path.modules)
    for name, module in named_modules(policy):
        # Only the modules of the path and those that hold one: the pruning of target networks uses hooks, for example.
        hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
        if hooked and not passed.isdisjoint(module.modules()):
            if any(isinstance(hook, BasePruningMethod) for hook in module._forward_pre_hooks.values()):
                raise ValueError(
                    f"the module '{name}' is pruned by torch.nn.utils.prune, whose hook computes its weight in every pass, "
                    "and cannot be exported: make the zeros permanent by torch.nn.utils.prune.remove(module, 'weight')"
                )
            refuse(f"the module '{name}' ({type(module).__name__}) with a hook or a forward() of its own")


def _check_methods(policy: BasePolicy, path: ActionPath, owner: type[BasePolicy]) -> None:
    around = next((cls for cls in type(policy).__mro__ if cls in PATHS), BasePolicy)
    for method in (*_METHODS, *path.calls):
        expected = around if method in _AROUND else owner
        if getattr(type(policy), method, None) is not getattr(expected, method, None):
            refuse(f"the policy {type(policy).__name__} with a {method}() of its own")
    homes = {"stable_baselines3", "sb3_contrib", owner.__module__.split(".")[0]}
    for name, network in (("policy", policy), *_networks(policy, path)):
        # A path begins at the features; only `calls` can say that they are extracted in another way.
        if "extract_features" not in path.calls and getattr(type(network), "extract_features", None) not in _EXTRACT:
            refuse(f"the {name} {type(network).__name__} with a extract_features() of its own")
    for name, network in _networks(policy, path):
        for method in (*_METHODS, *path.calls, "forward"):
            function = getattr(type(network), method, None)
            if function not in (None, nn.Module.forward) and function.__module__.split(".")[0] not in homes:
                refuse(f"the {name} {type(network).__name__} with a {method}() of its own")


def _networks(policy: BasePolicy, path: ActionPath) -> Iterator[tuple[str, nn.Module]]:
    """The networks of the policy that hold a module of the path, such as the actor."""
    passed = _within(*path.modules)
    for name, child in named_children(policy):
        if child not in passed and not passed.isdisjoint(child.modules()):
            yield name, child


def _within(*modules: nn.Module) -> set[nn.Module]:
    """The modules and everything that they hold."""
    return {part for module in modules for part in module.modules()}


def flatten(policy: BasePolicy, path: ActionPath) -> tuple[Named, Named]:
    """
    :param policy: A policy.
    :param path: Its path.
    :return: The modules of the features extractor and those behind it with their full names, in order and without their
        containers
    :raises ValueError: if the features extractor is unknown, or the policy does not hold one of the modules
    """
    return _name_leaves(policy, (path.features_extractor,)), _name_leaves(policy, path.modules)


def find_parts(policy: BasePolicy, path: ActionPath) -> dict[str, Named]:
    """
    :param policy: A policy.
    :param path: Its path.
    :return: The modules that each part of an observation passes before all parts become one vector, by its key in the order in
        which they do; for an observation that is not a dict, the key "" and none
    :raises ValueError: if the features extractor does not take a dict, and the observation is one
    """
    extractor: Any = original(path.features_extractor)
    if type(extractor).forward is not CombinedExtractor.forward:
        if isinstance(policy.observation_space, spaces.Dict):
            refuse(f"the layer 'features_extractor' ({type(extractor).__name__}) of dict observations")
        return {"": []}
    parts = {}
    for key, part in original(extractor.extractors).items():
        parts[key] = _name_leaves(policy, (part,))
    return parts


def _name_leaves(policy: BasePolicy, modules: Iterable[nn.Module]) -> Named:
    """The modules in order, with their full names and without their containers."""
    names = {module: name for name, module in named_modules(policy)}
    leaves = [leaf for module in modules for leaf in _leaves(module, names)]
    for name, module in leaves:
        if not name:
            raise ValueError(
                f"action_path() of {type(policy).__name__} has the module {module}, which the policy does not hold: make it "
                "an attribute of the policy or of one of its networks"
            )
    return leaves


def _leaves(module: nn.Module, names: Mapping[nn.Module, str]) -> Iterator[tuple[str, nn.Module]]:
    """The modules of the table that a module passes its input through, with their names; none without one."""
    module = original(module)
    forward = type(module).forward
    name = names.get(module, "")
    if is_sequential(module) or forward in EXTRACTORS:
        for child in EXTRACTORS.get(forward, tuple)(module):
            yield from _leaves(child, names)
    elif type(module) in MODULES or forward.__module__.startswith("torch.") or not name:
        yield name, module
    else:
        method = "forward_actor" if hasattr(module, "forward_actor") and hasattr(module, "forward_critic") else "forward"
        for part, link in links(module, name, method):
            if original(link) in names:
                yield from _leaves(link, names)
            else:
                yield from ((f"{name}.{part}", each) for each in (link if type(link) is nn.Sequential else (link,)))
