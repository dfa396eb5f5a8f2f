"""The parameters of one optimizer as flat vectors, and their way from the model and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch as th
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from sb3_sparse.engine.networks.memory import zeros
from sb3_sparse.engine.networks.structure import Dense, padded
from sb3_sparse.engine.networks.weights import Weights

#: The kernels' settings of Adam: step, lr, beta1, beta2, eps, weight_decay, decoupled.
SETTINGS = 8
STEP, LR = 0, 1


class Vector:
    """
    A vector of parameters that is not a layer's, such as the logarithm of the entropy coefficient.

    :param tensor: The parameter, of one dimension.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.size = tensor.numel()
        self.owner: Parameters | None = None
        self.start = 0

    def __repr__(self) -> str:
        return f"Vector({self.size})"

    def address(self) -> int:
        assert self.owner is not None
        return int(self.owner.arrays["value"].ctypes.data) + 4 * self.start

    def gradient_address(self) -> int:
        assert self.owner is not None
        return int(self.owner.arrays["gradient"].ctypes.data) + 4 * self.start


class Parameters:
    """
    All parameters of one Adam or AdamW: a flat vector each for values, both moments, the gradient, and the target network.

    :param optimizer: The optimizer.
    :param weights: Its layers.
    :param vectors: Its other parameters.
    :raises ValueError: if these are not all that it updates
    """

    def __init__(self, optimizer: Optimizer, weights: Sequence[Weights], vectors: Sequence[Vector] = ()) -> None:
        self.optimizer = optimizer
        self.weights = list(weights)
        self.vectors = list(vectors)
        self.items: list[Weights | Vector] = [*self.weights, *self.vectors]
        for vector in self.vectors:
            vector.owner = self
        self.arrays: dict[str, np.ndarray] = {}
        self.settings = zeros(SETTINGS, np.float64)
        self.norm = zeros(1, np.float64)
        self._tensors = [t for w in self.weights for t in (w.layer.weight, w.layer.bias)] + [v.tensor for v in self.vectors]
        updated = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if updated != {id(tensor) for tensor in self._tensors}:
            raise ValueError("the optimizer updates parameters that are not part of the network's linear layers")

    @property
    def has_target(self) -> bool:
        return any(weights.target is not None for weights in self.weights)

    @property
    def is_masked(self) -> bool:
        """Whether a pruned layer runs on the dense kernels, so that its gradient has to be masked."""
        return "mask" in self.arrays

    def settings_address(self) -> int:
        return int(self.settings.ctypes.data)

    def norm_address(self) -> int:
        return int(self.norm.ctypes.data)

    def address(self, name: str) -> int:
        """Address of a flat vector."""
        return int(self.arrays[name].ctypes.data)

    @property
    def nbytes(self) -> int:
        """Bytes of all vectors and indices."""
        indices = sum(
            value.nbytes for w in self.weights for value in vars(w.structure).values() if isinstance(value, np.ndarray)
        )
        return indices + sum(array.nbytes for array in self.arrays.values()) + self.transposed.nbytes

    def layout(self) -> None:
        """Lay out the vectors anew, by the present masks. They hold nothing before :meth:`read`."""
        end = 0
        for weights in self.weights:
            end = weights.set_structure(weights.structure_now(), end)
        for vector in self.vectors:
            vector.start, end = end, end + padded(vector.size)
        self.size = end
        names = ["value", "mean", "square", "gradient"] + ["target"] * self.has_target
        self.arrays = {name: zeros(end) for name in names}
        masked = [w for w in self.weights if isinstance(w.structure, Dense) and w.structure.mask is not None]
        if masked:
            self.arrays["mask"] = zeros(end)
            self.arrays["mask"][:] = 1.0
            for w in masked:
                assert isinstance(w.structure, Dense) and w.structure.mask is not None
                w.structure.take(w.structure.mask.astype(np.float32), self.arrays["mask"][w.start : w.bias_start])
        self.transposed = zeros(sum(w.structure.transposed_size for w in self.weights))
        start = 0
        for w in self.weights:
            stop = start + w.structure.transposed_size
            w.point(self.arrays["value"], self.arrays["gradient"], self.transposed[start:stop])
            if w.target is not None:
                w.target.point(self.arrays["target"], None, None)
            start = stop

    @property
    def changed(self) -> bool:
        """Whether a mask has changed since the vectors were laid out."""
        return any(weights.changed for weights in self.weights)

    def read_learning_rate(self) -> None:
        """Take over the optimizer's learning rate, which may follow a schedule."""
        self.settings[LR] = self.optimizer.param_groups[0]["lr"]

    def _read_settings(self) -> None:
        group = self.optimizer.param_groups[0]
        decoupled = isinstance(self.optimizer, AdamW) or bool(group.get("decoupled_weight_decay", False))
        self.settings[LR:7] = (group["lr"], *group["betas"], group["eps"], group["weight_decay"], float(decoupled))

    def read(self) -> None:
        """Copy values, moments and target network from the model."""
        states = [self.optimizer.state.get(tensor, {}) for tensor in self._tensors]
        steps = {float(state["step"]) for state in states if "step" in state} or {0.0}
        if len(steps) > 1 or (steps != {0.0} and not all(states)):
            raise ValueError("the optimizer has updated some of its parameters more often than others")
        self.settings[STEP] = steps.pop()
        self._read_settings()
        for name, key in (("value", None), ("mean", "exp_avg"), ("square", "exp_avg_sq")):
            for w in self.weights:
                pair = [self._tensor(tensor, key) for tensor in (w.layer.weight, w.layer.bias)]
                if pair[0] is None:
                    self.arrays[name][w.start : w.bias_start + w.outputs] = 0.0
                else:
                    w.take(self.arrays[name], pair[0], pair[1])
            for v in self.vectors:
                tensor = self._tensor(v.tensor, key)
                self.arrays[name][v.start : v.start + v.size] = 0.0 if tensor is None else tensor.detach().numpy().reshape(-1)
        for w in self.weights:
            if w.target is not None:
                w.target.take(self.arrays["target"], w.target.layer.weight, w.target.layer.bias)

    @th.no_grad()
    def write(self) -> None:
        """Copy values, moments and target network into the model."""
        if self.settings[STEP] > 0:
            for tensor in self._tensors:
                state = self.optimizer.state[tensor]
                if not state:
                    state["step"] = th.tensor(0.0, dtype=th.float32)
                    state["exp_avg"] = th.zeros_like(tensor, memory_format=th.preserve_format)
                    state["exp_avg_sq"] = th.zeros_like(tensor, memory_format=th.preserve_format)
                state["step"].fill_(float(self.settings[STEP]))
        for name, key in (("value", None), ("mean", "exp_avg"), ("square", "exp_avg_sq")):
            for w in self.weights:
                pair = [self._tensor(tensor, key) for tensor in (w.layer.weight, w.layer.bias)]
                if pair[0] is not None:
                    w.put(self.arrays[name], pair[0], pair[1])
            for v in self.vectors:
                tensor = self._tensor(v.tensor, key)
                if tensor is not None:
                    tensor.detach().numpy().reshape(-1)[:] = self.arrays[name][v.start : v.start + v.size]
        for w in self.weights:
            if w.target is not None:
                w.target.put(self.arrays["target"], w.target.layer.weight, w.target.layer.bias)

    def _tensor(self, parameter: Tensor, key: str | None) -> Tensor | None:
        """The parameter itself, or one of its moments; None if the optimizer has made no step yet."""
        if key is None:
            return parameter
        moment: Tensor | None = self.optimizer.state.get(parameter, {}).get(key)
        return moment


def unsupported(optimizer: Optimizer) -> str | None:
    """
    :param optimizer: An optimizer.
    :return: Why the engine cannot take its steps, or None
    """
    if type(optimizer) not in (Adam, AdamW):
        return f"the optimizer {type(optimizer).__name__} is neither Adam nor AdamW"
    if len(optimizer.param_groups) != 1:
        return "the optimizer has several groups of parameters"
    group = optimizer.param_groups[0]
    wrong = [name for name in ("amsgrad", "maximize", "capturable", "differentiable") if group.get(name)]
    if wrong:
        return f"the optimizer's setting {wrong[0]}"
    return None
