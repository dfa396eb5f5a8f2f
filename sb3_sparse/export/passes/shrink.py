"""
Remove dead neurons. The network computes the same function with fewer numbers; only the order in which floats are added
changes.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.export.passes.streams import by_input, by_output, find_streams, take_columns, take_rows
from sb3_sparse.runtime.network.records import Floats, Layer, Network


def shrink(network: Network) -> Network:
    """
    Remove dead neurons (units and channels) until none is left.

    A neuron without a live input is the constant ``activation(bias)``, which is added to the biases of the layers that read
    it; a neuron without a live output is dropped. A layer that would lose all its neurons keeps one, without weights. The
    channels of a stream, which residual layers add to, are removed only if they are dead all along it. The units of an LSTM
    are not constant even without an input, and die only if nothing but dead units reads them. Those of a layer with a norm
    stay: its mean and its variance are over all of them.

    :param network: A network, float or quantized; its biases are float.
    :return: The smaller network
    """
    layers = list(network.layers)
    while any([_shrink_stream(layers, stream) for stream in find_streams(layers)]):
        pass
    return replace(network, layers=tuple(layers))


def _shrink_stream(layers: list[Layer], stream: list[int]) -> bool:
    """Shrink the layers of one stream and those that read it, in place; returns whether anything has changed."""
    count = layers[stream[0]].outputs
    if any(layers[index].norm is not None for index in stream):
        return False
    fed, read = np.zeros(count, bool), np.zeros(count, bool)
    for index in stream:
        fed |= by_output(layers[index]).any(axis=1) | layers[index].lstm
    foldable = ~fed
    constants = _constants(layers, stream)
    for index, constant in constants.items():
        reads = by_input(layers[index], layers[index].weight, count).any(axis=(0, 2))
        # With zero padding the input is not constant at the border, so the channel stays.
        foldable &= ~reads | (constant == 0) | (not _is_padded(layers[index - 1], layers[index]))
        read |= reads
    if layers[stream[0]].lstm:
        read = _read_on(layers[stream[0]], read)
    keep = ~foldable & read
    if keep.all() or (count == 1 and not read.any() and not any(layers[index].weight.any() for index in stream)):
        return False
    kept = np.flatnonzero(keep) if keep.any() else np.zeros(1, np.int64)
    for index in stream:
        layer = layers[index]
        layers[index] = take_rows(layer if keep.any() else replace(layer, weight=np.zeros_like(layer.weight)), kept)
    for index, constant in constants.items():
        after = layers[index]
        sums = by_input(after, after.dense().astype(np.float64), count).sum(axis=2)
        bias = (after.biases + sums[:, foldable] @ constant[foldable]).astype(np.float32)
        layers[index] = take_columns(after if keep.any() else _deaf(after), kept, count)
        layers[index] = replace(layers[index], bias=bias)
    return True


def _constants(layers: list[Layer], stream: list[int]) -> dict[int, Floats]:
    """By index of each layer that reads a stream: its inputs from channels without weights, ``[channels]``."""
    constants = {}
    value = np.zeros(1, np.float32)
    for index in stream:
        layer = layers[index]
        if layer.lstm:
            return {index + 1: np.zeros(layer.outputs, np.float32)}  # It has none.
        value = layer.activation(value + layer.biases if layer.residual else layer.biases)
        after = layers[index + 1]
        constants[index + 1] = np.maximum(value, np.float32(0)) if after.rectify else value
        if after.grid is not None:
            constants[index + 1] = after.grid(value)
    return constants


def _is_padded(before: Layer, layer: Layer) -> bool:
    """Whether there are zeros around what a layer reads of the one before it, or in the means that it reads."""
    return any(layer.padding) or (before.pool is not None and before.pool.mean and any(before.pool.padding))


def _deaf(layer: Layer) -> Layer:
    """The layer without weights for its inputs."""
    weight = layer.weight.copy()
    weight[:, : layer.inputs] = 0
    return replace(layer, weight=weight)


def _read_on(layer: Layer, read: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The units of an LSTM that are read, or are read by units that are, and so on."""
    reads: NDArray[np.bool_] = np.any(by_output(layer).reshape(layer.outputs, 4, -1)[:, :, layer.inputs :], axis=1)
    before = 0
    while before != (before := int(read.sum())):
        read = read | np.any(reads[read], axis=0)
    return read
