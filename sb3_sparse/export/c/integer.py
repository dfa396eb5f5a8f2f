"""
The integer arithmetic of the generated C code (W8A16: 8-bit weights, 16-bit activations): its constants, and the same in
numpy, to the bit.

An activation x is held as the integer ``x / unit``. The sums ``weight @ x`` fit into 32 bits for every input: ``top``, the
largest activation, is lowered where a row could overflow. A hidden layer with a ReLU is brought to the unit of the next by

    y = clip(((sum * multiplier) >> (32 + shift)) + bias, 0, top),     multiplier < 2**31 per row

and the unit of the next layer is chosen such that the multipliers are exact where the scales have one byte each (float
scales, of layers trained with fake quantization, are rounded to 31 bits): nothing is lost but the fraction of y.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.export.c import text
from sb3_sparse.runtime.network.capabilities import Capabilities, require_known, unknown
from sb3_sparse.runtime.network.records import (
    Activation,
    Fixed,
    Floats,
    Head,
    Layer,
    Minifloats,
    Network,
    Norm,
    Normalize,
    Part,
    Pool,
)
from sb3_sparse.runtime.network.reference import columns, pool

#: Without residual layers: they would need one unit for everything that is added up.
INTEGER = Capabilities(
    "the integer code of a C header",
    instead="use its float code",
    records={
        Network: "shape image normalize layers head ranges parts view",
        Part: "key shape sizes encoder",
        Normalize: "mean scale limit",
        Layer: "weight bias activation scale gain stride padding rectify pool",
        Activation: "name low high slopes",
        Norm: "epsilon scale shift",
        Pool: "kernel stride padding mean",
        Minifloats: "codes unit",
        Fixed: "codes unit",
        Head: "kind shape low high groups",
    },
    first="gain",
    activations=text.ACTIVATIONS,
    heads=("unscale", "clip", "argmax", "positive"),
)
#: Room above the largest activation of the calibration.
_HEADROOM = 1.5
#: Where the calibration has seen nothing but zeros.
_SMALLEST = 1e-6
#: A multiplier is a minifloat's integer, below 2**20, times a factor up to this.
_FACTOR = 2114


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """
    Constants of one layer.

    :param unit: The number that an input of 1 stands for.
    :param top: Largest absolute input, the same for all layers.
    :param factor: Multiplier of the integers of the row scales; 0 in the last layer and where the activation is not
        ReLU: these layers are computed in float.
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


def without_integers(network: Network) -> str | None:
    """
    :param network: A network.
    :return: The reason why integer code is not possible, or None if it is
    """
    reason = unknown(network, INTEGER)
    networks = (*network.encoders.values(), network)
    if reason is None and not all(each.ranges and all(layer.quantized for layer in each.layers) for each in networks):
        reason = "exported without calibration or with float weights"
    return reason


def integer_layers(network: Network) -> list[IntegerLayer]:
    """
    :param network: A quantized network with the ranges of a calibration.
    :return: The constants of its layers
    :raises ValueError: if it has no ranges, a float layer, or something that integer arithmetic does not compute
    """
    require_known(network, INTEGER)
    if network.ranges is None:
        raise ValueError("integer arithmetic needs the range of the activations: call compress(..., calibration=observations)")
    if not all(layer.quantized for layer in network.layers):
        raise ValueError("integer arithmetic needs quantized layers: call compress(..., bits=8)")
    top = min(_top(layer) for layer in network.layers)
    # Pixels are whole numbers already, unless they have gains.
    pixels = network.image and network.normalize is None and network.layers[0].gain is None
    unit = 1.0 if pixels else _HEADROOM * max(network.ranges[0], _SMALLEST) / top
    layers = []
    empty = np.zeros(0, np.int64)
    for index, layer in enumerate(network.layers):
        if index == len(network.layers) - 1:
            layers.append(IntegerLayer(float(np.float32(unit)), top, 0, empty, 0, empty))
            break
        wanted = _HEADROOM * max(network.ranges[index + 1], _SMALLEST) / top
        if layer.activation.name == "relu":
            wanted = max(wanted, float(np.abs(layer.biases).max()) / top)
            factor, multipliers, shift, after = _multipliers(layer, unit / wanted)
            after *= unit
            bias = np.clip(np.rint(layer.biases / after), -32767, 32767).astype(np.int64)
            layers.append(IntegerLayer(float(np.float32(unit)), top, factor, multipliers, shift, bias))
            unit = after
        else:
            layers.append(IntegerLayer(float(np.float32(unit)), top, 0, empty, 0, empty))
            unit = wanted
    return layers


def _multipliers(layer: Layer, ratio: float) -> tuple[int, NDArray[np.int64], int, float]:
    """
    From sums to units of the next layer: factor, multipliers, shift, and the unit of the next layer in units of this one.

    :param ratio: Unit of this layer over the smallest that is wanted for the next.
    """
    if isinstance(layer.scale, Minifloats):
        # after = step * 2**(32 + shift) / factor, at least 1 / ratio
        step = layer.scale.unit
        exact = step * ratio * 2.0**32
        shift = int(np.clip(np.floor(np.log2(_FACTOR / exact)), 0, 30)) if exact > 0 else 0
        factor = min(int(np.floor(exact * 2.0**shift)), _FACTOR)
        if factor == 0:
            raise ValueError(
                "the activations of a layer are too large for 16 bits next to its weights, so integer code is not possible: "
                "export the policy without calibration"
            )
        return factor, minifloat_integers(layer.scale.codes) * factor, shift, step * 2.0 ** (32 + shift) / factor
    # Multipliers in four bytes each, as large as they may be, so no factor would make them exact.
    largest = max(float(layer.scales.max()), 1e-30)
    ratio = min(ratio, (2**31 - 1) / 2**32 / largest)
    shift = int(np.clip(np.floor(np.log2((2**31 - 1) / 2**32 / largest / ratio)), 0, 30))
    return 1, np.rint(layer.scales.astype(np.float64) * (ratio * 2.0 ** (32 + shift))).astype(np.int64), shift, 1 / ratio


def _top(layer: Layer) -> int:
    """The largest input that no row can overflow 32 bits with."""
    largest = int(np.abs(layer.weight.astype(np.int64)).reshape(layer.outputs, -1).sum(axis=1).max(initial=1))
    return min(32767, (2**31 - 1) // max(largest, 1))


def minifloat_integers(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """
    :param codes: Of :class:`~sb3_sparse.runtime.network.records.Minifloats`.
    :return: Their values without the unit, below 2**20
    """
    integers: NDArray[np.int64] = (16 + (codes & 15).astype(np.int64)) << (codes >> 4)
    return integers


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
    values = _round(x, step, constants[0].top)
    for index, (layer, constant) in enumerate(zip(network.layers, constants, strict=True)):
        sums = _sums(layer, values)
        shaped = (-1, *[1] * (sums.ndim - 2))
        if constant.factor:
            y = ((sums * constant.multipliers.reshape(shaped)) >> (32 + constant.shift)) + constant.bias.reshape(shaped)
            values = pool(layer, np.clip(y, 0, constant.top))
            continue
        scale = (layer.scales * np.float32(constant.unit)).reshape(shaped)
        outputs = layer.activation(sums.astype(np.float32) * scale + layer.biases.reshape(shaped))
        if index + 1 < len(constants):
            values = pool(layer, _round(outputs, 1 / constants[index + 1].unit, constants[index + 1].top))
    return outputs


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
