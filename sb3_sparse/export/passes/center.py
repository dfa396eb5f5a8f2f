"""
The outputs that discrete actions are chosen by. Only their differences count, and the values of all actions in a state have
much of their size in common: rounding each row by itself may lose small differences next to large values. So

- the mean over the actions is subtracted from the rows and biases of the last layer, which changes no choice;
- the row whose integers lie furthest apart is rounded first, and the others take over its errors, which then all actions have
  in common.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import IDENTITY, Network

Matrix = NDArray[np.float64]


def center(network: Network) -> Network:
    """
    Same as: ``weight -= weight.mean(axis=0); bias -= bias.mean()`` for each group of actions whose differences are rounded
    less then, in all columns in which every row of the group has a weight, so that no weight comes back that was pruned.

    :param network: A network.
    :return: One that chooses the same actions; the same network if its actions are not discrete, or its last layer is
        quantized already or ends in an activation or a norm
    """
    last, groups = network.layers[-1], action_groups(network)
    if not groups:
        return network
    weight, bias = last.weight.astype(np.float64), last.biases.astype(np.float64)
    for rows in np.split(np.arange(last.outputs), np.cumsum(groups)[:-1]):
        before = weight[rows]
        after = before - before.mean(axis=0) * (before != 0).all(axis=0)
        if _error(after) < _error(before):
            weight[rows] = after
            bias[rows] -= bias[rows].mean()
    centered = replace(last, weight=weight.astype(np.float32), bias=bias.astype(np.float32))
    return replace(network, layers=(*network.layers[:-1], centered))


def action_groups(network: Network) -> tuple[int, ...]:
    """
    :param network: A network.
    :return: How many outputs of its last layer each discrete action is chosen among; empty if its actions are not discrete, or
        the layer is quantized already or ends in an activation or a norm
    """
    last = network.layers[-1]
    sums = not last.quantized and last.activation == IDENTITY and last.norm is None
    return network.head.groups if network.head.kind == "argmax" and sums else ()


def share_errors(matrix: Matrix, rounded: Matrix, groups: tuple[int, ...]) -> tuple[Matrix, NDArray[np.int64]]:
    """
    :param matrix: Weights, ``[out, in]``.
    :param rounded: The same, each row rounded by itself.
    :param groups: Numbers of rows of which only the differences count.
    :return: The weights with the errors of the row of their group that has the largest weight, in all columns in which every
        row of the group has one; and the indices of all rows but these, which are to be rounded again
    """
    targets, first = matrix.copy(), []
    for rows in np.split(np.arange(len(matrix)), np.cumsum(groups)[:-1]):
        leader = rows[np.abs(matrix[rows]).max(axis=1).argmax()]
        targets[rows] += (rounded[leader] - matrix[leader]) * (matrix[rows] != 0).all(axis=0)
        first.append(leader)
    return targets, np.setdiff1d(np.arange(len(matrix)), first)


def _error(weight: Matrix) -> float:
    """
    What the squared errors of the rows are proportional to: the distance of two integers is that of the largest weight. The
    errors of the row with the largest of all are shared.
    """
    return float(np.sort(np.abs(weight).max(axis=1) ** 2)[:-1].sum())
