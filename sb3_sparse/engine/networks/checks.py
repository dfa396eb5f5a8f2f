"""Whether an optimizer and its layers do what the kernels do."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer, RMSprop

from sb3_sparse.nn import MaskedLayer


def has_hooks(layer: nn.Linear) -> bool:
    """Whether gradients of the layer's parameters go through hooks other than that of its mask."""
    own = int(isinstance(layer, MaskedLayer) and layer._hook is not None)
    return count_hooks(layer.weight, layer.bias) > own


def count_hooks(*parameters: Tensor) -> int:
    """The number of hooks that gradients of the parameters go through."""
    return sum(len(hooks or ()) for p in parameters for hooks in (p._backward_hooks, p._post_accumulate_grad_hooks))


def hooks_of_others(optimizer: Optimizer) -> Iterator[object]:
    """The hooks on the optimizer's steps that are not those of masks."""
    for hook in (*optimizer._optimizer_step_pre_hooks.values(), *optimizer._optimizer_step_post_hooks.values()):
        owner = getattr(getattr(hook, "func", hook), "__self__", None)
        if not type(owner).__module__.startswith("sb3_sparse."):
            yield hook


def unsupported(optimizer: Optimizer) -> str | None:
    """
    :param optimizer: An optimizer.
    :return: Why the engine cannot take its steps, or None
    """
    if type(optimizer) not in (Adam, AdamW, RMSprop):
        return f"the optimizer {type(optimizer).__name__} is none of Adam, AdamW, RMSprop"
    if len(optimizer.param_groups) != 1:
        return "the optimizer has several groups of parameters"
    group = optimizer.param_groups[0]
    if not all(parameter.requires_grad for parameter in group["params"]):
        return "frozen parameters (requires_grad=False)"
    wrong = [
        name for name in ("amsgrad", "centered", "momentum", "maximize", "capturable", "differentiable") if group.get(name)
    ]
    if wrong:
        return f"the optimizer's setting {wrong[0]}"
    return None
