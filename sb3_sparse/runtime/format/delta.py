"""Delta encoding: positions of nonzeros as distances in one byte each, and runs of equal counts instead of row pointers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.format.bytestream import require


def delta_encode(weight: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[Any]]:
    """
    The rows of a matrix as distances between nonzeros. Each row begins at column 0; a distance above 255 is split into
    entries of distance 255 and value 0.

    :param weight: ``[out, in]``.
    :return: Entries per row ``[out]``, their distances ``[entries]`` and their values ``[entries]``
    """
    rows, columns = np.nonzero(weight)
    first = np.diff(rows, prepend=-1) > 0
    distances = np.where(first, columns, np.diff(columns, prepend=0))
    steps = np.maximum(0, (distances - 1) // 255) + 1
    ends = np.cumsum(steps) - 1
    deltas = np.full(int(steps.sum()), 255, np.uint8)
    values = np.zeros(len(deltas), weight.dtype)
    deltas[ends] = distances - 255 * (steps - 1)
    values[ends] = weight[rows, columns]
    counts = np.bincount(rows, weights=steps, minlength=len(weight)).astype(np.int64)
    return counts, deltas, values


def delta_decode(counts: NDArray[np.int64], deltas: NDArray[np.uint8], values: NDArray[Any], columns: int) -> NDArray[Any]:
    """
    The inverse of :func:`delta_encode`.

    :param counts: Entries per row.
    :param deltas: Distances.
    :param values: Values.
    :param columns: Width of the matrix.
    :return: The matrix, ``[len(counts), columns]``
    :raises ValueError: if an entry lies outside of the matrix, or two entries have the same position
    """
    rows = np.repeat(np.arange(len(counts)), counts)
    total = np.concatenate([[0], np.cumsum(deltas, dtype=np.int64)])
    starts = np.cumsum(counts) - counts
    positions = total[1:] - np.repeat(total[starts], counts)
    first = np.zeros(len(deltas), bool)
    first[starts[counts > 0]] = True
    require(bool((positions < columns).all()), "a weight lies outside its layer")
    require(bool(((deltas > 0) | first).all()) and bool(((values != 0) | (deltas == 255)).all()), "a weight stands twice")
    matrix = np.zeros((len(counts), columns), values.dtype)
    present = values != 0
    matrix[rows[present], positions[present]] = values[present]
    return matrix


def to_runs(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """
    :param counts: Entries per row.
    :return: ``[runs, 2]``: a count, and the number of consecutive rows with it
    """
    starts = np.flatnonzero(np.diff(counts, prepend=-1))
    return np.stack([counts[starts], np.diff(starts, append=len(counts))], axis=1)
