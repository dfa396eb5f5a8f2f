"""
Which layers share their channels, and layers with other rows or columns: what the passes that change hidden neurons need.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import Layer

Indices = NDArray[np.intp]


def find_streams(layers: list[Layer]) -> list[list[int]]:
    """
    The hidden layers, in groups whose outputs have the same channels: a residual layer belongs to the last but one before it.
    Layers that are added to the observation, whose channels are given, are left out.

    :param layers: The layers of a network.
    :return: The indices of the layers of each stream, in order
    """
    streams = [[index] for index in range(len(layers) - 1)]
    given: list[int] = []
    for index, layer in enumerate(layers[:-1]):
        if layer.residual:
            stream = streams[index - 2] if index > 1 else given
            stream.append(index)
            streams[index] = stream
    return [stream for index, stream in enumerate(streams) if stream is not given and stream[0] == index]


def take_rows(layer: Layer, rows: Indices) -> Layer:
    """
    :param layer: A layer.
    :param rows: Indices of the outputs to keep, in their new order.
    :return: The layer with these outputs
    """
    scale = layer.scale
    if scale is not None:
        scale = scale[rows] if isinstance(scale, np.ndarray) else scale._replace(codes=scale.codes[rows])
    return replace(layer, weight=layer.weight[rows], bias=layer.biases[rows], scale=scale)


def take_columns(layer: Layer, inputs: Indices, before: int) -> Layer:
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
