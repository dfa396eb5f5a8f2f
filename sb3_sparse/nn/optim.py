"""What a change of mask means for an optimizer: what it remembers of a changed weight is forgotten, and Adam runs fused."""

from collections.abc import Iterable

import torch as th
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from sb3_sparse.nn.layers import MaskedLayer


@th.no_grad()
def apply_mask(layer: MaskedLayer, mask: Tensor, optimizers: Iterable[Optimizer]) -> None:
    """
    Give a layer a new mask, and make its optimizer forget every weight that changed sides.

    Same as: ``layer.set_mask(mask)``, then zero the gradient of, and every optimizer state of the weight's shape at,
    the places where the mask changed. A layer that has lost weights gets a fused Adam: on CPU the square root of an
    exact zero takes other implementations of Adam 25 times as long as that of any other number.

    :param layer: The layer.
    :param mask: Boolean tensor of the weight's shape, True where a weight exists.
    :param optimizers: Optimizers to look for the layer's weight in.
    """
    # A pruned weight is changed whatever the old mask says: the two may be equal when a model has just been loaded.
    changed = (layer.mask != mask) | ~mask
    layer.set_mask(mask)
    weight = layer.weight
    if weight.grad is not None:
        weight.grad.masked_fill_(changed, 0.0)
    for optimizer in optimizers:
        state = optimizer.state.get(weight, {})
        for value in state.values():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                value.masked_fill_(changed, 0.0)
        if not mask.all() and any(weight is p for group in optimizer.param_groups for p in group["params"]):
            fuse_adam(optimizer)


def fuse_adam(optimizer: Optimizer) -> None:
    """
    Switch Adam and AdamW to their fused implementation, unless the user has chosen one or a setting forbids it.

    The results differ from the other implementations by rounding. Other optimizers are left alone.

    :param optimizer: The optimizer, with or without steps taken.
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
                # The fused kernels read the number of steps on the parameter's own device.
                state["step"] = state["step"].to(p.device)
