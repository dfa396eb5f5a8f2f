"""
Which layers share their channels, and layers with other rows or columns: what the passes that change hidden neurons need.
"""

from dataclasses import replace
from typing import Any

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
    :param rows: Indices of the outputs to keep, in their new order; all of them if it has a norm, which sees them all.
    :return: The layer with these outputs
    """
    scale, gain, weight = layer.scale, layer.gain, layer.weight
    if layer.lstm:
        # Four gates of each unit, and the columns that read the units.
        columns = np.concatenate([np.arange(layer.inputs), layer.inputs + rows])
        rows = np.concatenate([gate * layer.outputs + rows for gate in range(4)])
        weight, gain = weight[:, columns], gain and gain._replace(codes=gain.codes[columns])
    if scale is not None:
        scale = scale[rows] if isinstance(scale, np.ndarray) else scale._replace(codes=scale.codes[rows])
    activation, norm = layer.activation, layer.norm
    if activation.slopes is not None:
        activation = activation._replace(slopes=activation.slopes[rows])
    if norm is not None:
        norm = norm._replace(scale=norm.scale[rows], shift=norm.shift[rows])
    return replace(
        layer, weight=weight[rows], bias=layer.biases[rows], activation=activation, scale=scale, gain=gain, norm=norm
    )


def take_columns(layer: Layer, inputs: Indices, before: int) -> Layer:
    """
    :param layer: A layer.
    :param inputs: Indices of the units or channels before it to keep, in their new order.
    :param before: How many there were.
    :return: The layer with these inputs
    """
    shape, gain = layer.weight.shape, layer.gain
    columns = np.arange(layer.inputs).reshape(before, -1)[inputs].reshape(-1)
    # Those of an LSTM that read its own units stay.
    columns = np.concatenate([columns, np.arange(layer.inputs, shape[1])])
    if gain is not None:
        gain = gain._replace(codes=gain.codes[columns])
    return replace(layer, weight=layer.weight[:, columns], gain=gain)


def by_output(layer: Layer) -> NDArray[Any]:
    """
    :param layer: A layer.
    :return: The weights that lead to each unit or channel, ``[out, weights of each]``: of an LSTM, those of four gates
    """
    if not layer.lstm:
        return layer.weight.reshape(layer.outputs, -1)
    return layer.weight.reshape(4, layer.outputs, -1).swapaxes(0, 1).reshape(layer.outputs, -1)


def by_input(layer: Layer, weight: NDArray[Any], count: int) -> NDArray[Any]:
    """
    :param layer: A layer.
    :param weight: An array of the shape of its weight.
    :param count: Number of units or channels before it.
    :return: The same, ``[rows, count, weights of each]``, without the columns of an LSTM that read its own units: a linear
        layer behind a convolution has several weights for each channel
    """
    return weight[:, : layer.inputs].reshape(layer.rows, count, -1)
