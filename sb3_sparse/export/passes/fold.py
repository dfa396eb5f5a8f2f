"""
From a graph to a network of layers alone: batch norm and image scaling become part of the layers around them.

The network computes the same function; only the order in which floats are added changes.
"""

from dataclasses import replace
from math import prod

import numpy as np

from sb3_sparse.export.trace import Affine, Graph
from sb3_sparse.runtime.network.records import Floats, Layer, Minifloats, Network, Normalize, Part


def fold(graph: Graph) -> Network:
    """
    Fold batch norm and image scaling into the layers around them. A batch norm of the observation itself becomes the network's
    normalization: inside the first layer, its mean would be lost in the rounding of weights.

    :param graph: The graph that :func:`~sb3_sparse.export.trace.trace` has found.
    :return: A network of layers alone
    :raises ValueError: if an affine operation has no layer to go to, or the layers do not fit each other
    """
    layers: list[Layer] = []
    pending: Affine | None = None
    normalize = graph.normalize
    for operation in graph.operations:
        if isinstance(operation, Affine):
            if not layers and pending is None and normalize is None and operation.shift.any() and operation.scale.all():
                normalize = _as_normalize(operation, graph.shape)
            else:
                pending = operation if pending is None else _chain(pending, operation)
        else:
            if pending is not None and layers and operation.quantized and _passes_on(layers[-1], pending):
                layers[-1] = Affine(pending.scale, np.zeros_like(pending.shift)).after(layers[-1])
                pending = Affine(np.ones(1, np.float32), pending.shift)
            layers.append(operation if pending is None else _before(operation, pending))
            pending = None
    if pending is not None:
        raise ValueError(
            "a batch norm or a scaled activation (SELU, CELU, Softplus with a beta) at the end cannot be exported: "
            "end in a linear layer"
        )
    encoders = {key: fold(encoder) for key, encoder in graph.encoders.items()}
    parts = tuple(
        Part(part.key, encoders[part.key].shape, encoder=encoders[part.key]) if part.key in encoders else part
        for part in graph.parts
    )
    network = Network(graph.shape, graph.image, normalize, tuple(layers), graph.head, parts=parts, view=graph.view)
    _ = network.shapes  # Raises an error if layers do not fit each other.
    return network


def _passes_on(layer: Layer, affine: Affine) -> bool:
    """Whether scaling the output of a layer is the same as scaling its rows."""
    scales = layer.activation.name in ("relu", "leaky_relu", "prelu") and not layer.residual and layer.norm is None
    # Behind a convolution that has been flattened there may be one number for each place.
    return scales and len(affine.scale) in (1, layer.rows) and bool((affine.scale > 0).all())


def _before(layer: Layer, affine: Affine) -> Layer:
    if any(layer.padding) and affine.shift.any():
        raise ValueError("a batch norm before a convolution with padding cannot be exported")
    if layer.grid is not None:
        if len(affine.scale) > 1 or affine.shift.any() or affine.scale[0] <= 0:
            raise ValueError(
                "a batch norm before a layer with rounded inputs cannot be exported: train without activation_bits"
            )
        layer = replace(layer, grid=layer.grid._replace(unit=float(np.float32(layer.grid.unit / affine.scale[0]))))
    if layer.rectify:
        raise ValueError("a batch norm before a residual block cannot be exported, unless it follows a convolution")
    # Channels of a convolution before a linear layer have several columns each.
    inputs, own = layer.inputs, layer.weight.shape[1] - layer.inputs
    if inputs % len(affine.scale):
        numbers = f"a batch norm of {len(affine.scale)} numbers before a convolution of {inputs} channels"
        raise ValueError(f"{numbers} cannot be exported: put it behind nn.Unflatten")
    shape = (1, inputs + own, *[1] * (layer.weight.ndim - 2))
    scale, shift = (np.repeat(part, inputs // len(part)) for part in (affine.scale, affine.shift))
    # What an LSTM reads of its own outputs stays as it is.
    scale, shift = np.append(scale, np.ones(own, np.float32)).reshape(shape), np.append(shift, np.zeros(own)).reshape(shape)
    shifts = (layer.dense().astype(np.float64) * shift).reshape(layer.rows, -1).sum(axis=1)
    bias = (layer.biases + shifts).astype(np.float32)
    if layer.quantized and not layer.lstm and len(affine.scale) == 1 and affine.scale[0] > 0:
        return replace(layer, scale=_times(layer.scale, float(affine.scale[0])), bias=bias)
    return replace(layer, weight=layer.dense() * scale, scale=None, bias=bias)


def _times(scale: Minifloats | Floats | None, factor: float) -> Minifloats | Floats | None:
    if isinstance(scale, Minifloats):
        return scale._replace(unit=float(np.float32(scale.unit * factor)))
    return None if scale is None else (scale * np.float32(factor)).astype(np.float32)


def _chain(first: Affine, second: Affine) -> Affine:
    return Affine(first.scale * second.scale, first.shift * second.scale + second.shift)


def _as_normalize(affine: Affine, shape: tuple[int, ...]) -> Normalize:
    # scale * x + shift = (x - mean) * scale
    mean = np.where(affine.scale != 0, -affine.shift / np.where(affine.scale != 0, affine.scale, 1), 0)
    # One number per channel where there are channels.
    size = prod(shape) // len(mean)
    mean, scale = (np.repeat(each.astype(np.float32), size).reshape(shape) for each in (mean, affine.scale))
    return Normalize(mean, scale, float("inf"))
