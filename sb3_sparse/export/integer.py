"""
The integer arithmetic of the generated C code (W8A16: 8-bit weights, 16-bit activations): its constants, and the same in
numpy, to the bit.

An activation x is held as the integer ``x / unit``. The sums ``weight @ x`` fit into 32 bits whatever comes: ``top``, the
largest activation, is lowered where a row could overflow. A hidden layer with a ReLU is brought to the unit of the next by

    y = clip(((sum * multiplier) >> (32 + shift)) + bias, 0, top),     multiplier < 2**31 per row

and the unit of the next layer is chosen such that the multipliers are exact: nothing is lost but the fraction of y.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.records import Floats, Layer, Minifloats, Network
from sb3_sparse.runtime.reference import apply_layer, columns

#: Room above the largest activation of the calibration.
_HEADROOM = 1.5
#: A multiplier is a minifloat's integer, below 2**20, times a factor up to this.
_FACTOR = 2114


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """
    Constants of one layer.

    :param unit: What an input of 1 stands for.
    :param top: Largest absolute input, the same for all layers.
    :param factor: Multiplier of the integers of the row scales; 0 in the last layer and where the activation is no
        ReLU: these are computed in float.
    :param multipliers: Of each row, ``[out]``; empty where ``factor`` is 0.
    :param shift: Bits beyond 32 that the product is shifted by.
    :param bias: In units of the next layer's input, ``[out]``; empty where ``factor`` is 0.
    """

    unit: float
    top: int
    factor: int
    multipliers: NDArray[np.int64]
    shift: int
    bias: NDArray[np.int64]


def integer_layers(network: Network) -> list[IntegerLayer]:
    """
    :param network: A quantized network with the ranges of a calibration.
    :return: The constants of its layers
    :raises ValueError: if it has no ranges or a float layer
    """
    if network.ranges is None:
        raise ValueError("integer arithmetic needs the range of the activations: give compress(..., calibration=observations)")
    if not all(layer.quantized for layer in network.layers):
        raise ValueError("integer arithmetic needs quantized layers: give compress(..., bits=8)")
    top = min(_top(layer) for layer in network.layers)
    # Pixels are whole numbers already.
    pixels = network.image and network.normalize is None
    unit = 1.0 if pixels else _HEADROOM * network.ranges[0] / top
    layers = []
    for index, layer in enumerate(network.layers):
        last = index == len(network.layers) - 1
        empty = np.zeros(0, np.int64)
        if last or layer.activation.name != "relu":
            layers.append(IntegerLayer(float(np.float32(unit)), top, 0, empty, 0, empty))
            unit = unit if last else _HEADROOM * network.ranges[index + 1] / top
            continue
        wanted = max(_HEADROOM * network.ranges[index + 1], float(np.abs(layer.biases).max())) / top
        integers, step = _integers(layer)
        # unit of the next layer = step * unit * 2**(32 + shift) / factor, at least what is wanted
        ratio = step * unit / wanted * 2.0**32
        shift = max(0, int(np.floor(np.log2(_FACTOR / ratio)))) if ratio > 0 else 0
        shift = min(shift, 30)
        factor = int(np.clip(np.floor(ratio * 2.0**shift), 1, _FACTOR))
        after = step * unit * 2.0 ** (32 + shift) / factor
        bias = np.rint(layer.biases / after).astype(np.int64)
        layers.append(IntegerLayer(float(np.float32(unit)), top, factor, integers * factor, shift, bias))
        unit = after
    return layers


def _top(layer: Layer) -> int:
    """The largest input that no row can overflow 32 bits with."""
    largest = int(np.abs(layer.weight.astype(np.int64)).reshape(layer.outputs, -1).sum(axis=1).max(initial=1))
    return min(32767, (2**31 - 1) // max(largest, 1))


def _integers(layer: Layer) -> tuple[NDArray[np.int64], float]:
    """The row scales as integers below 2**20 and their unit."""
    if isinstance(layer.scale, Minifloats):
        return (16 + (layer.scale.codes & 15).astype(np.int64)) << (layer.scale.codes >> 4), layer.scale.unit
    step = float(layer.scales.max()) / (2**20 - 1)
    return np.rint(layer.scales / step).astype(np.int64), step


def simulate(network: Network, observations: Floats) -> Floats:
    """
    What the generated integer code computes.

    :param network: A quantized network with ranges.
    :param observations: ``[n, *shape]``.
    :return: Outputs of the last layer, ``[n, out]``; the head makes actions of them
    """
    constants = integer_layers(network)
    x = observations.astype(np.float32)
    x = x if network.normalize is None else network.normalize(x)
    first = network.layers[0]
    if first.gain is not None:
        x = x.reshape(len(x), -1) * first.gain.values
    values = _round(x, constants[0])
    for index, (layer, constant) in enumerate(zip(network.layers, constants, strict=True)):
        sums = _sums(layer, values)
        shaped = (-1, *[1] * (sums.ndim - 2))
        if constant.factor:
            y = ((sums * constant.multipliers.reshape(shaped)) >> (32 + constant.shift)) + constant.bias.reshape(shaped)
            values = np.clip(y, 0, constant.top)
            continue
        scale = (layer.scales * np.float32(constant.unit)).reshape(shaped)
        outputs = layer.activation(sums.astype(np.float32) * scale + layer.biases.reshape(shaped))
        if index + 1 < len(constants):
            values = _round(outputs, constants[index + 1])
    return outputs


def _round(x: Floats, constant: IntegerLayer) -> NDArray[np.int64]:
    """To the nearest integer, as C code does it without libm."""
    scaled = np.clip(x * np.float32(1 / constant.unit), -constant.top, constant.top)
    return (scaled + np.float32(32768.5)).astype(np.int64) - 32768


def _sums(layer: Layer, values: NDArray[np.int64]) -> NDArray[np.int64]:
    """``weight @ values``, ``[n, out]`` or ``[n, out, height, width]``."""
    weight = layer.weight.reshape(layer.outputs, -1).astype(np.int64)
    if not layer.convolution:
        return values.reshape(len(values), -1) @ weight.T
    _, height, width = layer.output_shape(values.shape[1:])
    sums = columns(layer, values) @ weight.T
    return sums.reshape(len(values), height, width, -1).transpose(0, 3, 1, 2)


def simulate_bytes(network: Network, observations: Floats) -> Floats:
    """
    What the AVX-512 VBMI kernels compute: float inputs for the first layer and for convolutions, and for the others inputs
    in 8 bits between the smallest (at most 0) and the largest of each vector.

    :param network: A quantized network.
    :param observations: ``[n, *shape]``.
    :return: Outputs of the last layer, ``[n, out]``
    """
    x = observations.astype(np.float32)
    x = x if network.normalize is None else network.normalize(x)
    for index, layer in enumerate(network.layers):
        if index and not layer.convolution and layer.quantized:
            x = x.reshape(len(x), -1)
            low = np.minimum(x.min(axis=1, keepdims=True), np.float32(0))
            unit = (np.maximum(x.max(axis=1, keepdims=True), np.float32(0)) - low) * np.float32(1 / 255)
            x = np.rint((x - low) / np.where(unit > 0, unit, np.float32(1))) * unit + low
        x = apply_layer(layer, x)
    return x
