"""The records, computed in numpy as they are written: the definition that every backend is tested against."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sb3_sparse.runtime.records import Floats, Layer, Network


def apply_layer(layer: Layer, x: Floats) -> Floats:
    """
    :param layer: A layer.
    :param x: Its inputs, ``[n, ...]``.
    :return: Its outputs, ``[n, out]`` or ``[n, out, height, width]``
    """
    weight = layer.dense()
    if not layer.convolution:
        return layer.activation(x.reshape(len(x), -1) @ weight.T + layer.biases)
    (top, side), (down, right) = layer.padding, layer.stride
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (side, side)))
    windows = sliding_window_view(padded, weight.shape[2:], axis=(2, 3))[:, :, ::down, ::right]
    n, _, height, width = windows.shape[:4]
    columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * height * width, -1)
    outputs = columns @ weight.reshape(layer.outputs, -1).T + layer.biases
    return layer.activation(outputs.reshape(n, height, width, -1).transpose(0, 3, 1, 2))


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
