"""The memory format in which convolutions are fastest on a CPU."""

from typing import Any

import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from sb3_sparse.nn import find_optimizers


class ChannelsLastCallback(BaseCallback):
    """
    Train the convolutions of a model in torch's channels-last memory format, from which oneDNN need not reorder anything.

    Same as: ``model.policy.to(memory_format=th.channels_last)`` before training, and back afterwards, together with all that
    optimizers remember. The values are those that they were; what is computed from them differs by rounding.

    What optimizers remember has to follow, in memory and in files: torch's fused Adam (2.13) reads weight and moments in
    their order in memory and pairs the wrong ones, without an error, where the formats of the two differ. So the optimizer's
    state is saved in the default format always, and weights load into any: a checkpoint from the middle of a run trains on
    anywhere, with this callback or without; with it the run goes on bit for bit. It works with the other callbacks of this
    package in any order. While it trains, ``view(-1)`` of a weight fails, so ``policy.parameters_to_vector()`` does.

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
                f"{type(policy).__name__} has no convolution that {type(self).__name__} could make faster: leave it out"
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
    """Weights, gradients and masks, which stay the objects that they are, and then what belongs to them in optimizers."""
    policy.to(memory_format=memory_format)  # type: ignore[call-overload]
    for optimizer in find_optimizers(policy):
        _follow(optimizer)


def _follow(optimizer: Optimizer) -> None:
    """Give what an optimizer remembers the memory format of the weights."""
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                state[name] = th.empty_like(weight, dtype=value.dtype, requires_grad=False).copy_(value)


def _plain(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """The same state in the default memory format; the optimizer's own dictionaries stay."""
    state = {
        key: {name: value.contiguous() if isinstance(value, Tensor) else value for name, value in values.items()}
        for key, values in state_dict["state"].items()
    }
    return {**state_dict, "state": state}
