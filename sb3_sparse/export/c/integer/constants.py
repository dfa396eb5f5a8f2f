"""
The integer arithmetic of the generated C code (W8A16: 8-bit weights, 16-bit activations, or as many bits as training has
rounded them to): its constants, and the same in numpy, to the bit.

An activation x is held as the integer ``x / unit``. The sums ``weight @ x`` fit into 32 bits for every input: ``top``, the
largest activation, is lowered where a row could overflow. A hidden layer with a ReLU is brought to the unit of the next by

    y = clip(((sum * multiplier) >> (32 + shift)) + bias, 0, top),     multiplier < 2**31 per row

and the unit of the next layer is chosen such that the multipliers are exact where the scales have one byte each (float
scales, of layers trained with fake quantization, are rounded to 31 bits): nothing is lost but the fraction of y.

Where training has rounded the inputs of the next layer, that unit is given, and y is the nearest integer of its grid:

    y = clip((sum * multiplier + (bias << finer)) >> shift, 0, top)
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.export.c import text
from sb3_sparse.runtime.network.capabilities import Capabilities, require_known, unknown
from sb3_sparse.runtime.network.ranges import knows_ranges, takes_pixels
from sb3_sparse.runtime.network.records import (
    Activation,
    Fixed,
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

#: Without residual layers: they would need one unit for everything that is added up.
INTEGER = Capabilities(
    "the integer code of a C header",
    instead="use its float code",
    records={
        Network: "shape image normalize layers head ranges parts view",
        Part: "key shape sizes encoder",
        Normalize: "mean scale limit",
        Layer: "weight bias activation scale gain stride padding rectify pool grid",
        Activation: "name low high slopes",
        Norm: "epsilon scale shift",
        Pool: "kernel stride padding mean",
        Grid: "unit low top",
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
    :param low: Smallest input.
    :param top: Largest input; without grids of training it is the same for all layers.
    :param factor: Multiplier of the integers of the row scales; 0 in the last layer and where the activation is not
        ReLU: these layers are computed in float.
    :param multipliers: Of each row, ``[out]``; empty where ``factor`` is 0.
    :param shift: Bits beyond 32 that the product is shifted by; all bits, if there is ``finer``.
    :param bias: In units of the next layer's input, ``[out]``; empty where ``factor`` is 0.
    :param finer: Where training has fixed the next layer's grid: the bias is shifted to the left by so many bits and added to
        the product before that is shifted.
    :param limit: Largest output.
    """

    unit: float
    low: int
    top: int
    factor: int = 0
    multipliers: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    shift: int = 0
    bias: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    finer: int | None = None
    limit: int = 0


def without_integers(network: Network) -> str | None:
    """
    :param network: A network.
    :return: The reason why integer code is not possible, or None if it is
    """
    networks = (*network.encoders.values(), network)
    reason = unknown(network, INTEGER) or next(filter(None, map(_coarse_mean, networks)), None)
    if reason is None and not all(knows_ranges(each) and all(layer.quantized for layer in each.layers) for each in networks):
        reason = "exported without calibration or with float weights"
    return reason


def _coarse_mean(network: Network) -> str | None:
    """A sentence about the first mean of numbers that would have to be on the grid of the layer behind it; None without."""
    for index, (layer, after) in enumerate(pairwise(network.layers)):
        if layer.pool is not None and layer.pool.mean and after.grid is not None:
            what = f"layer {index} has a pool of means in front of inputs that training has rounded"
            return f"{what}, which {INTEGER.name} does not support: {INTEGER.instead}"
    return None


def integer_layers(network: Network) -> list[IntegerLayer]:
    """
    :param network: A quantized network with the ranges of a calibration or of training.
    :return: The constants of its layers
    :raises ValueError: if it has no ranges, a float layer, or something that integer arithmetic does not compute
    """
    require_known(network, INTEGER)
    if coarse := _coarse_mean(network):
        raise ValueError(coarse)
    if not knows_ranges(network):
        raise ValueError("integer arithmetic needs the range of the activations: call compress(..., calibration=observations)")
    if not all(layer.quantized for layer in network.layers):
        raise ValueError("integer arithmetic needs quantized layers: call compress(..., bits=8)")
    free = [layer for layer in network.layers if layer.grid is None]
    top = min(map(_top, free), default=0)
    ranges = network.ranges or (0.0,) * len(network.layers)
    wanted = [_HEADROOM * max(size, _SMALLEST) / max(top, 1) for size in ranges]
    if takes_pixels(network):
        wanted[0] = 1.0
    found: list[IntegerLayer] = []
    unit = wanted[0]
    for index, layer in enumerate(network.layers):
        low, most = -top, top
        if layer.grid is not None:
            unit, low, most = layer.grid.unit, layer.grid.low, layer.grid.top
            if most > _top(layer):
                raise _too_large("32")
        constant = IntegerLayer(float(np.float32(unit)), low, most, limit=top)
        after = network.layers[index + 1] if index + 1 < len(network.layers) else None
        if after is None or layer.activation.name != "relu":
            unit = 0.0 if after is None else wanted[index + 1]
        elif after.grid is not None:
            constant = _to_grid(constant, layer, after.grid)
        else:
            size = max(wanted[index + 1], float(np.abs(layer.biases).max()) / top)
            factor, multipliers, shift, unit_after = _multipliers(layer, unit / size)
            unit *= unit_after
            bias = np.clip(np.rint(layer.biases / unit), -32767, 32767).astype(np.int64)
            constant = replace(constant, factor=factor, multipliers=multipliers, shift=shift, bias=bias)
        found.append(constant)
    return found


def _to_grid(constant: IntegerLayer, layer: Layer, grid: Grid) -> IntegerLayer:
    """
    From sums to a grid that training has fixed: ``(sum * multiplier + (bias << finer)) >> shift``, where half a step in the
    bias makes it the nearest. Multipliers have 31 bits, biases 32, and nothing overflows 64.
    """
    ratios = layer.scales.astype(np.float64) * constant.unit / grid.unit
    offsets = layer.biases.astype(np.float64) / grid.unit + 0.5
    reach = constant.top * np.abs(layer.weight.astype(np.float64)).reshape(layer.rows, -1).sum(axis=1)
    largest = float((reach * ratios + np.abs(offsets)).max())
    if largest >= 2**30:
        raise _too_large("32")
    shift = int(np.floor(np.log2(min((2**31 - 1) / max(float(ratios.max()), 1e-30), 2.0**62 / largest))))
    multipliers = np.rint(ratios * 2.0**shift).astype(np.int64)
    finer = max(0, int(np.ceil(np.log2(max(float(np.abs(offsets).max()), 1e-9)))) + shift - 30)
    bias = np.rint(offsets * 2.0 ** (shift - finer)).astype(np.int64)
    factor = int(multipliers[0]) if (multipliers == multipliers[0]).all() and multipliers[0] else 1
    return replace(constant, factor=factor, multipliers=multipliers, shift=shift, bias=bias, finer=finer, limit=grid.top)


def _too_large(bits: str) -> ValueError:
    return ValueError(
        f"the activations of a layer are too large for {bits} bits next to its weights, so integer code is not possible: "
        "export the policy without calibration, or train it without activation_bits"
    )


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
            raise _too_large("16")
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
