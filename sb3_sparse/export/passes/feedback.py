"""
Error feedback: the columns of a weight are rounded one after the other, and the columns still to come make up for the error of
each, as the covariance of the inputs says (optimal brain surgeon; GPTQ, Frantar et al. 2022, arXiv:2210.17323, algorithm 1).

Weights that do not exist stay zero. A row with few weights has its own covariance, that of its inputs. Where that would take
longer than a dense layer, all rows share the covariance of all inputs, and a missing weight counts as one that is rounded to
zero (SparseGPT, Frantar & Alistarh 2023, arXiv:2301.00774).
"""

from collections.abc import Iterator

import numpy as np
import torch as th
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import Floats

Matrix = NDArray[np.float64]

#: Layers with more inputs are rounded plainly: a covariance of this size has 128 MiB.
_MAX_INPUTS = 4096
#: Share of the mean variance that is added to each, so that the matrix can be inverted.
_DAMPING = 0.01
#: Multiplications for the covariances of single rows that take no time worth saving.
_QUICK = 1 << 25
#: Most numbers in the covariances of rows that are done together: 64 MiB.
_MAX_NUMBERS = 1 << 23
#: Inputs that are looked at together, and columns whose errors reach the rest together.
_PART, _BLOCK = 4096, 64


def can_feed_back(matrix: Matrix) -> bool:
    """
    :param matrix: Weights, ``[out, in]``.
    :return: Whether its rows are short enough
    """
    return bool(matrix.shape[1] <= _MAX_INPUTS)


def round_with_feedback(
    matrix: Matrix, steps: Matrix, top: int, inputs: Floats, mean: Matrix, gain: Floats | float = 1.0
) -> Matrix:
    """
    :param matrix: Weights, ``[out, in]``.
    :param steps: Distance of two neighbouring integers, one per row, ``[out, 1]``.
    :param top: Largest integer.
    :param inputs: Inputs of the layer, ``[n, in]``, before the gain.
    :param mean: The mean that is subtracted from them, ``[in]`` or ``[1]``.
    :param gain: What they are multiplied by, ``[in]``.
    :return: Integers from ``-top`` to ``top``, ``[out, in]``, 0 where the weight is 0
    """
    moments = _moments(inputs, mean, gain)
    # The inputs that matter most come first: the others can make up for them.
    energy = np.argsort(-np.diag(moments), kind="stable")
    energy = energy[matrix[:, energy].any(axis=0)]
    integers = np.zeros_like(matrix)
    for rows, columns in _groups(matrix[:, energy] != 0):
        chosen = energy[columns]
        index = rows[:, :, None], chosen[:, None, :]
        present = matrix[index] != 0
        covariance = moments[chosen[:, :, None], chosen[:, None, :]]
        if len(rows) > 1:
            # Columns that only fill up the shorter of several rows: they take no part.
            fills = ~present[:, 0]
            covariance[fills] = 0
            covariance.transpose(0, 2, 1)[fills] = 0
            covariance.reshape(len(rows), -1)[:, :: covariance.shape[1] + 1][fills] = 1
        integers[index] = _feed_back(matrix[index], present, steps[:, 0][rows], top, _factor(covariance))
    return integers


def _moments(inputs: Floats, mean: Matrix, gain: Floats | float) -> Matrix:
    """Second moments of the inputs, damped."""
    moments = np.zeros((inputs.shape[1],) * 2)
    for part in np.array_split(inputs, max(1, len(inputs) // _PART)):
        centered = ((part - mean) * gain).astype(np.float32)
        moments += centered.T.astype(np.float64) @ centered
    moments /= len(inputs)
    moments[np.diag_indices_from(moments)] += max(_DAMPING * float(np.trace(moments)) / len(moments), 1e-12)
    return moments


def _groups(present: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """
    :param present: Which weights exist, ``[out, in]``.
    :return: Rows that are done together, ``[groups, rows of a group]``, and the columns of each group, ``[groups, columns]``.
        All rows share all columns, or each row is a group of its own; then columns without a weight fill up the shorter rows
    """
    outputs, inputs = present.shape
    counts = present.sum(axis=1)
    if not inputs:
        return
    if (counts == inputs).all() or (counts.astype(float) ** 3).sum() > max(_QUICK, inputs**3):
        yield np.arange(outputs)[None], np.arange(inputs)[None]
        return
    order = np.argsort(-counts, kind="stable")
    first = 0
    while first < outputs and (longest := int(counts[order[first]])):
        rows = order[first : first + max(1, _MAX_NUMBERS // longest**2)]
        yield rows[:, None], np.argsort(~present[rows], axis=1, kind="stable")[:, :longest]
        first += len(rows)


def _factor(covariance: Matrix) -> Matrix:
    """Upper Cholesky factors of the inverses, ``[groups, columns, columns]``: inverses of the matrices' upper factors."""
    flipped = th.linalg.cholesky(th.from_numpy(covariance).flip(1, 2)).flip(1, 2)
    identity = th.eye(covariance.shape[1], dtype=th.float64).expand_as(flipped)
    factor: Matrix = th.linalg.solve_triangular(flipped, identity, upper=True).numpy()
    return factor


def _feed_back(matrix: Matrix, present: NDArray[np.bool_], steps: Matrix, top: int, factor: Matrix) -> Matrix:
    """
    Algorithm 1 of GPTQ for groups of rows, each with its factor.

    :param matrix: ``[groups, rows, columns]``.
    :param present: Which of these weights exist.
    :param steps: ``[groups, rows]``.
    :param top: Largest integer.
    :param factor: Upper Cholesky factors of the inverse second moments, ``[groups, columns, columns]``.
    :return: The integers
    """
    rest, integers, count = matrix.copy(), np.empty_like(matrix), matrix.shape[2]
    for start in range(0, count, _BLOCK):
        block = slice(start, min(start + _BLOCK, count))
        errors = np.empty_like(rest[:, :, block])
        for column in range(block.start, block.stop):
            rounded = np.clip(np.rint(rest[:, :, column] / steps), -top, top) * present[:, :, column]
            error = (rest[:, :, column] - rounded * steps) / factor[:, column, column, None]
            rest[:, :, column + 1 : block.stop] -= error[:, :, None] * factor[:, None, column, column + 1 : block.stop]
            integers[:, :, column], errors[:, :, column - start] = rounded, error
        rest[:, :, block.stop :] -= errors @ factor[:, block, block.stop :]
    return integers
