"""A linear layer of a model, and its weights in the layout of the kernels."""

from __future__ import annotations

import numpy as np
import torch as th
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
        mask = _mask(self.layer)
        self._mask = None if mask is None else mask.clone()
        return self.bias_start + padded(self.outputs)

    @property
    def changed(self) -> bool:
        """Whether the mask has changed since the structure was set."""
        mask = _mask(self.layer)
        if mask is None or self._mask is None:
            return mask is not self._mask
        return not th.equal(mask, self._mask)

    def point(self, values: np.ndarray, gradient: np.ndarray | None, transposed: np.ndarray | None) -> None:
        """Tell the kernels where the flat vectors are."""
        self.description.values = _pointer(values, self.start)
        self.description.bias = _pointer(values, self.bias_start)
        if gradient is not None:
            self.description.gradient = _pointer(gradient, self.start)
            self.description.bias_gradient = _pointer(gradient, self.bias_start)
        if transposed is not None:
            self.description.transposed = _pointer(transposed, 0)

    def take(self, vector: np.ndarray, weight: Tensor, bias: Tensor | None) -> None:
        """Copy tensors of the layer's shapes into a flat vector."""
        self.structure.take(weight.detach().numpy(), vector[self.start : self.bias_start])
        vector[self.bias_start : self.bias_start + self.outputs] = 0.0 if bias is None else bias.detach().numpy()

    def put(self, vector: np.ndarray, weight: Tensor, bias: Tensor | None) -> None:
        """Copy a flat vector into tensors of the layer's shapes."""
        self.structure.put(vector[self.start : self.bias_start], weight.detach().numpy())
        if bias is not None:
            bias.detach().numpy()[:] = vector[self.bias_start : self.bias_start + self.outputs]


def _mask(layer: nn.Linear) -> Tensor | None:
    return layer.mask if isinstance(layer, MaskedLayer) and layer.pruned else None


def _pointer(vector: np.ndarray, start: int) -> int:
    return int(vector.ctypes.data) + 4 * start
