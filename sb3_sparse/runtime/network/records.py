"""
The records of an exported policy: a short list of layers between an observation and an action.

Everything here is numpy and immutable. The exporter makes these records, the file holds them, and every backend (numpy,
C, ONNX) reads them, so there is one definition of what a policy computes:

    x = clip((observation - mean) * scale, -limit, limit)            with VecNormalize, see Normalize
    x = activation(scale * (weight @ (gain * x)) + bias)             for every layer, see Layer
    x = lstm(scale * (weight @ (gain * [x, h])) + bias)              a layer that remembers, see Layer
    x = pool(activation(scale * (weight @ max(x, 0)) + bias + r))    a convolution with all its options, see Layer
    action = head(x)                                                 see Head
"""

from dataclasses import dataclass

import numpy as np

from sb3_sparse.runtime.network.elements import ACTIVATIONS, IDENTITY, Activation, Fixed, Floats, Minifloats, Pool, Shape
from sb3_sparse.runtime.network.head import HEADS, Head
from sb3_sparse.runtime.network.layer import Layer

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


@dataclass(frozen=True, eq=False)
class Normalize:
    """
    The normalization of ``VecNormalize``: ``clip((x - mean) * scale, -limit, limit)``, in float32, where VecNormalize computes
    in float64: an input whose mean is a thousand times its standard deviation loses three digits.

    :param mean: Running mean, one per element of the observation.
    :param scale: ``1 / sqrt(variance + epsilon)``, one per element.
    :param limit: Largest absolute value of the result; may be infinite.
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
class Network:
    """
    A whole policy.

    :param shape: Shape of an observation; channels first for images.
    :param image: Whether it is an image; then ``predict`` takes observations with channels last, too.
    :param normalize: Statistics of ``VecNormalize``; None without.
    :param layers: The layers, in order; a linear layer flattens its input.
    :param head: The step from the outputs of the last layer to an action.
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
        """Whether any layer adds the input of the layer before it."""
        return any(layer.residual for layer in self.layers)

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
        """Shape of the observation and of every layer's output; ValueError if they do not fit each other."""
        shapes = [self.shape]
        for layer in self.layers:
            if layer.residual and (layer.rectify or len(shapes) < 2 or layer.sum_shape(shapes[-1]) != shapes[-2]):
                raise ValueError("a residual layer rectifies its input, or does not fit the input of the layer before it")
            shapes.append(layer.output_shape(shapes[-1]))
        if shapes[-1] != (self.head.inputs,):
            raise ValueError(f"the last layer gives {shapes[-1]}, the action needs ({self.head.inputs},)")
        return shapes
