"""Numbers in few bytes: scales in one byte each, biases in two."""

from dataclasses import replace

import numpy as np

from sb3_sparse.runtime.network.records import Fixed, Floats, Minifloats, Network

#: Largest and smallest integer that a minifloat can hold.
_TOP, _BOTTOM = 31 << 15, 16


def round_biases(network: Network) -> Network:
    """
    Round the biases of quantized layers to 16 bits: the last pass.

    :param network: A quantized network.
    :return: The same with biases of type :class:`~sb3_sparse.runtime.network.records.Fixed`
    """
    layers = []
    for layer in network.layers:
        unit = float(np.float32(np.abs(layer.biases).max() / 32767)) or 1.0
        codes = np.clip(np.rint(layer.biases / np.float32(unit)), -32767, 32767).astype(np.int16)
        layers.append(replace(layer, bias=Fixed(codes, unit)) if layer.quantized else layer)
    return replace(network, layers=tuple(layers))


def to_minifloats(values: Floats, *, up: bool) -> Minifloats:
    """
    :param values: Numbers that are not negative, ``[n]``.
    :param up: Whether to round up, so that the results are upper bounds of the values; else to the nearest.
    :return: Their codes; the largest value is met exactly, and values too small for the rest take the smallest code there is
    """
    largest = float(values.max(initial=0.0))
    unit = float(np.float32(largest / _TOP)) or 1.0
    # Rounded to float32, the unit may be a hair too small.
    integers = np.clip(values.astype(np.float64) / unit * (1 - 1e-6 * up), _BOTTOM, _TOP)
    exponents = np.clip(np.floor(np.log2(integers)) - 4, 0, 15).astype(np.int64)
    mantissas = integers / 2.0**exponents
    rounded = (np.ceil(mantissas) if up else np.rint(mantissas)).astype(np.int64)
    carried = rounded == 32
    exponents, rounded = exponents + carried, np.where(carried, 16, rounded)
    over = exponents > 15
    exponents, rounded = np.where(over, 15, exponents), np.where(over, 31, rounded)
    return Minifloats((exponents << 4 | (rounded - 16)).astype(np.uint8), unit)
