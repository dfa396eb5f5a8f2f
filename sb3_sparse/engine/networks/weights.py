"""A linear layer of a model, and its weights in the layout of the kernels."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from torch import Tensor, nn

from sb3_sparse.engine.kernels.structs import Layer
from sb3_sparse.engine.networks.memory import Flat, zeros
from sb3_sparse.engine.networks.structure import Structure, choose, padded
from sb3_sparse.nn import Follower, MaskedLayer, WeightGrid, find_follower

#: Floats of the memory for the pruning of a target that belong to no weight.
REMEMBERED = 16


class Weights:
    """
    The weight and the bias of one layer, as ranges of flat vectors. The vectors belong to
    :class:`~sb3_sparse.engine.networks.parameters.Parameters`.

    :param layer: The layer.
    :param first: Number of leading inputs whose gradient nobody needs.
    :param target: The layer of a target network that follows this one.
    """

    def __init__(self, layer: nn.Linear, *, first: int = 0, target: nn.Linear | None = None) -> None:
        self.layer = layer
        self.first = first
        self.needs_transposed = False
        #: Filled in when the vectors are made, and again when they move. Its own address stays the same.
        self.description = Layer()
        self.target = None if target is None else Target(target, self)
        self.outputs, self.inputs = layer.weight.shape
        self.start = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inputs}, {self.outputs})"

    def structure_now(self, *, half: bool) -> Structure:
        """
        :param half: Whether dense products are of bfloat16.
        :return: The structure that fits the layer's mask
        """
        mask = _mask(self.layer)
        return choose(None if mask is None else mask.numpy(), (self.outputs, self.inputs), self.first, half=half)

    def set_structure(self, structure: Structure, start: int) -> int:
        """
        :param structure: The layout of the weights.
        :param start: Index of the first weight in the flat vectors.
        :return: Index behind the bias
        """
        self.structure = structure
        self.start = start
        self.bias_start = start + structure.size
        self.bits, self.grid = _bits(self.layer), _grid(self.layer)
        self._steps = zeros(structure.size if self.grid is not None else 0)
        structure.describe(self.description)
        self._pairs = zeros(structure.pairs_size, np.uint32)
        self.description.pairs = self._pairs.ctypes.data if structure.pairs_size else None
        self._seen = self._look()
        return self.bias_start + padded(self.outputs)

    @property
    def pairs_nbytes(self) -> int:
        """Bytes of the pairs of its weights, and of its target's."""
        return self._pairs.nbytes + (0 if self.target is None else self.target.pairs_nbytes)

    @property
    def needs_refresh(self) -> bool:
        """Whether the kernels read copies of the weights, which have to be made anew when these change."""
        return self.needs_transposed or self.structure.pairs_size > 0

    @property
    def changed(self) -> bool:
        """Whether the mask, the number of bits or the target's rule has changed since the structure was set."""
        return self._look() != self._seen or (self.target is not None and self.target.changed)

    def _look(self) -> Hashable:
        """What differs when there is reason for another layout; a mask is a buffer that only torch's operations change."""
        mask = _mask(self.layer)
        return None if mask is None else (id(mask), mask._version), _bits(self.layer), _grid(self.layer)

    def point(
        self,
        values: np.ndarray,
        gradient: np.ndarray | None = None,
        transposed: np.ndarray | None = None,
        quantized: np.ndarray | None = None,
    ) -> None:
        """Tell the kernels where the flat vectors are. A layer with bits computes with those in ``quantized``."""
        self.address = _pointer(values, self.start)
        self.description.values = self.address
        self.description.bias = _pointer(values, self.bias_start)
        if self.bits is not None and quantized is not None:
            self.description.values = _pointer(quantized, self.start)
        if gradient is not None:
            self.description.gradient = _pointer(gradient, self.start)
            self.description.bias_gradient = _pointer(gradient, self.bias_start)
        if transposed is not None:
            self.description.transposed = _pointer(transposed, 0)

    def prepare(self) -> None:
        """Before the weights are read: prune them, and take over the steps of their grid, 1 of floats that only fill up."""
        if isinstance(self.layer, MaskedLayer) and self.layer.pruned:
            # Somebody may have changed pruned weights, too.
            self.layer.weight.detach().mul_(self.layer.multiplier)
        if self.grid is not None:
            index, weight = self.structure.index[: self.structure.size], self.layer.weight.detach()
            steps = self.grid.steps(weight).expand_as(weight).reshape(-1).numpy()
            self._steps[:] = np.where(index >= 0, steps[index], 1.0)

    def quantization(self) -> Flat:
        """Where to quantize the weights from, and to, by which steps; ``k`` is the largest integer of the grid."""
        assert self.bits is not None
        operands = {"dst": int(self.description.values), "a": self.address}
        operands |= {"b": int(self._steps.ctypes.data)} if self.grid is not None else {}
        return Flat(operands, self.structure.size, 2 ** (self.bits - 1) - 1)


