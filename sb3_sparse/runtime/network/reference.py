"""The records computed in numpy, formula by formula: the definition that every backend is tested against."""

from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import Floats, Layer, Network


def columns(layer: Layer, x: NDArray[Any]) -> NDArray[Any]:
    """
    :param layer: A layer.
    :param x: Its inputs, ``[n, ...]``.
    :return: The vectors that its weight matrix ``[out, -1]`` multiplies: the inputs ``[n, in]`` of a linear layer; all windows
        of a convolution, rectified and padded, ``[n * height * width, channels * kernel height * kernel width]``
    """
    if layer.rectify:
        x = np.maximum(x, 0)
    if not layer.convolution:
        return x.reshape(len(x), prod(x.shape[1:]))
    (top, side), (down, right) = layer.padding, layer.stride
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (side, side)))
    windows = sliding_window_view(padded, layer.weight.shape[2:], axis=(2, 3))[:, :, ::down, ::right]
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, layer.weight[0].size)


def pool(layer: Layer, x: NDArray[Any]) -> NDArray[Any]:
    """
    :param layer: A layer.
    :param x: Outputs of its activation, ``[n, out, height, width]`` if it has a pool.
    :return: The largest number of each window; x itself if there is not a pool
    """
    if layer.pool is None:
        return x
    (top, side), (down, right) = layer.pool.padding, layer.pool.stride
    # Padding is the smallest number, so it is never the largest: a window has at least one element of x.
    smallest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (side, side)), constant_values=smallest)
    largest: NDArray[Any] = sliding_window_view(padded, layer.pool.kernel, axis=(2, 3))[:, :, ::down, ::right].max(axis=(4, 5))
    return largest


def apply_layer(layer: Layer, x: Floats, before: Floats | None = None) -> Floats:
    """
    :param layer: A layer.
    :param x: Its inputs, ``[n, ...]``.
    :param before: The inputs of the layer before; a residual layer adds them.
    :return: Its outputs, ``[n, out]`` or ``[n, out, height, width]``
    """
    outputs = columns(layer, x) @ layer.dense().reshape(layer.outputs, -1).T + layer.biases
    if layer.convolution:
        _, height, width = layer.sum_shape(x.shape[1:])
        outputs = outputs.reshape(len(x), height, width, layer.outputs).transpose(0, 3, 1, 2)
    if layer.residual:
        assert before is not None
        outputs = outputs + before
    return pool(layer, layer.activation(outputs))


def layer_inputs(network: Network, observations: Floats) -> list[Floats]:
    """
    :param network: A network.
    :param observations: ``[n, *shape]``.
    :return: The inputs of each layer, before its gain, and last the inputs of the head
    """
    x = observations.astype(np.float32)
    inputs = [x if network.normalize is None else network.normalize(x)]
    for layer in network.layers:
        inputs.append(apply_layer(layer, inputs[-1], inputs[-2] if layer.residual else None))
    return inputs
