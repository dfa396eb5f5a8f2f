"""
Remove dead neurons. The network computes the same function with fewer numbers; only the order in which floats are added
changes.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.export.passes.streams import find_streams, take_columns, take_rows
from sb3_sparse.runtime.network.records import Floats, Layer, Network


def shrink(network: Network) -> Network:
    """
    Remove dead neurons (units and channels) until none is left.

    A neuron without a live input is the constant ``activation(bias)``, which is added to the biases of the layers that read
    it; a neuron without a live output is dropped. A layer that would lose all its neurons keeps one, without weights. The
    channels of a stream, which residual layers add to, are removed only if they are dead all along it.

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
    fed, read = np.zeros(count, bool), np.zeros(count, bool)
    for index in stream:
        fed |= layers[index].weight.reshape(count, -1).any(axis=1)
    foldable = ~fed
    constants = _constants(layers, stream)
    for index, constant in constants.items():
        reads = _by_input(layers[index].weight, count).any(axis=(0, 2))
        # With zero padding the input is not constant at the border, so the channel stays.
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
    """By index of each layer that reads a stream: its inputs from channels without weights, ``[channels]``."""
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
