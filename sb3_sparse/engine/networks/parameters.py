"""The parameters of one optimizer as flat vectors, and their way from the model and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch as th
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from sb3_sparse.engine.networks.copies import Copies, Place
from sb3_sparse.engine.networks.memory import zeros
from sb3_sparse.engine.networks.structure import Dense, padded
from sb3_sparse.engine.networks.weights import Weights

#: The kernels' settings of Adam: step, lr, beta1, beta2, eps, weight_decay, decoupled.
SETTINGS = 8
STEP, LR = 0, 1
#: torch's names of the moments.
MOMENTS = {"mean": "exp_avg", "square": "exp_avg_sq"}


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
    def is_apart(self) -> bool:
        """Whether a layer of the target network has another layout than the one that it follows."""
        return len(self.sources) > 0

    @property
    def is_masked(self) -> bool:
        """Whether a pruned layer runs on the dense kernels, so that its gradient has to be masked."""
        return "mask" in self.arrays

    def settings_address(self) -> int:
        return int(self.settings.ctypes.data)

    def sources_address(self) -> int:
        return int(self.sources.ctypes.data)

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
        self._lay_out_target()
        for vector in self.vectors:
            vector.start, end = end, end + padded(vector.size)
        self.size = end
        self.arrays = {name: zeros(end) for name in ("value", "mean", "square", "gradient")}
        self.arrays |= {"target": zeros(self.target_size)} if self.target_size else {}
        if any(w.bits is not None for w in self.weights):
            self.arrays["quantized"] = zeros(end)
        masked = [w for w in self.weights if isinstance(w.structure, Dense) and w.structure.mask is not None]
        if masked:
            self.arrays["mask"] = zeros(end)
            self.arrays["mask"][:] = 1.0
            for w in masked:
                assert isinstance(w.structure, Dense) and w.structure.mask is not None
                index = w.structure.index[: w.structure.size]
                self.arrays["mask"][w.start : w.bias_start] = (index >= 0) & w.structure.mask.reshape(-1)[index]
        self.transposed = zeros(sum(w.structure.transposed_size for w in self.weights))
        start = 0
        for w in self.weights:
            stop = start + w.structure.transposed_size
            transposed = self.transposed[start:stop]
            w.point(self.arrays["value"], self.arrays["gradient"], transposed, self.arrays.get("quantized"))
            if w.target is not None:
                w.target.point(self.arrays["target"])
            start = stop
        #: Values and targets; moments.
        self._weights = Copies([*self._places("value"), *self._places("target")])
        self._target = Copies(place for place in self._places("target") if place.size < place.tensor.numel())
        self._moments: Copies | None = None
        self._moment_tensors: list[int] = []

    def _lay_out_target(self) -> None:
        targets = [w.target for w in self.weights if w.target is not None]
        self.target_size = 0
        for target in targets:
            self.target_size = target.set_structure(target.structure_now(), self.target_size)
        apart = any(target.is_apart for target in targets)
        #: If they are apart: of each float of the target network the index among the values that it follows, or -1.
        self.sources = np.concatenate([target.sources() for target in targets] if apart else [np.zeros(0, dtype=np.int32)])

    @property
    def changed(self) -> bool:
        """Whether the vectors no longer fit: a mask has changed, or somebody has given the target network other weights."""
        return any(weights.changed for weights in self.weights) or self._target.miss()

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
        self.settings[STEP] = next(iter(steps))
        self._read_settings()
        self._weights.read()
        if steps == {0.0}:
            self.arrays["mean"][:] = self.arrays["square"][:] = 0.0
        else:
            self._find_moments().read()

    def write_weights(self) -> None:
        """Copy values and target network into the model."""
        self._weights.write()
        # The kernels have pruned it already, so this only lets its hooks know.
        self.prune_target()

    def prune_target(self) -> None:
        """Prune the target network in the model, if it has changed and is one that is pruned."""
        for follower in (w.target.follower for w in self.weights if w.target is not None):
            if follower is not None:
                follower.prune()

    @property
    def differ(self) -> bool:
        """Whether somebody has changed values or target network in the model."""
        return self._weights.differ()

    def write_moments(self) -> None:
        """Copy the moments into the model."""
        if self.settings[STEP] == 0:
            return
        for tensor in self._tensors:
            state = self.optimizer.state[tensor]
            if not state:
                state["step"] = th.tensor(0.0, dtype=th.float32)
                state["exp_avg"] = th.zeros_like(tensor, memory_format=th.preserve_format)
                state["exp_avg_sq"] = th.zeros_like(tensor, memory_format=th.preserve_format)
            state["step"].fill_(float(self.settings[STEP]))
        self._find_moments().write()

    def _find_moments(self) -> Copies:
        """The copies of the moments, which the optimizer makes at its first step, and anew when it loads a state."""
        tensors = [self.optimizer.state[self._tensors[0]][key] for key in MOMENTS.values()]
        if self._moments is None or self._moment_tensors != [id(tensor) for tensor in tensors]:
            self._moment_tensors = [id(tensor) for tensor in tensors]
            self._moments = Copies([*self._places("mean"), *self._places("square")])
        return self._moments

    def _places(self, name: str) -> Iterator[Place]:
        """Where the tensors of a flat vector are in it."""
        if name not in self.arrays:
            return
        vector = self.arrays[name]
        for each in self.weights:
            w = each.target if name == "target" else each
            if w is not None:
                yield Place(self._tensor(w.layer.weight, name), vector, w.start, w.structure.size, w.structure.index)
                yield Place(self._tensor(w.layer.bias, name), vector, w.bias_start, w.outputs)
        if name != "target":
            for v in self.vectors:
                yield Place(self._tensor(v.tensor, name), vector, v.start, v.size)

    def _tensor(self, parameter: Tensor, name: str) -> Tensor:
        """The parameter itself, or one of its moments."""
        if name not in MOMENTS:
            return parameter.detach()
        moment: Tensor = self.optimizer.state[parameter][MOMENTS[name]]
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
    if not all(parameter.requires_grad for parameter in group["params"]):
        return "frozen parameters (requires_grad=False)"
    wrong = [name for name in ("amsgrad", "maximize", "capturable", "differentiable") if group.get(name)]
    if wrong:
        return f"the optimizer's setting {wrong[0]}"
    return None
