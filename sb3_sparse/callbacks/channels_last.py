"""The memory format in which a CPU computes convolutions fastest."""

from typing import Any

import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from sb3_sparse.nn import find_optimizers


class ChannelsLastCallback(BaseCallback):
    """
    Train the convolutions of a model in torch's channels-last memory format, which oneDNN need not reorder.

    Same as: ``model.policy.to(memory_format=th.channels_last)`` before training, and back afterwards, for the weights and the
    state of their optimizers. The values stay the same; results computed from them differ by rounding.

    The state of an optimizer must have the format of its weights: torch's fused Adam (2.13) reads weights and moments in their
    order in memory, and pairs the wrong ones without an error if the formats differ. So this callback converts the state too,
    and saves it in the default format. A checkpoint from the middle of a run can be trained on anywhere, with this
    callback or without; with it, the run goes on bit for bit. It works with the other callbacks of this package in any order.
    During training ``view(-1)`` of a weight fails, and so does ``policy.parameters_to_vector()``.

    :param verbose: Verbosity level: 0 for no output.
    :raises ValueError: at the start of training, if the policy has no convolution
    """

    def __init__(self, *, verbose: int = 0) -> None:
        super().__init__(verbose)
        self._handles: list[RemovableHandle] = []

    def _init_callback(self) -> None:
        policy = self.model.policy
        if not any(isinstance(module, nn.Conv2d) for module in policy.modules()):
            raise ValueError(
                f"{type(policy).__name__} has no convolution, so {type(self).__name__} cannot make it faster: leave it out"
            )
        self._on_training_end()
        _lay_out(policy, th.channels_last)
        for optimizer in find_optimizers(policy):
            self._handles.append(optimizer.register_load_state_dict_post_hook(_follow))
            self._handles.append(optimizer.register_state_dict_post_hook(_plain))

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        while self._handles:
            self._handles.pop().remove()
        _lay_out(self.model.policy, th.contiguous_format)


def _lay_out(policy: nn.Module, memory_format: th.memory_format) -> None:
    """Convert weights, gradients and masks, which stay the same objects, and then the state of their optimizers."""
    policy.to(memory_format=memory_format)  # type: ignore[call-overload]
    for optimizer in find_optimizers(policy):
        _follow(optimizer)


def _follow(optimizer: Optimizer) -> None:
    """Give an optimizer's state the memory format of the weights."""
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                state[name] = th.empty_like(weight, dtype=value.dtype, requires_grad=False).copy_(value)


def _plain(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """A copy of the state in the default memory format; the optimizer's own dictionaries do not change."""
    state = {
        key: {name: value.contiguous() if isinstance(value, Tensor) else value for name, value in values.items()}
        for key, values in state_dict["state"].items()
    }
    return {**state_dict, "state": state}
