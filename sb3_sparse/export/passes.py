"""
Lossless passes: a graph, and then a network, with fewer and better ordered numbers that computes the same function.

The only change is the order in which floats are added.
"""

from dataclasses import replace

import numpy as np

from sb3_sparse.export.graph import Graph
from sb3_sparse.export.modules import Affine
from sb3_sparse.runtime.records import Activation, Floats, Layer, Minifloats, Network, Normalize


def fold(graph: Graph) -> Network:
    """
    Fold batch norm and image scaling into the layers around them. A batch norm of the observation itself stays what it is, a
    normalization: its mean would be lost in the rounding of weights.

    :param graph: What :func:`~sb3_sparse.export.graph.trace` has found.
    :return: A network of layers alone
    :raises ValueError: if an affine operation has no layer to go to
    """
    layers: list[Layer] = []
    pending: Affine | None = None
    normalize = graph.normalize
    for operation in graph.operations:
        if isinstance(operation, Affine):
            if layers and layers[-1].activation == Activation() and pending is None:
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


def _passes_on(layer: Layer, affine: Affine) -> bool:
    """Whether scaling the output of a layer is the same as scaling its rows."""
    return layer.activation.name in ("relu", "leaky_relu") and bool((affine.scale > 0).all())


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

    A neuron without a live input is the constant ``activation(bias)`` and goes into the biases of the next layer; a neuron
    without a live output goes without a trace. A layer that would lose all keeps one, without weights.

    :param network: A network, float or quantized; its biases are float.
    :return: The smaller network
    """
    layers = list(network.layers)
    while any([_shrink_layer(layers, index) for index in range(len(layers) - 1)]):
        pass
    return replace(network, layers=tuple(layers))


def _shrink_layer(layers: list[Layer], index: int) -> bool:
    """One hidden layer, in place; whether anything has changed."""
    layer, after = layers[index], layers[index + 1]
    fed = layer.weight.reshape(layer.outputs, -1).any(axis=1)
    columns = after.weight.reshape(after.outputs, layer.outputs, -1)
    read = columns.any(axis=(0, 2))
    constants = layer.activation(layer.biases)
    # Zero padding is no constant, so this one stays.
    foldable = ~fed & ((constants == 0) | (not any(after.padding)))
    keep = ~foldable & read
    if keep.all() or (layer.outputs == 1 and not fed.any() and not read.any()):
        return False
    sums = after.dense().astype(np.float64).reshape(after.outputs, layer.outputs, -1).sum(axis=2)
    bias = (after.biases + sums[:, foldable] @ constants[foldable]).astype(np.float32)
    if keep.any():
        layers[index] = take_rows(layer, np.flatnonzero(keep))
        layers[index + 1] = replace(take_columns(after, np.flatnonzero(keep), layer.outputs), bias=bias)
    else:
        one = np.zeros(1, np.int64)
        layers[index] = take_rows(replace(layer, weight=np.zeros_like(layer.weight)), one)
        empty = replace(after, weight=np.zeros_like(after.weight), bias=bias)
        layers[index + 1] = take_columns(empty, one, layer.outputs)
    return True


def order(network: Network) -> Network:
    """
    Order hidden neurons by their number of weights, most first: equal counts stand together, and the file and the kernels
    need a few runs instead of row pointers.

    :param network: A network.
    :return: The same, permuted inside
    """
    layers = list(network.layers)
    for index in range(len(layers) - 1):
        counts = np.count_nonzero(layers[index].weight.reshape(layers[index].outputs, -1), axis=1)
        permutation = np.argsort(-counts, kind="stable")
        layers[index + 1] = take_columns(layers[index + 1], permutation, layers[index].outputs)
        layers[index] = take_rows(layers[index], permutation)
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
