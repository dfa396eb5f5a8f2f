"""A linear layer of a model, and its weights in the layout of the kernels."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from sb3_sparse.engine.kernels.structs import Layer
from sb3_sparse.engine.networks.structure import Structure, choose, padded
from sb3_sparse.nn import MaskedLayer


class Weights:
    """
    The weight and the bias of one layer, as ranges of flat vectors. The vectors belong to
    :class:`~sb3_sparse.engine.networks.parameters.Parameters`.

    :param layer: The layer.
    :param first: Number of leading inputs whose gradient nobody needs.
    :param target: The layer of a target network that has the same structure.
    """

    def __init__(self, layer: nn.Linear, *, first: int = 0, target: nn.Linear | None = None) -> None:
        self.layer = layer
        self.first = first
        self.needs_transposed = False
        #: Filled in when the vectors are made, and again when they move. Its own address stays the same.
        self.description = Layer()
        self.target = None if target is None else Weights(target, first=first)
        self.outputs, self.inputs = layer.weight.shape
        self.start = 0

    def __repr__(self) -> str:
        return f"Weights({self.inputs}, {self.outputs})"

    def structure_now(self) -> Structure:
        """The structure that fits the layer's mask."""
        mask = _mask(self.layer)
        return choose(None if mask is None else mask.numpy(), (self.outputs, self.inputs), self.first)

    def set_structure(self, structure: Structure, start: int) -> int:
        """
        :param structure: The layout of the weights.
        :param start: Index of the first weight in the flat vectors.
        :return: Index behind the bias
        """
        self.structure = structure
        self.start = start
        self.bias_start = start + structure.size
        structure.describe(self.description)
        if self.target is not None:
            self.target.set_structure(structure, start)
        self._seen = _seen(self.layer)
        return self.bias_start + padded(self.outputs)

    @property
    def changed(self) -> bool:
        """Whether the mask has changed since the structure was set."""
        return _seen(self.layer) != self._seen

    def point(self, values: np.ndarray, gradient: np.ndarray | None, transposed: np.ndarray | None) -> None:
        """Tell the kernels where the flat vectors are."""
        self.description.values = _pointer(values, self.start)
        self.description.bias = _pointer(values, self.bias_start)
        if gradient is not None:
            self.description.gradient = _pointer(gradient, self.start)
            self.description.bias_gradient = _pointer(gradient, self.bias_start)
        if transposed is not None:
            self.description.transposed = _pointer(transposed, 0)


def _mask(layer: nn.Linear) -> Tensor | None:
    return layer.mask if isinstance(layer, MaskedLayer) and layer.pruned else None


def _seen(layer: nn.Linear) -> tuple[int, int] | None:
    """What differs when the mask has changed; a mask is a buffer that is only changed by torch's operations."""
    mask = _mask(layer)
    return None if mask is None else (id(mask), mask._version)


def _pointer(vector: np.ndarray, start: int) -> int:
    return int(vector.ctypes.data) + 4 * start
