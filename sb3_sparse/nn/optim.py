"""Optimizers under masks: pruned weights stay zero, state is forgotten where a mask changes, and Adam runs fused."""

from collections.abc import Iterable

import torch as th
from torch import Tensor, nn
from torch.optim import Adam, AdamW, NAdam, Optimizer, RAdam

from sb3_sparse.nn.layers import Layer, MaskedLayer

# The attribute of an optimizer that holds the handles of its hooks, so that they are registered at most once. It is neither
# copied nor saved.
_HANDLES = "_mask_handles"

#: Optimizers that keep a running mean of squared gradients as ``exp_avg_sq``.
ADAMS = (Adam, AdamW, NAdam, RAdam)


def find_optimizers(policy: nn.Module) -> list[Optimizer]:
    """
    :param policy: The policy of an SB3 model.
    :return: The optimizers of the policy and of its networks
    """
    optimizers = (getattr(module, "optimizer", None) for module in policy.modules())
    return list(dict.fromkeys(optimizer for optimizer in optimizers if isinstance(optimizer, Optimizer)))


def hold_masks(policy: nn.Module) -> None:
    """
    Make the policy's optimizers obey the masks after every step.

    Masked gradients alone keep pruned weights and their moments at zero in nearly every case. The hooks handle the others:
    the line search of TRPO, whose conjugate gradients start from noise; optimizers whose state does not begin at zero; and the
    state of a dense model loaded into a sparse one.

    :param policy: The policy of an SB3 model, with masked layers. Call it again when more layers are masked.
    """
    layers = [layer for layer in policy.modules() if isinstance(layer, MaskedLayer)]
    for optimizer in find_optimizers(policy):
        weights = {id(p) for group in optimizer.param_groups for p in group["params"]}
        own = [layer for layer in layers if id(layer.weight) in weights]
        for handle in getattr(optimizer, _HANDLES, ()):
            handle.remove()
        holder = _Holder(own)
        handles = (
            optimizer.register_step_post_hook(holder.after_step),
            optimizer.register_load_state_dict_post_hook(holder.after_load),
        )
        setattr(optimizer, _HANDLES, handles)


class _Holder:
    """
    The hooks of one optimizer. They change its own weights only: those of another may be part of a graph still in use.

    :param layers: The masked layers whose weights the optimizer updates.
    """

    def __init__(self, layers: list[MaskedLayer]) -> None:
        self.layers = layers
        self.unchecked = set(layers)

    def after_step(self, optimizer: Optimizer, *_: object) -> None:
        """Zero pruned weights that changed, and once per layer the optimizer's new state, which may not start at zero."""
        pruned = [layer for layer in self.layers if layer.pruned]
        if pruned:
            with th.no_grad():
                th._foreach_mul_([layer.weight for layer in pruned], [layer.multiplier for layer in pruned])
        for layer in self.unchecked.intersection(pruned):
            if layer.weight in optimizer.state:
                _forget(optimizer, layer.weight, ~layer.mask)
                self.unchecked.discard(layer)

    def after_load(self, optimizer: Optimizer) -> None:
        """Zero the state of pruned weights: it may have been loaded from a dense model."""
        for layer in self.layers:
            _forget(optimizer, layer.weight, ~layer.mask)


@th.no_grad()
def _forget(optimizer: Optimizer, weight: Tensor, where: Tensor) -> None:
    for value in optimizer.state.get(weight, {}).values():
        if isinstance(value, Tensor) and value.shape == weight.shape:
            value.masked_fill_(where, 0.0)


@th.no_grad()
def apply_mask(layer: MaskedLayer, mask: Tensor, optimizers: Iterable[Optimizer], twins: Iterable[Layer] = ()) -> None:
    """
    Give a layer a new mask, zero the optimizer's state where the mask changed, and give target twins the same mask.

    Same as: ``layer.set_mask(mask)``, then zero the gradient and every optimizer state of the weight's shape where the mask
    changed. A pruned layer gets a fused Adam: other implementations are slow on a CPU where they take the square root of
    exact zeros.

    :param layer: The layer.
    :param mask: Boolean tensor of the weight's shape, True where a weight exists.
    :param optimizers: Optimizers to look for the layer's weight in.
    :param twins: Layers of target networks that follow this one, masked or not.
    """
    # Pruned weights count as changed, whatever the old mask says: the two masks may be equal in a model just loaded.
    changed = (layer.mask != mask) | ~mask
    layer.set_mask(mask)
    weight = layer.weight
    if weight.grad is not None:
        weight.grad.masked_fill_(changed, 0.0)
    for optimizer in optimizers:
        _forget(optimizer, weight, changed)
        if layer.pruned and any(weight is p for group in optimizer.param_groups for p in group["params"]):
            fuse_adam(optimizer)
    for twin in twins:
        if isinstance(twin, MaskedLayer):
            twin.set_mask(mask)
        else:
            twin.weight.masked_fill_(~mask, 0.0)


def second_moments(weights: dict[str, Tensor], optimizers: Iterable[Optimizer]) -> dict[str, Tensor | None]:
    """
    :param weights: Weights by full name of their layers.
    :param optimizers: Optimizers to look for the weights in.
    :return: By full name: ``exp_avg_sq`` of the weight's own Adam, of the weight's shape; None before its first step
    :raises ValueError: if no optimizer updates a weight, or one that keeps no second moments
    """
    owners = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    moments: dict[str, Tensor | None] = {}
    for name, weight in weights.items():
        optimizer = owners.get(weight)
        if optimizer is None or not weight.requires_grad:
            raise ValueError(f"layer '{name}' has no second moments of Adam, because no optimizer updates it")
        state = optimizer.state.get(weight, {})
        if "exp_avg_sq" not in state and (state or not isinstance(optimizer, ADAMS)):
            raise ValueError(
                f"layer '{name}' has no second moments of Adam, because its optimizer is {type(optimizer).__name__}: use a "
                "saliency that does not read them, such as 'magnitude'"
            )
        moments[name] = state.get("exp_avg_sq")
    return moments


@th.no_grad()
def flush_moments(optimizer: Optimizer) -> None:
    """
    Zero an optimizer's subnormal numbers, those below 1e-38 for float32. The moments of a dead unit decay to such numbers and
    stay there, because nine tenths of the smallest number round to itself. They move no weight, and on many CPUs one of them
    costs as much time as a hundred normal numbers.

    :param optimizer: The optimizer, before or after its first step.
    """
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 0:
                value.masked_fill_(value.abs() < th.finfo(value.dtype).tiny, 0.0)


def fuse_adam(optimizer: Optimizer) -> None:
    """
    Switch Adam and AdamW to their fused implementation, unless the user has chosen one or a setting forbids it.

    The results differ from the other implementations by rounding. Other optimizers stay as they are.

    :param optimizer: The optimizer, before or after its first step.
    """
    if type(optimizer) not in (Adam, AdamW):
        return
    for group in optimizer.param_groups:
        chosen = group["fused"] is not None or group["foreach"] is not None
        if chosen or group["capturable"] or group["differentiable"]:
            continue
        if not all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in group["params"]):
            continue
        group["fused"] = True
        for p in group["params"]:
            state = optimizer.state.get(p, {})
            if "step" in state:
                # The fused kernels read the step count on the parameter's own device.
                state["step"] = state["step"].to(p.device)
