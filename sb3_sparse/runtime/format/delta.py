"""Delta encoding: positions of nonzeros as distances in one byte each, and runs of equal counts instead of row pointers."""

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.format.bytestream import require

#: A distance that moves on without a weight.
ESCAPE = 255


def delta_encode(exists: NDArray[np.bool_], largest: int) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    """
    The rows of a mask as distances between weights. Each row begins at column 0; a longer distance than the largest is split
    into escapes of 255 and the rest.

    :param exists: Where the weights are, ``[out, in]``.
    :param largest: The largest distance of a weight: 255, or 254 where 255 is always an escape.
    :return: Entries per row ``[out]``, their distances ``[entries]``, and which entries are weights ``[weights]``
    """
    rows, columns = np.nonzero(exists)
    first = np.diff(rows, prepend=-1) > 0
    distances = np.where(first, columns, np.diff(columns, prepend=0))
    escapes = np.maximum(0, distances + ESCAPE - 1 - largest) // ESCAPE
    weights = np.cumsum(escapes + 1) - 1
    deltas = np.full(int((escapes + 1).sum()), ESCAPE, np.uint8)
    deltas[weights] = distances - ESCAPE * escapes
    counts = np.bincount(rows, weights=escapes + 1, minlength=len(exists)).astype(np.int64)
    return counts, deltas, weights


def delta_decode(
    counts: NDArray[np.int64], deltas: NDArray[np.uint8], weights: NDArray[np.bool_], columns: int, largest: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """
    The inverse of :func:`delta_encode`.

    :param counts: Entries per row.
    :param deltas: Distances.
    :param weights: Which entries are weights, not escapes, ``[entries]``.
    :param columns: Width of the matrix.
    :param largest: The largest distance of a weight.
    :return: Rows and columns of the weights
    :raises ValueError: if an entry lies outside of the matrix, or two entries have the same position
    """
    rows = np.repeat(np.arange(len(counts)), counts)
    total = np.concatenate([[0], np.cumsum(deltas, dtype=np.int64)])
    starts = np.cumsum(counts) - counts
    positions = total[1:] - np.repeat(total[starts], counts)
    may_be_zero = np.zeros(len(deltas), bool)
    if largest < ESCAPE:
        may_be_zero[1:] = ~weights[:-1]
    may_be_zero[starts[counts > 0]] = True
    require(bool((positions < columns).all()), "a weight lies outside its layer")
    require(bool(((deltas > 0) | may_be_zero).all()) and bool((weights | (deltas == ESCAPE)).all()), "a weight stands twice")
    return rows[weights], positions[weights]


def to_runs(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """
    :param counts: Entries per row.
    :return: ``[runs, 2]``: a count, and the number of consecutive rows with it
    """
    starts = np.flatnonzero(np.diff(counts, prepend=-1))
    return np.stack([counts[starts], np.diff(starts, append=len(counts))], axis=1)
