"""
The records of an exported policy: a short list of layers between an observation and an action.

Everything here is numpy and immutable. The exporter makes these records, the file holds them, and every backend (numpy,
C, ONNX) reads them, so there is one definition of what a policy computes:

    x = concatenate(parts)                                           of a dict or of classes, see Part
    x = concatenate(last stack without its oldest frame, x)          of frames, see Stack
    x = clip((x - mean) * scale, -limit, limit)                      with VecNormalize, see Normalize
    x = activation(scale * (weight @ (gain * grid(x))) + bias)       for every layer, see Layer
    x = lstm(scale * (weight @ (gain * [x, h])) + bias)              a layer that remembers, see Layer
    x = pool(activation(scale * (weight @ max(x, 0)) + bias + r))    a convolution with all its options, see Layer
    x = activation(norm(scale * (weight @ (gain * x)) + bias))       a layer with a layer norm, see Layer
    action = head(x)                                                 see Head
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.elements import (
    ACTIVATIONS,
    IDENTITY,
    Activation,
    Fixed,
    Floats,
    Grid,
    Minifloats,
    Norm,
    Pool,
    Shape,
)
from sb3_sparse.runtime.network.head import HEADS, Head
from sb3_sparse.runtime.network.layer import Layer

__all__ = [
    "ACTIVATIONS",
    "HEADS",
    "IDENTITY",
    "Activation",
    "Fixed",
    "Floats",
    "Grid",
    "Head",
    "Layer",
    "Minifloats",
    "Network",
    "Norm",
    "Normalize",
    "Part",
    "Pool",
    "Shape",
    "Stack",
]


@dataclass(frozen=True, eq=False)
class Normalize:
    """
    The normalization of ``VecNormalize``: ``clip((x - mean) * scale, -limit, limit)``, in float32, where VecNormalize computes
    in float64: an input whose mean is a thousand times its standard deviation loses three digits.

    :param mean: Running mean, one per element of the observation.
    :param scale: ``1 / sqrt(variance + epsilon)``, one per element.
    :param limit: Largest absolute value of the result, one for all elements or one per element; may be infinite.
    """

    mean: Floats
    scale: Floats
    limit: float | Floats

    @property
    def limits(self) -> Floats:
        """The limit of each element, of the shape of the mean."""
        return np.broadcast_to(np.asarray(self.limit, np.float32), self.mean.shape)

    def __call__(self, x: Floats) -> Floats:
        """
        :param x: Observations, ``[n, ...]``.
        :return: The same, normalized
        """
        y: Floats = np.clip((x - self.mean) * self.scale, -self.limit, self.limit).astype(np.float32)
        return y


@dataclass(frozen=True, eq=False)
class Stack:
    """
    The last observations (frames) of an episode behind each other, as SB3's ``VecFrameStack`` makes one observation of them:
    the newest is the last, and those before the episode are zeros. Images are stacked by their channels, other arrays along
    their last dimension.

    :param frames: How many there are, at least 2.
    :param normalize: The normalization of each frame before it comes to the others, of a ``VecNormalize`` inside of the
        ``VecFrameStack``; None without.
    """

    frames: int
    normalize: Normalize | None = None


@dataclass(frozen=True, eq=False)
class Part:
    """
    One array of an observation that is a dict or consists of classes. It becomes a stretch of the vector that a network
    computes with.

    :param key: Its name in a ``Dict`` space; "" where it is the whole observation (``Discrete``, ``MultiDiscrete``).
    :param shape: Shape of the array as the environment gives it; () for ``Discrete``.
    :param sizes: How many classes each element has, which becomes as many numbers: 1 for its class and 0 for the others. Empty
        for an array of numbers, which is flattened.
    :param encoder: The network that it passes first, such as the convolutions of an image; its head changes nothing. None
        without.
    """

    key: str
    shape: Shape
    sizes: tuple[int, ...] = ()
    encoder: "Network | None" = None

    @property
    def width(self) -> int:
        """How many numbers it becomes."""
        if self.encoder is not None:
            return self.encoder.head.inputs
        return sum(self.sizes) or prod(self.shape)


@dataclass(frozen=True, eq=False)
class Network:
    """
    A whole policy.

    :param shape: Shape of an observation; channels first for images. With parts, ``(n,)``; with a stack, that of all its
        frames together.
    :param image: Whether it is an image; then ``predict`` takes observations with channels last, too.
    :param normalize: Statistics of ``VecNormalize``; None without.
    :param layers: The layers, in order; a linear layer flattens its input.
    :param head: The step from the outputs of the last layer to an action.
    :param ranges: Largest absolute (gained) input of each layer over the calibration observations, or number that the pool
        before it takes a mean of; None without. Integer arithmetic needs it.
    :param parts: How the vector ``[n]`` is put together from a dict or from classes, in order; empty for a single array of
        numbers.
    :param stack: How the network makes an observation of those that it is given one after the other; None if each is whole.
    :param view: The shape in which the first layer, a convolution, reads an observation that has another one, such as
        (channels, 1, n) in one dimension; None where it has that shape itself.
    """

    shape: Shape
    image: bool
    normalize: Normalize | None
    layers: tuple[Layer, ...]
    head: Head
    ranges: tuple[float, ...] | None = None
    parts: tuple[Part, ...] = ()
    stack: Stack | None = None
    view: Shape | None = None

    @property
    def frame_shape(self) -> Shape:
        """Shape of an observation as it is given: that of one frame, if there is a stack."""
        if self.stack is None:
            return self.shape
        axis = 0 if self.image else len(self.shape) - 1
        return (*self.shape[:axis], self.shape[axis] // self.stack.frames, *self.shape[axis + 1 :])

    @property
    def remembers(self) -> bool:
        """Whether an action depends on earlier observations."""
        return bool(self.lstms) or self.stack is not None

    def read(self, observations: NDArray[Any]) -> Floats:
        """
        :param observations: Whole observations, ``[n, *shape]``.
        :return: What the first layer takes: the same in float32, normalized and in the shape in which it reads them
        """
        x: Floats = observations.astype(np.float32)
        x = x if self.normalize is None else self.normalize(x)
        return x if self.view is None else x.reshape(len(x), *self.view)

    @property
    def encoders(self) -> dict[str, "Network"]:
        """The networks that parts pass first, by key."""
        return {part.key: part.encoder for part in self.parts if part.encoder is not None}

    @property
    def every_layer(self) -> tuple[Layer, ...]:
        """The layers of the encoders, in order, and its own."""
        return (*(layer for encoder in self.encoders.values() for layer in encoder.layers), *self.layers)

    @property
    def residual(self) -> bool:
        """Whether any layer adds the input of the layer before it."""
        return any(layer.residual for layer in self.every_layer)

    @property
    def lstms(self) -> tuple[Layer, ...]:
        """The layers that remember."""
        return tuple(layer for layer in self.layers if layer.lstm)

    @property
    def state_shape(self) -> Shape:
        """
        Shape of what a recurrent network remembers of one environment, ``[2, LSTM layers, units]``: first all outputs h, then
        all cells c. Behind the units of a layer that is narrower than others are zeros.
        """
        return (2, len(self.lstms), max((layer.outputs for layer in self.lstms), default=0))

    @property
    def shapes(self) -> list[Shape]:
        """
        Shape of the observation, as the first layer reads it, and of every layer's output; ValueError if they do not fit each
        other.
        """
        _check_parts(self)
        _check_stack(self)
        if self.view is not None and (self.image or prod(self.view) != prod(self.shape) or not self.layers[0].convolution):
            raise ValueError(f"an observation of shape {self.shape} cannot be read in the shape {self.view}")
        shapes = [self.shape if self.view is None else self.view]
        for layer in self.layers:
            if layer.residual and (layer.rectify or len(shapes) < 2 or layer.sum_shape(shapes[-1]) != shapes[-2]):
                raise ValueError("a residual layer rectifies its input, or does not fit the input of the layer before it")
            shapes.append(layer.output_shape(shapes[-1]))
        if shapes[-1] != (self.head.inputs,):
            raise ValueError(f"the last layer gives {shapes[-1]}, the action needs ({self.head.inputs},)")
        return shapes


def _check_parts(network: Network) -> None:
    parts, keys = network.parts, [part.key for part in network.parts]
    if not parts:
        return
    if network.image or network.shape != (sum(part.width for part in parts),):
        raise ValueError(f"the parts of an observation are {sum(part.width for part in parts)} numbers, not {network.shape}")
    if len(set(keys)) < len(keys) or ("" in keys and len(keys) > 1):
        raise ValueError(f"the parts of an observation have the keys {keys}: each needs its own")
    for part in parts:
        encoder = part.encoder
        if part.sizes and (len(part.sizes) != prod(part.shape) or min(part.sizes) < 1 or encoder is not None):
            raise ValueError(f"the part '{part.key}' of shape {part.shape} does not fit its classes {part.sizes}")
        if encoder is not None and (
            encoder.parts or encoder.remembers or encoder.shape != part.shape or not encoder.head.changes_nothing
        ):
            raise ValueError(f"the part '{part.key}' of shape {part.shape} does not fit its encoder")


def _check_stack(network: Network) -> None:
    stack = network.stack
    if stack is None:
        return
    if network.parts:
        raise ValueError("a stack of frames is not for observations of parts")
    length = network.shape[0 if network.image else -1] if network.shape else 0
    if stack.frames < 2 or length % stack.frames != 0 or length == 0:
        raise ValueError(f"an observation of shape {network.shape} is not a stack of {stack.frames} frames")
    if stack.normalize is not None and (network.image or stack.normalize.mean.shape != network.frame_shape):
        raise ValueError(f"the normalization of a frame of shape {network.frame_shape} does not fit it")
