"""The records computed in numpy, formula by formula: the definition that every backend is tested against."""

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import Activation, Floats, Layer, Network

_SIGMOID = Activation("sigmoid")


def columns(layer: Layer, x: NDArray[Any], starts: NDArray[np.bool_] | None = None) -> NDArray[Any]:
    """
    :param layer: A layer.
    :param x: Its inputs, ``[n, ...]``.
    :param starts: Which of them begin an episode, if the layer is an LSTM; see :func:`run_lstm`.
    :return: The vectors that its weight matrix ``[out, -1]`` multiplies: the inputs ``[n, in]`` of a linear layer; all windows
        of a convolution, rectified and padded, ``[n * height * width, channels * kernel height * kernel width]``; the inputs
        and the last outputs of an LSTM, see :func:`run_lstm`
    """
    if layer.lstm:
        return run_lstm(layer, x, starts)[0]
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
    :return: The largest number of each window, or its mean, of integers rounded to the nearest; x itself if there is not a
        pool
    """
    if layer.pool is None:
        return x
    (top, side), (down, right) = layer.pool.padding, layer.pool.stride
    # Padding is the smallest number, so it is never the largest: a window has at least one element of x.
    smallest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    outside = 0 if layer.pool.mean else smallest
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (side, side)), constant_values=outside)
    windows = sliding_window_view(padded, layer.pool.kernel, axis=(2, 3))[:, :, ::down, ::right]
    result: NDArray[Any]
    if not layer.pool.mean:
        result = windows.max(axis=(4, 5))
    elif x.dtype.kind == "f":
        result = windows.mean(axis=(4, 5), dtype=x.dtype)
    else:
        count = prod(layer.pool.kernel)
        result = (windows.sum(axis=(4, 5)) + count // 2) // count
    return result


def apply_layer(layer: Layer, x: Floats, before: Floats | None = None, memory: Floats | None = None) -> Floats:
    """
    :param layer: A layer.
    :param x: Its inputs, ``[n, ...]``.
    :param before: The inputs of the layer before; a residual layer adds them.
    :param memory: The last outputs and the cells of an LSTM layer, ``[n, 2, out]``, which become the new ones; by default
        zeros.
    :return: Its outputs, ``[n, out]`` or ``[n, out, height, width]``
    """
    if layer.grid is not None:
        x = layer.grid(x)
    if layer.lstm:
        return _remember(layer, x, np.zeros((len(x), 2, layer.outputs), np.float32) if memory is None else memory)
    outputs = columns(layer, x) @ layer.dense().reshape(layer.outputs, -1).T + layer.biases
    if layer.convolution:
        _, height, width = layer.sum_shape(x.shape[1:])
        outputs = outputs.reshape(len(x), height, width, layer.outputs).transpose(0, 3, 1, 2)
    if layer.residual:
        assert before is not None
        outputs = outputs + before
    if layer.norm is not None:
        outputs = layer.norm(outputs)
    return pool(layer, layer.activation(outputs))


def _remember(layer: Layer, x: Floats, memory: Floats) -> Floats:
    hidden, cell = memory[:, 0], memory[:, 1]
    inputs = np.concatenate([x.reshape(len(x), prod(x.shape[1:])), hidden], axis=1)
    gates = inputs @ layer.dense().T + layer.biases
    sigmoids = _SIGMOID(gates).reshape(len(x), 4, layer.outputs)
    candidate = np.tanh(gates[:, 2 * layer.outputs : 3 * layer.outputs])
    cell[...] = sigmoids[:, 1] * cell + sigmoids[:, 0] * candidate
    hidden[...] = sigmoids[:, 3] * np.tanh(cell)
    return hidden.copy()


def run_lstm(layer: Layer, x: Floats, starts: NDArray[np.bool_] | None = None) -> tuple[Floats, Floats]:
    """
    :param layer: An LSTM layer.
    :param x: Its inputs in the order of time, ``[n, ...]``; the first of them begins an episode.
    :param starts: Which of them begin an episode, ``[n]``; by default only the first.
    :return: The vectors that its weight matrix multiplies, ``[n, in + out]``, and its outputs, ``[n, out]``
    """
    memory = np.zeros((1, 2, layer.outputs), np.float32)
    layer = replace(layer, weight=layer.dense(), bias=layer.biases, scale=None, gain=None)
    outputs, last = np.zeros((2, len(x), layer.outputs), np.float32)
    for index, step in enumerate(x):
        if starts is not None and starts[index]:
            memory[...] = 0
        last[index] = memory[0, 0]
        outputs[index] = _remember(layer, step[None], memory)[0]
    return np.concatenate([x.reshape(len(x), -1), last], axis=1), outputs


def layer_inputs(network: Network, observations: Floats, state: Floats | None = None) -> list[Floats]:
    """
    :param network: A network.
    :param observations: ``[n, *shape]``.
    :param state: What a recurrent network remembers, ``[n, *state_shape]``; it becomes what it remembers next. By default
        every observation begins an episode.
    :return: The inputs of each layer, before its gain, and last the inputs of the head
    """
    inputs = [network.read(observations)]
    number = 0
    for layer in network.layers:
        memory = None
        if layer.lstm:
            memory = None if state is None else state[:, :, number, : layer.outputs]
            number += 1
        inputs.append(apply_layer(layer, inputs[-1], inputs[-2] if layer.residual else None, memory))
    return inputs
