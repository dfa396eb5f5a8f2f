"""A network in numpy, arranged for one observation at a time: the backend that needs no compiler."""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import Activation, Floats, Head, Network
from sb3_sparse.runtime.network.reference import layer_inputs

Function = Callable[[Any], NDArray[Any]]


def unpack(network: Network) -> Network:
    """
    :param network: A network.
    :return: The same with float weights alone: what the functions below take
    """
    layers = (replace(layer, weight=layer.dense(), bias=layer.biases, scale=None, gain=None) for layer in network.layers)
    return replace(network, layers=tuple(layers))


def single(network: Network) -> Function:
    """
    :param network: A network of float weights.
    :return: A function from one observation, an array of the network's shape, to one action
    """
    if any(layer.convolution for layer in network.layers):
        return lambda x: network.head(layer_inputs(network, x[None])[-1]).reshape(network.head.shape)
    layers = [
        (_arrange(layer.dense()), layer.biases, _activation(layer.activation, layer.outputs)) for layer in network.layers
    ]
    normalize, head = network.normalize, _head(network.head)

    def act(observation: NDArray[Any]) -> NDArray[Any]:
        x = observation.astype(np.float32)
        if normalize is not None:
            x = normalize(x)
        x = x.reshape(-1)
        for weight, bias, activation in layers:
            x = activation(weight.dot(x) + bias)
        return head(x)

    return act


def batch(network: Network) -> Function:
    """
    :param network: A network of float weights.
    :return: A function from float32 observations, ``[n, *shape]``, to actions, ``[n, *action_shape]``
    """
    layers = [(layer.dense().T, layer.biases, layer.activation) for layer in network.layers]
    # A convolution unfolds its input, so large batches go in parts.
    size = 64 if any(layer.convolution for layer in network.layers) else 1 << 16

    def act(x: Floats) -> NDArray[Any]:
        if len(x) > size:
            return np.concatenate([act(x[start : start + size]) for start in range(0, len(x), size)])
        if size == 64:
            return network.head(layer_inputs(network, x)[-1])
        x = (x if network.normalize is None else network.normalize(x)).reshape(len(x), prod(network.shape))
        for weight, bias, activation in layers:
            x = activation(x @ weight + bias)
        return network.head(x)

    return act


def _arrange(weight: Floats) -> Floats:
    # Fortran order multiplies faster, but for a few rows.
    return np.array(weight, order="F" if len(weight) >= 32 else "C")


def _activation(activation: Activation, size: int) -> Function:
    """The same function with fewer steps of Python."""
    if activation.name == "relu":
        # A ready array of zeros: a Python number costs as much again as the comparison.
        maximum, zeros = np.maximum, np.zeros(size, np.float32)
        return lambda x: maximum(x, zeros)
    functions: dict[str, Function] = {"tanh": np.tanh}
    return functions.get(activation.name, activation.__call__)


def _head(head: Head) -> Function:
    if head.kind == "unscale" and head.low is not None and head.high is not None:
        half, middle = (head.high - head.low) / 2, (head.high + head.low) / 2
        if (half == 1).all() and (middle == 0).all():
            return lambda x: x.reshape(head.shape)
        return lambda x: (x * half + middle).reshape(head.shape)
    return lambda x: head(x[None]).reshape(head.shape)
