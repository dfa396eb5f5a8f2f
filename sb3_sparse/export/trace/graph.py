"""The result of tracing: the layers of a policy in order, as records that may still have affine operations between them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from sb3_sparse.runtime.network.records import IDENTITY, Floats, Head, Layer, Normalize, Part, Shape


@dataclass(frozen=True, eq=False)
class Affine:
    """
    ``scale * x + shift``, one number per unit or channel (or one for all): batch norm and the division of images by 255.

    :param scale: ``[n]`` or ``[1]``.
    :param shift: The same shape.
    """

    scale: Floats
    shift: Floats

    def after(self, layer: Layer) -> Layer:
        """
        :param layer: A layer.
        :return: The layer that gives its sums scaled and shifted
        """
        bias = layer.biases * self.scale + self.shift
        if layer.quantized and (self.scale > 0).all():
            # Integers that training has fixed stay as they are.
            return replace(layer, scale=layer.scales * self.scale, bias=bias)
        scale = self.scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
        return replace(layer, weight=layer.dense() * scale, scale=None, bias=bias)


def ends_in_sums(layer: Layer | Affine) -> bool:
    """
    :param layer: A layer, or an affine operation.
    :return: Whether it is a layer whose output is its weighted sums, with nothing behind them
    """
    if not isinstance(layer, Layer):
        return False
    plain = not layer.residual and not layer.lstm and layer.pool is None and layer.norm is None
    return plain and layer.activation == IDENTITY


def unit_layer(shape: Shape) -> Layer:
    """
    :param shape: Shape of its input: one dimension, or three with the channels first.
    :return: The layer that changes nothing
    """
    size = shape[0]
    weight = np.eye(size, dtype=np.float32).reshape(size, size, *[1] * (len(shape) - 1))
    return Layer(weight, np.zeros(size, np.float32))


@dataclass(frozen=True, eq=False)
class Graph:
    """
    A policy as it was trained; :func:`sb3_sparse.export.passes.fold` makes a network of it.

    :param shape: Shape of an observation, channels first for images.
    :param image: Whether it is an image.
    :param normalize: Statistics of ``VecNormalize``, if there are any.
    :param operations: What is computed, in order.
    :param names: Full names of the layers among the operations.
    :param carriers: Names of those that are not layers of the model, but carry an activation, a norm or a pool.
    :param view: The shape in which the first layer reads an observation that has another one; None where it has that shape.
    :param head: Makes an action of the last output.
    :param notes: What was left out of the model's own layers, one sentence each.
    :param parts: How the vector that is computed with is put together; empty for a single array of numbers.
    :param encoders: What some parts pass first, by key; such a part has the shape of its features.
    """

    shape: Shape
    image: bool
    normalize: Normalize | None
    operations: tuple[Layer | Affine, ...]
    names: tuple[str, ...]
    head: Head
    carriers: tuple[str, ...] = ()
    view: Shape | None = None
    notes: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    encoders: Mapping[str, "Graph"] = field(default_factory=dict)
