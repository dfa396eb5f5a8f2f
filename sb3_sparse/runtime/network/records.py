"""
What an exported policy consists of: a short list of layers between an observation and an action.

Everything here is numpy and immutable. The exporter makes these records, the file holds them, and every backend (numpy,
C, ONNX) reads them, so there is one definition of what a policy computes:

    x = clip((observation - mean) * scale, -limit, limit)            with VecNormalize, see Normalize
    x = activation(scale * (weight @ (gain * x)) + bias)             for every layer, see Layer
    x = pool(activation(scale * (weight @ max(x, 0)) + bias + r))    a convolution with all that it may have, see Layer
    action = head(x)                                                 see Head
"""

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.elements import ACTIVATIONS, IDENTITY, Activation, Fixed, Floats, Minifloats, Pool

__all__ = [
    "ACTIVATIONS",
    "HEADS",
    "IDENTITY",
    "Activation",
    "Fixed",
    "Floats",
    "Head",
    "Layer",
    "Minifloats",
    "Network",
    "Normalize",
    "Pool",
    "Shape",
]

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Normalize:
    """
    What ``VecNormalize`` does to an observation: ``clip((x - mean) * scale, -limit, limit)``, in float32 here and in float64
    there: of an input whose mean is a thousand times its standard deviation, three digits are lost.

    :param mean: Running mean, one per element of the observation.
    :param scale: ``1 / sqrt(variance + epsilon)``, one per element.
    :param limit: Largest absolute value that comes out; may be infinite.
    """

    mean: Floats
    scale: Floats
    limit: float

    def __call__(self, x: Floats) -> Floats:
        """
        :param x: Observations, ``[n, ...]``.
        :return: The same, normalized
        """
        y: Floats = np.clip((x - self.mean) * self.scale, -self.limit, self.limit).astype(np.float32)
        return y


@dataclass(frozen=True, eq=False)
class Layer:
    """
    A linear or convolutional layer with its activation: ``activation(scale * (weight @ (gain * x)) + bias)``.

    A residual block ``x + conv2(relu(conv1(relu(x))))`` is two layers: the first rectifies, which leaves x itself as it is,
    and the second is residual.

    :param weight: ``[out, in]`` or ``[out, in, height, width]``; int8 if quantized, else float32. Zeros do not exist.
    :param bias: ``[out]``.
    :param activation: What follows.
    :param scale: Size of one step of each row, ``[out]``; float32 where training has fixed it; None for a float layer.
    :param gain: Multiplies the inputs of a linear layer, ``[in]``, so that one scale fits a whole row; None for ones.
    :param stride: Of a convolution, vertical and horizontal.
    :param padding: Zeros around the input of a convolution, vertical and horizontal.
    :param rectify: Whether a convolution takes ``max(x, 0)`` for its input.
    :param residual: Whether a convolution adds the input of the layer before, as it came in, ahead of its activation. It does
        not rectify then, for the layer before can end in a ReLU.
    :param pool: What follows the activation of a convolution.
    """

    weight: NDArray[np.int8] | Floats
    bias: Fixed | Floats
    activation: Activation = IDENTITY
    scale: Minifloats | Floats | None = None
    gain: Minifloats | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    rectify: bool = False
    residual: bool = False
    pool: Pool | None = None

    @property
    def quantized(self) -> bool:
        """Whether the weights are int8."""
        return self.scale is not None

    @property
    def convolution(self) -> bool:
        """Whether it is a convolution."""
        return self.weight.ndim == 4

    @property
    def outputs(self) -> int:
        """Number of units or channels."""
        return len(self.weight)

    @property
    def biases(self) -> Floats:
        """The biases as float32, ``[out]``."""
        return self.bias.values if isinstance(self.bias, Fixed) else self.bias

    @property
    def scales(self) -> Floats:
        """The scales as float32, ``[out]``, ones for a float layer."""
        if self.scale is None:
            return np.ones(self.outputs, np.float32)
        return self.scale.values if isinstance(self.scale, Minifloats) else self.scale

    def dense(self) -> Floats:
        """
        :return: ``scale * weight * gain`` in float32, of the weight's shape: what the layer multiplies its plain input by
        """
        dense = self.weight.astype(np.float32, copy=False)
        if self.scale is not None:
            dense = dense * self.scales.reshape(-1, *[1] * (self.weight.ndim - 1))
        return dense if self.gain is None else dense * self.gain.values

    def output_shape(self, shape: Shape) -> Shape:
        """
        :param shape: Shape of the input, without batch.
        :return: Shape of the output
        :raises ValueError: if the input does not fit
        """
        shape = self.sum_shape(shape)
        if self.pool is None:
            return shape
        if any(2 * padding > kernel for padding, kernel in zip(self.pool.padding, self.pool.kernel, strict=True)):
            raise ValueError(f"a pool of {self.pool.kernel} has a padding of {self.pool.padding}, more than half of it")
        return (self.outputs, *_windows(shape[1:], *self.pool))

    def sum_shape(self, shape: Shape) -> Shape:
        """
        :param shape: Shape of the input, without batch.
        :return: Shape of ``weight @ x``, that is of the output before the pool
        :raises ValueError: if the input does not fit
        """
        if not self.convolution:
            if self.rectify or self.residual or self.pool is not None:
                raise ValueError("a linear layer does not rectify its input, is not residual and has no pool")
            if prod(shape) != self.weight.shape[1]:
                raise ValueError(f"a linear layer of {self.weight.shape[1]} inputs does not fit an input of shape {shape}")
            return (self.outputs,)
        if len(shape) != 3 or shape[0] != self.weight.shape[1]:
            raise ValueError(f"a convolution of {self.weight.shape[1]} channels does not fit an input of shape {shape}")
        return (self.outputs, *_windows(shape[1:], self.weight.shape[2:], self.stride, self.padding))


