"""A network in numpy, arranged for one observation at a time: the backend that needs no compiler."""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.capabilities import Capabilities, require_known
from sb3_sparse.runtime.network.records import (
    ACTIVATIONS,
    HEADS,
    Activation,
    Fixed,
    Floats,
    Grid,
    Head,
    Layer,
    Minifloats,
    Network,
    Norm,
    Normalize,
    Part,
    Pool,
)
from sb3_sparse.runtime.network.reference import layer_inputs

Function = Callable[[Any], NDArray[Any]]
#: From observations ``[n, *shape]``, float32 or uint8 and contiguous, and the state ``[n, *state_shape]``, which becomes the
#: next one, to actions.
Step = Callable[[NDArray[Any], Floats], NDArray[Any]]

#: Activations and heads are computed by the records themselves.
NUMPY = Capabilities(
    "the numpy backend",
    instead="export the policy without it, or update sb3_sparse",
    records={
        Network: "shape image normalize layers head ranges parts view",
        Part: "key shape sizes encoder",
        Normalize: "mean scale limit",
        Layer: "weight bias activation scale gain stride padding rectify residual pool lstm norm grid",
        Activation: "name low high slopes",
        Norm: "epsilon scale shift",
        Pool: "kernel stride padding mean",
        Grid: "unit low top",
        Minifloats: "codes unit",
        Fixed: "codes unit",
        Head: "kind shape low high groups",
    },
    activations=ACTIVATIONS,
    heads=HEADS,
)
#: Most observations of a batch that are computed together. A convolution unfolds its input, so it takes fewer.
_LINEAR, _CONVOLUTIONAL = 1 << 16, 64


def functions(network: Network) -> tuple[Function, Function]:
    """
    :param network: A network.
    :return: A function from one observation, an array of the network's shape, to one action, and a function from float32
        observations, ``[n, *shape]``, to actions, ``[n, *action_shape]``
    :raises ValueError: if the network has something that is not computed here, or its layers do not fit each other
    """
    network = _prepared(network)
    convolutional = any(layer.convolution for layer in network.layers)
    if convolutional or any(layer.norm is not None for layer in network.layers):
        return _in_general(network, _CONVOLUTIONAL if convolutional else _LINEAR)
    return _single(network), _in_parts(_batch(network), _LINEAR)


def recurrent_step(network: Network) -> Step:
    """
    :param network: A network that remembers.
    :return: The function of one step
    :raises ValueError: as :func:`functions`
    """
    network = _prepared(network)
    size = _CONVOLUTIONAL if any(layer.convolution for layer in network.layers) else _LINEAR

    def step(x: NDArray[Any], state: Floats) -> NDArray[Any]:
        parts = [slice(start, start + size) for start in range(0, max(1, len(x)), size)]
        return np.concatenate([network.head(layer_inputs(network, x[part], state[part])[-1]) for part in parts])

    return step


def _prepared(network: Network) -> Network:
    """The same network of floats alone."""
    require_known(network, NUMPY)
    _ = network.shapes  # Raises an error if layers do not fit each other.
    layers = (replace(layer, weight=layer.dense(), bias=layer.biases, scale=None, gain=None) for layer in network.layers)
    return replace(network, layers=tuple(layers))


def _in_general(network: Network, size: int) -> tuple[Function, Function]:
    def act(x: Floats) -> NDArray[Any]:
        return network.head(layer_inputs(network, x)[-1])

    return lambda x: act(x[None]).reshape(network.head.shape), _in_parts(act, size)


def _single(network: Network) -> Function:
    layers = [
        (layer.grid, _arrange(layer.dense()), layer.biases, _activation(layer.activation, layer.outputs))
        for layer in network.layers
    ]
    normalize, head = network.normalize, _head(network.head)

    def act(observation: NDArray[Any]) -> NDArray[Any]:
        x = observation.astype(np.float32)
        if normalize is not None:
            x = normalize(x)
        x = x.reshape(-1)
        for grid, weight, bias, activation in layers:
            x = activation(weight.dot(x if grid is None else grid(x)) + bias)
        return head(x)

    return act


def _batch(network: Network) -> Function:
    layers = [(layer.grid, layer.dense().T, layer.biases, layer.activation) for layer in network.layers]

    def act(x: Floats) -> NDArray[Any]:
        x = (x if network.normalize is None else network.normalize(x)).reshape(len(x), prod(network.shape))
        for grid, weight, bias, activation in layers:
            x = activation((x if grid is None else grid(x)) @ weight + bias)
        return network.head(x)

    return act


def _in_parts(act: Function, size: int) -> Function:
    """The same function of a batch, computed for at most ``size`` observations at a time."""

    def run(x: Floats) -> NDArray[Any]:
        if len(x) <= size:
            return act(x)
        return np.concatenate([act(x[start : start + size]) for start in range(0, len(x), size)])

    return run


def _arrange(weight: Floats) -> Floats:
    # A matrix in Fortran order multiplies faster, unless it has only a few rows.
    return np.array(weight, order="F" if len(weight) >= 32 else "C")


def _activation(activation: Activation, size: int) -> Function:
    """The same function with fewer steps of Python."""
    if activation.name == "relu":
        # A ready array of zeros: a Python number costs as much again as the comparison.
        maximum, zeros = np.maximum, np.zeros(size, np.float32)
        return lambda x: maximum(x, zeros)
    ready: dict[str, Function] = {"tanh": np.tanh}
    return ready.get(activation.name, activation.__call__)


def _head(head: Head) -> Function:
    if head.kind == "unscale" and head.low is not None and head.high is not None:
        half, middle = (head.high - head.low) / 2, (head.high + head.low) / 2
        if (half == 1).all() and (middle == 0).all():
            return lambda x: x.reshape(head.shape)
        return lambda x: (x * half + middle).reshape(head.shape)
    return lambda x: head(x[None]).reshape(head.shape)
