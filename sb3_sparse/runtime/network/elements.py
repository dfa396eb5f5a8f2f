"""The parts of a layer: activations, pools, and numbers in few bytes."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Shape = tuple[int, ...]


class Activation(NamedTuple):
    """
    An element-wise function.

    :param name: Key in :data:`ACTIVATIONS`.
    :param low: Its first number: slope of leaky_relu below 0, alpha of elu, lower end of clip.
    :param high: Its second number: upper end of clip.
    :param slopes: Slopes of prelu below 0, one per unit or channel; None of the others.
    """

    name: str = "identity"
    low: float = 0.0
    high: float = 0.0
    slopes: Floats | None = None

    def __call__(self, x: Floats) -> Floats:
        """
        :param x: Values ``[n, out, ...]`` or ``[out]``.
        :return: The function of each, in float32
        """
        low = np.float32(self.low) if self.slopes is None else self.slopes.reshape(-1, *[1] * (x.ndim - 2))
        y: Floats = ACTIVATIONS[self.name](x, low, np.float32(self.high))
        return y


class Norm(NamedTuple):
    """
    A layer norm over all sums of a layer: ``(x - mean) / sqrt(variance + epsilon) * scale + shift``.

    :param epsilon: A positive number.
    :param scale: One per sum, ``[out]`` or ``[out, height, width]``.
    :param shift: The same shape.
    """

    epsilon: float
    scale: Floats
    shift: Floats

    def __call__(self, x: Floats) -> Floats:
        """
        :param x: Sums of a layer, ``[n, *shape]``.
        :return: The same, normalized, in float32
        """
        axes = tuple(range(1, x.ndim))
        centered = x - x.mean(axis=axes, keepdims=True, dtype=np.float64)
        deviation = np.sqrt(np.square(centered).mean(axis=axes, keepdims=True) + np.float32(self.epsilon))
        y: Floats = (centered / deviation).astype(np.float32) * self.scale + self.shift
        return y


def _sigmoid(x: Floats) -> Floats:
    # The tanh does not overflow.
    half = np.float32(0.5)
    y: Floats = half * np.tanh(half * x) + half
    return y


def _gelu(x: Floats) -> Floats:
    # erfc(|x| / sqrt(2)) by a Chebyshev fit with a relative error below 1.2e-7: Press et al., Numerical Recipes in C, 1992,
    # section 6.2. numpy has none.
    z = np.abs(x).astype(np.float64) * np.sqrt(0.5)
    t = 1 / (1 + 0.5 * z)
    outside = 0.5 * t * np.exp(np.polyval(_ERFC, t) - z * z)
    y: Floats = (x * np.where(x < 0, outside, 1 - outside)).astype(np.float32)
    return y


#: Highest power first.
_ERFC = (
    *(0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807),
    *(-0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223),
)


def _gelu_tanh(x: Floats) -> Floats:
    # (1 + tanh(u)) / 2 is sigmoid(2 * u), with u = sqrt(2 / pi) * (x + 0.044715 * x**3).
    # It is 0 or 1 in float32 far before 20, where the cube would not fit.
    near = np.minimum(np.maximum(x, np.float32(-20)), np.float32(20))
    y: Floats = x * _sigmoid(near * (np.float32(1.5957691) + np.float32(0.07135482) * np.square(near)))
    return y


def _softplus(x: Floats) -> Floats:
    y: Floats = np.maximum(x, np.float32(0)) + np.log1p(np.exp(-np.abs(x)))
    return y


def _softsign(x: Floats) -> Floats:
    size: Floats = np.abs(x) + np.float32(1)
    y: Floats = np.divide(x, size)
    return y


def _hardswish(x: Floats) -> Floats:
    # Divided first: six times the largest float is none.
    inner: Floats = np.minimum(np.maximum(x + np.float32(3), np.float32(0)), np.float32(6))
    y: Floats = x * (inner / np.float32(6))
    return y


#: The activations of the records. Every backend is tested against these functions.
ACTIVATIONS: dict[str, Callable[[Floats, Floats | np.float32, np.float32], Floats]] = {
    "identity": lambda x, low, high: x,
    "relu": lambda x, low, high: np.maximum(x, np.float32(0)),
    "tanh": lambda x, low, high: np.tanh(x),
    "clip": lambda x, low, high: np.clip(x, low, high),
    "leaky_relu": lambda x, low, high: np.where(x > 0, x, low * x),
    "elu": lambda x, low, high: np.where(x > 0, x, low * np.expm1(np.minimum(x, np.float32(0)))),
    "sigmoid": lambda x, low, high: _sigmoid(x),
    "silu": lambda x, low, high: x * _sigmoid(x),
    "gelu": lambda x, low, high: _gelu(x),
    "gelu_tanh": lambda x, low, high: _gelu_tanh(x),
    "mish": lambda x, low, high: x * np.tanh(_softplus(x)),
    "softplus": lambda x, low, high: _softplus(x),
    "softsign": lambda x, low, high: _softsign(x),
    "hardswish": lambda x, low, high: _hardswish(x),
    "prelu": lambda x, low, high: np.where(x > 0, x, low * x),
}


#: The activation that changes nothing.
IDENTITY = Activation()


class Pool(NamedTuple):
    """
    A max pool, the largest number of each window with padding left out; or an average pool, whose padding counts as zeros.

    :param kernel: Size of a window, vertical and horizontal.
    :param stride: Steps between windows.
    :param padding: How far windows reach over the border, at most half of the kernel.
    :param mean: Whether it takes the mean of each window.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    mean: bool = False

    def output_shape(self, shape: Shape) -> Shape:
        """
        :param shape: Shape of its input, channels first.
        :return: Shape of its output
        :raises ValueError: if it does not fit
        """
        if any(2 * padding > kernel for padding, kernel in zip(self.padding, self.kernel, strict=True)):
            raise ValueError(f"a pool of {self.kernel} has a padding of {self.padding}, more than half of it")
        return (shape[0], *count_windows(shape[1:], self.kernel, self.stride, self.padding))


