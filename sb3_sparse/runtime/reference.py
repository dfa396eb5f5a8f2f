"""The records, computed in numpy as they are written: the definition that every backend is tested against."""

from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sb3_sparse.runtime.records import Floats, Layer, Network


def columns(layer: Layer, x: NDArray[Any]) -> NDArray[Any]:
    """
    :param layer: A layer.
    :param x: Its inputs, ``[n, ...]``.
    :return: What its weight matrix ``[out, -1]`` multiplies, ``[n, in]``; of a convolution all its windows, ``[n * height *
        width, channels * kernel height * kernel width]``
    """
    if not layer.convolution:
        return x.reshape(len(x), prod(x.shape[1:]))
    (top, side), (down, right) = layer.padding, layer.stride
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (side, side)))
    windows = sliding_window_view(padded, layer.weight.shape[2:], axis=(2, 3))[:, :, ::down, ::right]
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, layer.weight[0].size)


def apply_layer(layer: Layer, x: Floats) -> Floats:
    """
    :param layer: A layer.
    :param x: Its inputs, ``[n, ...]``.
    :return: Its outputs, ``[n, out]`` or ``[n, out, height, width]``
    """
    outputs = columns(layer, x) @ layer.dense().reshape(layer.outputs, -1).T + layer.biases
    if layer.convolution:
        _, height, width = layer.output_shape(x.shape[1:])
        outputs = outputs.reshape(len(x), height, width, layer.outputs).transpose(0, 3, 1, 2)
    return layer.activation(outputs)


def layer_inputs(network: Network, observations: Floats) -> list[Floats]:
    """
    :param network: A network.
    :param observations: ``[n, *shape]``.
    :return: What comes into each layer, before its gain, and last what comes into the head
    """
    x = observations.astype(np.float32)
    inputs = [x if network.normalize is None else network.normalize(x)]
    for layer in network.layers:
        inputs.append(apply_layer(layer, inputs[-1]))
    return inputs
