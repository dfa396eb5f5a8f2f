"""The parameters of one optimizer as flat vectors, and their way from the model and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch as th
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer, RMSprop

from sb3_sparse.engine.kernels.structs import Op
from sb3_sparse.engine.networks.checks import count_hooks, has_hooks, hooks_of_others, unsupported
from sb3_sparse.engine.networks.copies import Copies, Place
from sb3_sparse.engine.networks.memory import zeros
from sb3_sparse.engine.networks.structure import padded
from sb3_sparse.engine.networks.vector import Vector
from sb3_sparse.engine.networks.weights import Weights

#: The kernels' settings of Adam: step, lr, beta1, beta2, eps, weight_decay, decoupled. RMSprop has alpha in place of beta1.
SETTINGS = 8
STEP, LR = 0, 1
#: torch's names of the moments.
_ADAM = {"mean": "exp_avg", "square": "exp_avg_sq"}
MOMENTS: dict[type[Optimizer], dict[str, str]] = {Adam: _ADAM, AdamW: _ADAM, RMSprop: {"square": "square_avg"}}


class Parameters:
    """
    All parameters of one optimizer: a flat vector each for values, its moments, the gradient, and the target network.

    :param optimizer: The optimizer.
    :param weights: Its layers.
    :param vectors: Its other parameters.
    :raises ValueError: if these are not all that it updates
    """

    def __init__(self, optimizer: Optimizer, weights: Sequence[Weights], vectors: Sequence[Vector] = ()) -> None:
        self.optimizer = optimizer
        #: The optimizer's moments: our names, and torch's.
        self.moments = MOMENTS.get(type(optimizer), {})
        self.weights = list(weights)
        self.vectors = list(vectors)
        self.items: list[Weights | Vector] = [*self.weights, *self.vectors]
        self.arrays: dict[str, np.ndarray] = {}
        self.settings = zeros(SETTINGS, np.float64)
        self.norm = zeros(1, np.float64)
        self._tensors = [t for w in self.weights for t in (w.layer.weight, w.layer.bias)] + [v.tensor for v in self.vectors]
        updated = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._targets = [t for w in self.weights if w.target for t in (w.target.layer.weight, w.target.layer.bias)]
        if updated != {id(tensor) for tensor in self._tensors}:
            raise ValueError("the optimizer updates parameters that are not part of the network's linear layers")

    @property
    def rule(self) -> Op:
        """The instruction of the optimizer's step."""
        return Op.RMSPROP if isinstance(self.optimizer, RMSprop) else Op.ADAM

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
        pairs = sum(w.pairs_nbytes for w in self.weights)
        return indices + sum(array.nbytes for array in self.arrays.values()) + self.transposed.nbytes + pairs

    def layout(self, *, half: bool = False, threads: int = 1) -> None:
        """
        Lay out the vectors anew, by the present masks. They hold nothing before :meth:`read`.

        :param half: Whether dense products are of bfloat16.
        :param threads: Number of threads; each sums a gradient of its own.
        """
        end = 0
        for weights in self.weights:
            end = weights.set_structure(weights.structure_now(half=half), end)
        self._lay_out_target(half)
        for vector in self.vectors:
            vector.start, end = end, end + padded(vector.size)
        self.size = end
        self.arrays = {name: zeros(end) for name in ("value", *self.moments)} | {"gradient": zeros(threads * end)}
        self.arrays |= {"target": zeros(self.target_size)} if self.target_size else {}
        if any(w.bits is not None for w in self.weights):
            self.arrays["quantized"] = zeros(end)
        masks = [(w, exists) for w in self.weights if (exists := w.structure.exists()) is not None]
        if masks:
            self.arrays["mask"] = zeros(end)
            self.arrays["mask"][:] = 1.0
            for w, exists in masks:
                self.arrays["mask"][w.start : w.bias_start] = exists
        for vector in self.vectors:
            vector.arrays = self.arrays
        self.transposed = zeros(sum(w.structure.transposed_size for w in self.weights))
        start = 0
        for w in self.weights:
            stop = start + w.structure.transposed_size
            transposed = self.transposed[start:stop]
            w.point(self.arrays["value"], self.arrays["gradient"], transposed, self.arrays.get("quantized"))
            w.description.second = end if threads == 2 else 0
            if w.target is not None:
                w.target.point(self.arrays["target"])
            start = stop
        #: Values and targets; moments.
        self._weights = Copies([*self._places("value"), *self._places("target")])
        self._target = Copies(place for place in self._places("target") if place.size < place.tensor.numel())
        self._moments: Copies | None = None
        self._moment_tensors: list[int] = []

    def _lay_out_target(self, half: bool) -> None:
        targets = [w.target for w in self.weights if w.target is not None]
        self.target_size = 0
        for target in targets:
            self.target_size = target.set_structure(target.structure_now(half=half), self.target_size)
        apart = any(target.is_apart for target in targets)
        #: If they are apart: of each float of the target network the index among the values that it follows, or -1.
        self.sources = np.concatenate([target.sources() for target in targets] if apart else [np.zeros(0, dtype=np.int32)])

    @property
    def changed(self) -> bool:
        """Whether the vectors no longer fit: a mask has changed, or somebody has given the target network other weights."""
        return any(weights.changed for weights in self.weights) or self._target.miss()

    def trouble(self) -> str | None:
        """Why the kernels cannot take the optimizer's next step, or None."""
        if reason := unsupported(self.optimizer):
            return reason
        layers = [layer for w in self.weights for layer in (w.layer, w.target.layer if w.target else None) if layer]
        present = {id(parameter) for layer in layers for parameter in (layer.weight, layer.bias)}
        if present != {id(tensor) for tensor in (*self._tensors[: 2 * len(self.weights)], *self._targets)}:
            return "a parameter has been replaced"
        tensors = [*self._tensors, *self._targets]
        if any(t.dtype != th.float32 or t.device.type != "cpu" or not t.is_contiguous() for t in tensors):
            return "parameters that are not float32 in rows on the CPU"
        hooks = any(has_hooks(w.layer) for w in self.weights) or count_hooks(*(v.tensor for v in self.vectors))
        if hooks or any(hooks_of_others(self.optimizer)):
            return "hooks on gradients, or on the optimizer's steps"
        return None if self._steps() else "the optimizer has updated some of its parameters more often than others"

    def _steps(self) -> set[float]:
        """The number of steps that the optimizer has made; none if it differs between parameters."""
        states = [self.optimizer.state.get(tensor, {}) for tensor in self._tensors]
        steps = {float(state["step"]) for state in states if "step" in state} or {0.0}
        return steps if len(steps) == 1 and (steps == {0.0} or all(states)) else set()

    def read_learning_rate(self) -> None:
        """Take over the optimizer's learning rate, which may follow a schedule."""
        self.settings[LR] = self.optimizer.param_groups[0]["lr"]

    def _read_settings(self) -> None:
        group = self.optimizer.param_groups[0]
        if isinstance(self.optimizer, RMSprop):
            self.settings[LR:7] = (group["lr"], group["alpha"], 0.0, group["eps"], group["weight_decay"], 0.0)
            return
        decoupled = isinstance(self.optimizer, AdamW) or bool(group.get("decoupled_weight_decay", False))
        self.settings[LR:7] = (group["lr"], *group["betas"], group["eps"], group["weight_decay"], float(decoupled))

    def read(self) -> None:
        """Copy values, moments and target network from the model."""
        steps = self._steps()
        self.settings[STEP] = next(iter(steps))
        self._read_settings()
        for w in self.weights:
            w.prepare()
        self._weights.read()
        if steps == {0.0}:
            for name in self.moments:
                self.arrays[name][:] = 0.0
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
        # In the order in which the optimizer makes them.
        for tensor in self.optimizer.param_groups[0]["params"]:
            state = self.optimizer.state[tensor]
            if not state:
                state["step"] = th.tensor(0.0, dtype=th.float32)
                for key in self.moments.values():
                    state[key] = th.zeros_like(tensor, memory_format=th.preserve_format)
            state["step"].fill_(float(self.settings[STEP]))
        self._find_moments().write()

    def _find_moments(self) -> Copies:
        """The copies of the moments, which the optimizer makes at its first step, and anew when it loads a state."""
        tensors = [self.optimizer.state[tensor][key] for tensor in self._tensors for key in self.moments.values()]
        if self._moments is None or self._moment_tensors != [id(tensor) for tensor in tensors]:
            self._moment_tensors = [id(tensor) for tensor in tensors]
            self._moments = Copies(place for name in self.moments for place in self._places(name))
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
        if name not in self.moments:
            return parameter.detach()
        moment: Tensor = self.optimizer.state[parameter][self.moments[name]]
        return moment