def count_windows(shape: Shape, kernel: Shape, stride: Shape, padding: Shape) -> Shape:
    """
    :param shape: Height and width of an input.
    :param kernel: Height and width of a window.
    :param stride: Steps between windows.
    :param padding: How far windows reach over the border.
    :return: Number of windows in each direction
    :raises ValueError: if there are none
    """
    sizes = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape, kernel, stride, padding, strict=True)]
    if min(sizes) < 1:
        raise ValueError(f"a kernel of {tuple(kernel)} does not fit an input of {tuple(shape)}")
    return tuple(sizes)


class Grid(NamedTuple):
    """
    The numbers that training has rounded the inputs of a layer to: ``unit * q`` with an integer q.

    :param unit: Distance of two neighbours.
    :param low: Smallest q: 0, or ``-top``.
    :param top: Largest q.
    """

    unit: float
    low: int
    top: int

    def __call__(self, x: Floats) -> Floats:
        """
        :param x: Values of any shape.
        :return: ``unit * q`` in float32
        """
        return self.codes(x) * np.float32(self.unit)

    def codes(self, x: Floats) -> Floats:
        """
        :param x: Values of any shape.
        :return: ``q = clip(round(x / unit), low, top)`` as floats; halves are rounded to even integers, and NaN stays NaN
        """
        q: Floats = np.clip(np.rint(x / np.float32(self.unit)), np.float32(self.low), np.float32(self.top))
        return q


class Minifloats(NamedTuple):
    """
    Positive numbers in one byte each: four bits of exponent, four of mantissa, times one unit.

    The scales of an 8-bit layer take this form *before* its weights are rounded, so storing them loses nothing.

    :param codes: uint8 array.
    :param unit: Factor of all numbers.
    """

    codes: NDArray[np.uint8]
    unit: float

    @property
    def values(self) -> Floats:
        """``((16 + code % 16) << code // 16) * unit`` in float32; the integer is below 2**20, so it is exact."""
        integers = (16 + (self.codes & 15).astype(np.int64)) << (self.codes >> 4)
        return integers.astype(np.float32) * np.float32(self.unit)


def one_scale(count: int, scale: float) -> Minifloats:
    """
    :param count: Number of rows.
    :param scale: A scale.
    :return: The same scale for all rows, exactly: code 240 is 2**19, and to divide by that is exact
    """
    return Minifloats(np.full(count, 240, np.uint8), scale / 2**19)


class Fixed(NamedTuple):
    """
    Numbers in 16 bits each, evenly spaced.

    :param codes: int16 array.
    :param unit: Distance of two neighbours.
    """

    codes: NDArray[np.int16]
    unit: float

    @property
    def values(self) -> Floats:
        """``code * unit`` in float32."""
        return self.codes.astype(np.float32) * np.float32(self.unit)
