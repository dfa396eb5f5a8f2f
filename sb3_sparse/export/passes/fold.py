"""
Lossless passes: a graph, and then a network, with fewer and better ordered numbers that computes the same function.

The only change is the order in which floats are added.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.export.trace.graph import Graph
from sb3_sparse.export.trace.modules import Affine
from sb3_sparse.runtime.network.records import Activation, Floats, Layer, Minifloats, Network, Normalize


def fold(graph: Graph) -> Network:
    """
    Fold batch norm and image scaling into the layers around them. A batch norm of the observation itself stays what it is, a
    normalization: its mean would be lost in the rounding of weights.

    :param graph: What :func:`~sb3_sparse.export.trace.graph.trace` has found.
    :return: A network of layers alone
    :raises ValueError: if an affine operation has no layer to go to
    """
    layers: list[Layer] = []
    pending: Affine | None = None
    normalize = graph.normalize
    for operation in graph.operations:
        if isinstance(operation, Affine):
            if layers and _ends_in_sums(layers[-1]) and pending is None:
                layers[-1] = _after(layers[-1], operation)
            elif not layers and pending is None and normalize is None and operation.shift.any() and operation.scale.all():
                normalize = _as_normalize(operation, graph.shape)
            else:
                pending = operation if pending is None else _chain(pending, operation)
        else:
            if pending is not None and layers and operation.quantized and _passes_on(layers[-1], pending):
                layers[-1] = _after(layers[-1], Affine(pending.scale, np.zeros_like(pending.shift)))
                pending = Affine(np.ones(1, np.float32), pending.shift)
            layers.append(operation if pending is None else _before(operation, pending))
            pending = None
    if pending is not None:
        raise ValueError("a batch norm after the last activation cannot be exported")
    return Network(graph.shape, graph.image, normalize, tuple(layers), graph.head)


def _ends_in_sums(layer: Layer) -> bool:
    """Whether the output of a layer is its weighted sums and nothing else."""
    return layer.activation == Activation() and not layer.residual and layer.pool is None


def _passes_on(layer: Layer, affine: Affine) -> bool:
    """Whether scaling the output of a layer is the same as scaling its rows."""
    return layer.activation.name in ("relu", "leaky_relu") and not layer.residual and bool((affine.scale > 0).all())


def _after(layer: Layer, affine: Affine) -> Layer:
    bias = layer.biases * affine.scale + affine.shift
    if layer.quantized and (affine.scale > 0).all():
        # Integers that training has fixed stay what they are.
        return replace(layer, scale=layer.scales * affine.scale, bias=bias)
    scale = affine.scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
    return replace(layer, weight=layer.dense() * scale, scale=None, bias=bias)


def _before(layer: Layer, affine: Affine) -> Layer:
    if any(layer.padding) and affine.shift.any():
        raise ValueError("a batch norm before a convolution with padding cannot be exported")
    if layer.rectify:
        raise ValueError("a batch norm before a residual block cannot be exported, unless it follows a convolution")
    # Channels of a convolution before a linear layer have several columns each.
    inputs = layer.weight.shape[1]
    shape = (1, inputs, *[1] * (layer.weight.ndim - 2))
    scale, shift = (np.repeat(part, inputs // len(part)).reshape(shape) for part in (affine.scale, affine.shift))
    shifts = (layer.dense().astype(np.float64) * shift).reshape(layer.outputs, -1).sum(axis=1)
    bias = (layer.biases + shifts).astype(np.float32)
    if layer.quantized and len(affine.scale) == 1 and affine.scale[0] > 0:
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
    return Normalize(mean.astype(np.float32).reshape(shape), affine.scale.reshape(shape), float("inf"))


def shrink(network: Network) -> Network:
    """
    Remove dead neurons (units and channels), over and over until none is left.

    A neuron without a live input is the constant ``activation(bias)`` and goes into the biases of the layers that read it; a
    neuron without a live output goes without a trace. A layer that would lose all keeps one, without weights. The channels
    of a stream, which residual layers add to, go only if they are dead all along it.

    :param network: A network, float or quantized; its biases are float.
    :return: The smaller network
    """
    layers = list(network.layers)
    while any([_shrink_stream(layers, stream) for stream in _streams(layers)]):
        pass
    return replace(network, layers=tuple(layers))


def _streams(layers: list[Layer]) -> list[list[int]]:
    """
    The hidden layers, in groups whose outputs have the same channels: a residual layer belongs to the last but one before it.
    What is added to the observation, whose channels are given, is left out.
    """
    streams = [[index] for index in range(len(layers) - 1)]
    given: list[int] = []
    for index, layer in enumerate(layers[:-1]):
        if layer.residual:
            stream = streams[index - 2] if index > 1 else given
            stream.append(index)
            streams[index] = stream
    return [stream for index, stream in enumerate(streams) if stream is not given and stream[0] == index]


def _shrink_stream(layers: list[Layer], stream: list[int]) -> bool:
    """The layers of one stream and those that read it, in place; whether anything has changed."""
    count = layers[stream[0]].outputs
    fed, read = np.zeros(count, bool), np.zeros(count, bool)
    for index in stream:
        fed |= layers[index].weight.reshape(count, -1).any(axis=1)
    foldable = ~fed
    constants = _constants(layers, stream)
    for index, constant in constants.items():
        reads = _by_input(layers[index].weight, count).any(axis=(0, 2))
        # Zero padding is no constant, so this one stays.
        foldable &= ~reads | (constant == 0) | (not any(layers[index].padding))
        read |= reads
    keep = ~foldable & read
    if keep.all() or (count == 1 and not fed.any() and not read.any()):
        return False
    kept = np.flatnonzero(keep) if keep.any() else np.zeros(1, np.int64)
    for index in stream:
        layer = layers[index]
        layers[index] = take_rows(layer if keep.any() else replace(layer, weight=np.zeros_like(layer.weight)), kept)
    for index, constant in constants.items():
        after = layers[index]
        sums = _by_input(after.dense().astype(np.float64), count).sum(axis=2)
        bias = (after.biases + sums[:, foldable] @ constant[foldable]).astype(np.float32)
        weight = after.weight if keep.any() else np.zeros_like(after.weight)
        layers[index] = take_columns(replace(after, weight=weight, bias=bias), kept, count)
    return True


def _constants(layers: list[Layer], stream: list[int]) -> dict[int, Floats]:
    """What comes into each layer that reads a stream from channels without weights, ``[channels]``, by its index."""
    constants = {}
    value = np.zeros(1, np.float32)
    for index in stream:
        layer = layers[index]
        value = layer.activation(value + layer.biases if layer.residual else layer.biases)
        constants[index + 1] = np.maximum(value, np.float32(0)) if layers[index + 1].rectify else value
    return constants


def _by_input(weight: NDArray[Any], count: int) -> NDArray[Any]:
    """``[out, count, weights of each]``: those of a linear layer behind a convolution have several for each channel."""
    return weight.reshape(len(weight), count, -1)


def order(network: Network) -> Network:
    """
    Order hidden neurons by their number of weights, most first: equal counts stand together, and the file and the kernels
    need a few runs instead of row pointers. The channels of a stream are ordered by the weights of all its layers.

    :param network: A network.
    :return: The same, permuted inside
    """
    layers = list(network.layers)
    for stream in _streams(layers):
        count = layers[stream[0]].outputs
        counts = np.sum([np.count_nonzero(layers[index].weight.reshape(count, -1), axis=1) for index in stream], axis=0)
        permutation = np.argsort(-counts, kind="stable")
        for index in stream:
            layers[index] = take_rows(layers[index], permutation)
            layers[index + 1] = take_columns(layers[index + 1], permutation, count)
    return replace(network, layers=tuple(layers))


def take_rows(layer: Layer, rows: np.ndarray) -> Layer:
    """
    :param layer: A layer.
    :param rows: Indices of the outputs to keep, in their new order.
    :return: The layer with these outputs
    """
    scale = layer.scale
    if scale is not None:
        scale = scale[rows] if isinstance(scale, np.ndarray) else scale._replace(codes=scale.codes[rows])
    return replace(layer, weight=layer.weight[rows], bias=layer.biases[rows], scale=scale)


def take_columns(layer: Layer, inputs: np.ndarray, before: int) -> Layer:
    """
    :param layer: A layer.
    :param inputs: Indices of the units or channels before it to keep, in their new order.
    :param before: How many there were.
    :return: The layer with these inputs
    """
    shape = layer.weight.shape
    weight = layer.weight.reshape(shape[0], before, -1)[:, inputs]
    weight = weight.reshape(shape[0], -1) if len(shape) == 2 else weight.reshape(shape[0], len(inputs), *shape[2:])
    gain = layer.gain
    if gain is not None:
        gain = gain._replace(codes=gain.codes.reshape(before, -1)[inputs].reshape(-1))
    return replace(layer, weight=weight, gain=gain)
