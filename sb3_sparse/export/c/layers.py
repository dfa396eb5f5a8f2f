"""The weights of a layer in the order in which C code reads them, and how many bytes their numbers need."""

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.format.delta import to_runs
from sb3_sparse.runtime.network.records import Layer, Shape


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
