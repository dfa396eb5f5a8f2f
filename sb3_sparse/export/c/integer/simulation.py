"""The generated integer code in numpy, to the bit."""

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.export.c.integer.constants import integer_layers, minifloat_integers
from sb3_sparse.runtime.network.records import Floats, Layer, Network
from sb3_sparse.runtime.network.reference import columns, pool


def simulate_integers(network: Network, observations: Floats) -> Floats:
    """
    The generated integer code in numpy, to the bit.

    :param network: A quantized network with ranges.
    :param observations: ``[n, *shape]``.
    :return: Outputs of the last layer, ``[n, out]``; the head makes actions of them
    """
    constants = integer_layers(network)
    x = network.read(observations)
    gain, step = network.layers[0].gain, 1 / constants[0].unit
    if gain is not None:
        x = x.reshape(len(x), -1) * minifloat_integers(gain.codes).astype(np.float32)
        step = gain.unit / constants[0].unit
    values = _integers(network.layers[0], x, step, constants[0].top)
    for index, (layer, constant) in enumerate(zip(network.layers, constants, strict=True)):
        sums = _sums(layer, values)
        shaped = (-1, *[1] * (sums.ndim - 2))
        if constant.factor:
            products, bias = sums * constant.multipliers.reshape(shaped), constant.bias.reshape(shaped)
            if constant.finer is None:
                y = (products >> (32 + constant.shift)) + bias
            else:
                y = (products + (bias << constant.finer)) >> constant.shift
            values = pool(layer, np.clip(y, 0, constant.limit))
            continue
        scale = (layer.scales * np.float32(constant.unit)).reshape(shaped)
        outputs = layer.activation(sums.astype(np.float32) * scale + layer.biases.reshape(shaped))
        if index + 1 < len(constants):
            after = constants[index + 1]
            values = pool(layer, _integers(network.layers[index + 1], outputs, 1 / after.unit, after.top))
    return outputs


def _integers(layer: Layer, x: Floats, step: float, top: int) -> NDArray[np.int64]:
    """The inputs of a layer: on the grid of training, if it has one."""
    if layer.grid is None:
        return _round(x, step, top)
    codes: NDArray[np.int64] = layer.grid.codes(np.where(np.isnan(x), -np.inf, x)).astype(np.int64)
    return codes


def _round(x: Floats, step: float, top: int) -> NDArray[np.int64]:
    """Times ``step``, rounded to the nearest integer as C code does it without libm; NaN becomes the smallest integer."""
    shifted = x * np.float32(step) + np.float32(32768.5)
    shifted = np.fmin(np.fmax(shifted, np.float32(32768 - top)), np.float32(32768 + top))
    integers: NDArray[np.int64] = shifted.astype(np.int64) - 32768
    return integers


def _sums(layer: Layer, values: NDArray[np.int64]) -> NDArray[np.int64]:
    """``weight @ values``, ``[n, out]`` or ``[n, out, height, width]``."""
    weight = layer.weight.reshape(layer.outputs, -1).astype(np.int64)
    if not layer.convolution:
        return values.reshape(len(values), -1) @ weight.T
    _, height, width = layer.sum_shape(values.shape[1:])
    sums = columns(layer, values) @ weight.T
    return sums.reshape(len(values), height, width, -1).transpose(0, 3, 1, 2)
