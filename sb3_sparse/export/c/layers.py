"""
The weights of a layer in the order in which C code reads them, and in which form.

A linear layer is dense, which needs no columns, or a list of its weights with their columns. Weights are floats, bytes, or
codes of 2, 3, 4 or 6 bits: 24 bits hold a whole number of each, so the code that reads them is the same for all. As this code
takes flash as well, the form is chosen such that tables and code together are smallest.
"""

from collections.abc import Set
from itertools import combinations
from math import ceil, inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.format.codes import code_width
from sb3_sparse.runtime.format.delta import to_runs
from sb3_sparse.runtime.network.records import Layer, Network, Shape

#: Bits of a weight that C code reads; those below 8 are packed.
_WIDTHS = (2, 3, 4, 6, 8)
#: Bytes of machine code (Thumb-2, -O2) of a function for a sparse or a dense layer, and what reading codes adds to it.
_SPARSE, _DENSE, _PACKED = 160, 130, 40


class Form(NamedTuple):
    """
    How a header stores the weights of a layer.

    :param dense: Whether all weights are there, zeros included, and no columns.
    :param width: Bits of a weight: 2, 3, 4 or 6 are packed, 8 are a byte and 32 a float.
    """

    dense: bool
    width: int

    @property
    def packed(self) -> bool:
        """Whether several weights share a byte."""
        return self.width < 8

    def pack(self, weights: NDArray[np.int8]) -> NDArray[np.uint8]:
        """
        :param weights: Integers that fit, ``[n]``.
        :return: Two's complement of so many bits each, the first in the lowest bits; those that share bytes in groups of three
        """
        if not self.packed:
            return weights.astype(np.uint8)
        padded = np.zeros((ceil(len(weights) * self.width / 24), 24 // self.width), np.uint32)
        padded.reshape(-1)[: len(weights)] = weights.astype(np.uint8) & (2**self.width - 1)
        groups: NDArray[np.uint32] = (padded << self.width * np.arange(24 // self.width, dtype=np.uint32)).sum(axis=1)
        return np.stack([groups >> shift & 255 for shift in (0, 8, 16)], axis=1).astype(np.uint8).reshape(-1)


def choose_forms(network: Network, *, pack: bool = True) -> list[Form]:
    """
    :param network: A network.
    :param pack: Whether several weights may share a byte. A byte for each is read in fewer instructions.
    :return: The forms of its layers that take the least flash together; a convolution has a byte or a float for each weight
        that exists
    """
    layers = [_options(layer, pack=pack) for layer in network.layers]
    forms = sorted(set().union(*layers))
    sets = (set(some) for count in range(1, len(forms) + 1) for some in combinations(forms, count))
    chosen = min(sets, key=lambda some: _total(layers, some))
    return [min(options.keys() & chosen, key=lambda form: options[form]) for options in layers]


def _total(layers: list[dict[Form, int]], chosen: Set[Form]) -> float:
    """Bytes of tables and code with these forms; infinite if a layer fits none."""
    code = sum((_DENSE if form.dense else _SPARSE) + _PACKED * form.packed for form in chosen)
    return code + sum(min((size for form, size in options.items() if form in chosen), default=inf) for options in layers)


def _options(layer: Layer, *, pack: bool) -> dict[Form, int]:
    """The forms that a layer can have, and the bytes of its tables in each."""
    weights, existing = layer.weight.size, int(np.count_nonzero(layer.weight))
    columns = existing * count_bytes(layer.weight.shape[1] - 1)
    if layer.convolution:
        return {Form(dense=False, width=8 if layer.quantized else 32): 0}
    if layer.quantized:
        least = code_width(layer.weight.astype(np.int8).reshape(-1), zeros=True)
        widths: tuple[int, ...] = tuple(width for width in _WIDTHS if width >= (least if pack else 8))
    else:
        widths = (32,)
    sizes = {Form(dense=False, width=width): columns + ceil(existing * width / 8) for width in widths}
    return sizes | {Form(dense=True, width=width): ceil(weights * width / 8) for width in widths}


def offsets(layer: Layer, before: Shape) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.generic], str]:
    """
    :param layer: A layer.
    :param before: Shape of its input.
    :return: Entries per row, their places in the input (of a convolution: from the corner of a window), their weights, and the
        arguments of a convolution
    """
    weights = layer.weight.reshape(layer.rows, -1)
    rows, columns = np.nonzero(weights)
    counts = np.bincount(rows, minlength=layer.rows)
    arguments = ""
    if layer.convolution:
        _, height, width = before
        after = layer.sum_shape(before)
        channel, y, x = np.unravel_index(columns, layer.weight.shape[1:])
        arguments = f"{layer.outputs}, {after[1]}, {after[2]}, {layer.stride[0] * width}, {layer.stride[1]}"
        return counts, channel * height * width + y * width + x, weights[rows, columns], arguments
    return counts, columns, weights[rows, columns], arguments


def row_of(layer: Layer, size: int, index: str) -> str:
    """
    :param layer: A layer.
    :param size: Number of its sums.
    :param index: A sum, as an expression.
    :return: The row, or the channel, of that sum
    """
    return index if size == layer.outputs else f"{index} / {size // layer.outputs}"


def count_bytes(largest: int) -> int:
    """
    :param largest: An integer that is not negative.
    :return: 1, 2 or 4: how many bytes it takes
    """
    return 1 if largest < 1 << 8 else 2 if largest < 1 << 16 else 4


def cut_runs(counts: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """
    :param counts: Entries per row.
    :param most: The longest run.
    :return: ``[runs, 2]``: a count and how many rows one after the other have it; an empty run is the last
    """
    runs = [(count, min(most, length - start)) for count, length in to_runs(counts) for start in range(0, length, most)]
    return np.array([*runs, (0, 0)])