def _windows(shape: Shape, kernel: Shape, stride: Shape, padding: Shape) -> list[int]:
    """How many windows there are in each direction."""
    sizes = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape, kernel, stride, padding, strict=True)]
    if min(sizes) < 1:
        raise ValueError(f"a kernel of {tuple(kernel)} does not fit an input of {tuple(shape)}")
    return sizes


@dataclass(frozen=True, eq=False)
class Head:
    """
    From the last layer to an action as SB3's ``predict`` gives it.

    :param kind: ``unscale``: ``low + (x + 1) / 2 * (high - low)`` of a squashed x; ``clip``: x clipped to the bounds;
        ``argmax``: the largest of each group (``Discrete``, ``MultiDiscrete``); ``positive``: 1 where x > 0 (``MultiBinary``).
    :param shape: Shape of the action.
    :param low: Lower bounds, ``[n]``, of a continuous action.
    :param high: Upper bounds, ``[n]``.
    :param groups: Sizes of the groups of ``argmax``.
    """

    kind: str
    shape: Shape
    low: Floats | None = None
    high: Floats | None = None
    groups: tuple[int, ...] = ()

    @property
    def inputs(self) -> int:
        """How many outputs the last layer has."""
        return sum(self.groups) if self.kind == "argmax" else prod(self.shape)

    def __call__(self, x: Floats) -> NDArray[np.generic]:
        """
        :param x: Outputs of the last layer, ``[n, inputs]``.
        :return: Actions, ``[n, *shape]``: float32, or int64 of ``argmax``
        """
        if self.kind == "unscale":
            assert self.low is not None and self.high is not None
            actions: NDArray[np.generic] = self.low + np.float32(0.5) * (x + np.float32(1)) * (self.high - self.low)
        elif self.kind == "clip":
            actions = np.clip(x, self.low, self.high)
        elif self.kind == "argmax":
            parts = np.split(x, np.cumsum(self.groups)[:-1], axis=1)
            actions = np.stack([part.argmax(axis=1) for part in parts], axis=1)
        else:
            # What is no number stays none.
            actions = np.where(np.isnan(x), x, x > 0).astype(np.float32)
        return actions.reshape(-1, *self.shape)


#: The order is part of the file format.
HEADS = ("unscale", "clip", "argmax", "positive")


@dataclass(frozen=True, eq=False)
class Network:
    """
    A whole policy.

    :param shape: Shape of an observation; channels first for images.
    :param image: Whether it is an image, for which channels last is understood as well.
    :param normalize: Statistics of ``VecNormalize``, if there are.
    :param layers: The layers; a linear layer flattens what comes in.
    :param head: What makes an action of the last output.
    :param ranges: Largest absolute (gained) input of each layer over the calibration observations; None without. Integer
        arithmetic needs it.
    """

    shape: Shape
    image: bool
    normalize: Normalize | None
    layers: tuple[Layer, ...]
    head: Head
    ranges: tuple[float, ...] | None = None

    @property
    def residual(self) -> bool:
        """Whether a layer adds the input of the one before."""
        return any(layer.residual for layer in self.layers)

    @property
    def shapes(self) -> list[Shape]:
        """Shape of the observation and of every layer's output; ValueError if they do not fit each other."""
        shapes = [self.shape]
        for layer in self.layers:
            if layer.residual and (layer.rectify or len(shapes) < 2 or layer.sum_shape(shapes[-1]) != shapes[-2]):
                raise ValueError("a residual layer rectifies its input, or does not fit the input of the layer before")
            shapes.append(layer.output_shape(shapes[-1]))
        if shapes[-1] != (self.head.inputs,):
            raise ValueError(f"the last layer gives {shapes[-1]}, the action needs ({self.head.inputs},)")
        return shapes
