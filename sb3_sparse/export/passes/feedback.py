"""
Error feedback: the columns of a weight are rounded one after the other, and the columns still to come make up for the error of
each, as the covariance of the inputs says (optimal brain surgeon; GPTQ, Frantar et al. 2022, arXiv:2210.17323, algorithm 1).
Weights that do not exist take no part.
"""

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import Floats

Matrix = NDArray[np.float64]

#: Error feedback needs a triangular factor for each set of inputs; sparse rows of more inputs than this are rounded plainly.
_MAX_ROW = 1024
_MAX_INPUTS = 4096
#: Share of the mean variance that is added to each, so that the matrix can be inverted.
_DAMPING = 0.01


def can_feed_back(matrix: Matrix) -> bool:
    """
    :param matrix: Weights, ``[out, in]``.
    :return: Whether its rows are short enough
    """
    counts = np.count_nonzero(matrix, axis=1)
    return matrix.shape[1] <= _MAX_INPUTS and bool((matrix != 0).all() or counts.max() <= _MAX_ROW)


def round_with_feedback(matrix: Matrix, steps: Matrix, top: int, inputs: Floats) -> Matrix:
    """
    :param matrix: Weights, ``[out, in]``.
    :param steps: Distance of two neighbouring integers, one per row, ``[out, 1]``.
    :param top: Largest integer.
    :param inputs: Inputs of the layer, ``[n, in]``.
    :return: Integers from ``-top`` to ``top``, ``[out, in]``, 0 where the weight is 0
    """
    moments = np.zeros((matrix.shape[1],) * 2)
    for part in np.array_split(inputs, max(1, len(inputs) // 4096)):
        moments += part.T.astype(np.float64) @ part
    moments /= len(inputs)
    moments += np.eye(len(moments)) * max(_DAMPING * float(np.trace(moments)) / len(moments), 1e-12)
    # The inputs that matter most come first: the others can make up for them.
    energy = np.argsort(-np.diag(moments), kind="stable")
    integers = np.zeros_like(matrix)
    # Rows with the same columns are done together.
    if (matrix != 0).all():
        groups = [(np.arange(len(matrix)), energy)]
    else:
        groups = [(np.array([row]), energy[matrix[row, energy] != 0]) for row in range(len(matrix))]
    for rows, present in groups:
        if len(present):
            factor = np.linalg.cholesky(np.linalg.inv(moments[np.ix_(present, present)])).T
            integers[np.ix_(rows, present)] = _feed_back(matrix[np.ix_(rows, present)], steps[rows, 0], top, factor)
    return integers


def _feed_back(matrix: Matrix, steps: Matrix, top: int, factor: Matrix) -> Matrix:
    """Algorithm 1 of GPTQ without its blocks: ``factor`` is the upper Cholesky factor of the inverse second moments."""
    rest, integers = matrix.copy(), np.empty_like(matrix)
    for column in range(matrix.shape[1]):
        integers[:, column] = np.clip(np.rint(rest[:, column] / steps), -top, top)
        error = (rest[:, column] - integers[:, column] * steps) / factor[column, column]
        rest[:, column + 1 :] -= np.outer(error, factor[column, column + 1 :])
    return integers
