"""What the engine can train, and what it leaves to SB3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch as th
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback, EventCallback
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor
from torch import nn

from sb3_sparse.engine.kernels.library import load
from sb3_sparse.engine.networks.checks import unsupported
from sb3_sparse.engine.observations import are_vectors
from sb3_sparse.engine.updates import UPDATES, Update
from sb3_sparse.engine.updates.chain import Unsupported
from sb3_sparse.nn import MaskedLayer, find_follower, find_optimizers, input_grids, original, quantized_bits
from sb3_sparse.runtime.backends.build import BuildError

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

#: Packages whose policies compute as their modules say, and whose callbacks look at a model through its attributes.
KNOWN = ("stable_baselines3", "sb3_contrib", "rl_zoo3", "sb3_sparse")

#: Why the engine does not train a layer with a grid.
_ROUNDED = "layers round their inputs (activation_bits)"
#: Where a policy has its features extractors.
EXTRACTORS = ("features_extractor", "pi_features_extractor", "vf_features_extractor")


def find_update(model: BaseAlgorithm) -> Update:
    """
    :param model: A model.
    :return: Its update
    :raises Unsupported: if the engine cannot train it; the message says why
    """
    # Algorithms above the engine bring their update with them.
    kind = UPDATES.get(type(model)) or vars(type(model)).get("engine_update")
    if kind is None:
        names = ", ".join(algorithm.__name__ for algorithm in UPDATES)
        raise Unsupported(f"{type(model).__name__} is none of {names}")
    _check_policy(model)
    if input_grids(original(model.policy)):
        raise Unsupported(_ROUNDED)
    try:
        load()
    except BuildError as error:
        raise Unsupported(f"its kernels cannot be compiled here: {error}") from error
    try:
        update = kind(model)
    except ValueError as error:
        raise Unsupported(str(error)) from error
    for optimizer in update.optimizers:
        if reason := unsupported(optimizer):
            raise Unsupported(reason)
    return update


def _check_policy(model: BaseAlgorithm) -> None:
    """Refuse what stands between the observation and the first layer, or is not float32 on the CPU."""
    policy = original(model.policy)
    if model.device.type != "cpu":
        raise Unsupported(f"the model is on {model.device}, and the engine runs on the CPU: make or load it with device='cpu'")
    if not _is_known(policy):
        raise Unsupported(f"{type(policy).__name__} is not a policy of {', '.join(KNOWN)}, so it may compute anything")
    if getattr(model, "use_sde", False):
        raise Unsupported("gSDE (use_sde=True)")
    if not are_vectors(policy.observation_space):
        raise Unsupported(f"observations in {policy.observation_space}: only vectors run in the engine")
    for module in policy.modules():
        for extractor in map(module._modules.get, EXTRACTORS):
            if extractor is not None and type(extractor) not in (FlattenExtractor, CombinedExtractor):
                raise Unsupported(f"the features extractor {type(extractor).__name__}")
        if isinstance(module, nn.Linear) and "weight" not in module._parameters:
            raise Unsupported("a layer whose weight is computed (weight norm, spectral norm)")
    if any(p.dtype != th.float32 or not p.is_contiguous() for p in policy.parameters()):
        raise Unsupported("parameters that are not float32 in rows")


def why_not_now(model: BaseAlgorithm, update: Update) -> str | None:
    """
    :param model: A model that the engine trains.
    :param update: Its update.
    :return: Why the next gradient step has to be SB3's, or None
    """
    policy = model.__dict__["policy"]
    if input_grids(policy):
        return _ROUNDED
    modules = list(policy.modules())
    present = [*find_optimizers(policy), model.__dict__.get("ent_coef_optimizer")]
    if modules != update.modules or not all(any(own is other for other in present) for own in update.optimizers):
        return "a network or an optimizer has been replaced"
    if reason := update.trouble():
        return reason
    for module in modules:
        # The engine keeps the rule of followers itself.
        if module._forward_hooks or len(module._forward_pre_hooks) > (find_follower(module) is not None):
            return "hooks on a module's forward pass"
        if module._backward_hooks or module._backward_pre_hooks:
            return "hooks on a module's backward pass"
        if isinstance(module, MaskedLayer) and module.listeners:
            return "gradients of pruned weights are recorded"
    if any(name.split(".")[0].endswith("_target") for name in quantized_bits(policy)):
        return "a target network computes with quantized weights"
    return None


def look_through_references(callback: BaseCallback) -> bool:
    """
    :param callback: The callbacks of a run.
    :return: Whether one of them may hold layers or tensors of the model, and look at them at any step
    """
    return any(_may_hold_layers(each) for each in _callbacks(callback))


def _may_hold_layers(callback: BaseCallback) -> bool:
    known = _is_known(callback) and not isinstance(callback, ConvertCallback)
    return bool(getattr(callback, "holds_layers", not known))


def _callbacks(callback: BaseCallback) -> Iterator[BaseCallback]:
    yield callback
    children: list[BaseCallback | None] = list(callback.callbacks) if isinstance(callback, CallbackList) else []
    if isinstance(callback, EventCallback):
        children += [callback.callback, getattr(callback, "callback_on_new_best", None)]
    for child in children:
        if child is not None:
            yield from _callbacks(child)


def _is_known(instance: object) -> bool:
    return type(instance).__module__.split(".")[0] in KNOWN