class Target(Weights):
    """
    A layer of a target network. Its layout is that of the layer that it follows as long as it has no weight elsewhere: after a
    rewiring it keeps the weights that were dropped for a while. Then it has a layout of its own, with room for the weights
    that it has and those that it may get.

    :param layer: The layer.
    :param online: The layer that it follows.
    """

    def __init__(self, layer: nn.Linear, online: Weights) -> None:
        super().__init__(layer, first=online.first)
        self.online = online

    def structure_now(self, *, half: bool) -> Structure:
        """The structure that fits the weights of this layer and of the one that it follows, which has its own already."""
        weight, shared = self.layer.weight.detach().numpy(), self.online.structure
        mask = _mask(self.online.layer)
        if mask is None or shared.holds(weight):
            return shared
        return choose((weight != 0) | mask.numpy(), (self.outputs, self.inputs), self.first, half=half)

    def set_structure(self, structure: Structure, start: int) -> int:
        end = super().set_structure(structure, start)
        self._memory = zeros(REMEMBERED + 2 * structure.size if self.keeps_largest else 0)
        return end

    @property
    def is_apart(self) -> bool:
        """Whether it lies elsewhere in its flat vector than the layer that it follows."""
        return self.structure is not self.online.structure or self.start != self.online.start

    @property
    def follower(self) -> Follower | None:
        """What prunes it in the model, if it does not just follow."""
        return find_follower(self.layer)

    @property
    def keeps_largest(self) -> bool:
        """Whether it is pruned after each soft update."""
        return _mask(self.online.layer) is not None and self.follower is not None

    def _look(self) -> Hashable:
        return self.keeps_largest, _bits(self.layer), _grid(self.layer)

    def sources(self) -> np.ndarray:
        """Of each float of its range the index in the vector of the layer that it follows, or -1."""
        online, size = self.online, self.structure.size
        index = online.structure.index[: online.structure.size]
        positions = np.flatnonzero(index >= 0)
        # The last one is where -1 leads.
        places = np.full(self.outputs * self.inputs + 1, -1, dtype=np.int32)
        places[index[positions]] = online.start + positions
        sources = np.full(size + padded(self.outputs), -1, dtype=np.int32)
        sources[:size] = places[self.structure.index[:size]]
        sources[size : size + self.outputs] = online.bias_start + np.arange(self.outputs)
        return sources

    def pruning(self) -> Flat:
        """Where to keep the largest weights, as many as the layer that it follows has."""
        operands = {"dst": self.address, "a": self.online.address, "b": int(self._memory.ctypes.data)}
        index = int(self.structure.index.ctypes.data)
        return Flat(operands, self.structure.size, self.online.structure.size, index)


def _mask(layer: nn.Linear) -> Tensor | None:
    return layer.mask if isinstance(layer, MaskedLayer) and layer.pruned else None


def _bits(layer: nn.Linear) -> int | None:
    return layer.bits if isinstance(layer, MaskedLayer) else None


def _grid(layer: nn.Linear) -> WeightGrid | None:
    return layer.weight_grid if isinstance(layer, MaskedLayer) else None


def _pointer(vector: np.ndarray, start: int) -> int:
    return int(vector.ctypes.data) + 4 * start
