"""
Center the outputs that discrete actions are chosen by. Only their differences count, and the values of all actions in a state
have much of their size in common: rounding each row by itself may lose small differences next to large values. So the mean
over the actions is subtracted from the rows and biases of the last layer, which changes no choice.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import IDENTITY, Network


def center(network: Network) -> Network:
    """
    Same as: ``weight -= weight.mean(axis=0); bias -= bias.mean()`` for each group of actions whose differences are rounded
    less then, in all columns in which every row of the group has a weight, so that no weight comes back that was pruned.

    :param network: A network.
    :return: One that chooses the same actions; the same network if its actions are not discrete, or its last layer is
        quantized already or ends in an activation or a norm
    """
    last = network.layers[-1]
    if network.head.kind != "argmax" or last.quantized or last.activation != IDENTITY or last.norm is not None:
        return network
    weight, bias = last.weight.astype(np.float64), last.biases.astype(np.float64)
    for rows in np.split(np.arange(last.outputs), np.cumsum(network.head.groups)[:-1]):
        before = weight[rows]
        after = before - before.mean(axis=0) * (before != 0).all(axis=0)
        # The rows of two centered actions mirror each other, and so do their errors, which then double in the difference.
        if len(rows) > 1 and _error(after) * (1 + (len(rows) == 2)) < _error(before):
            weight[rows] = after
            bias[rows] -= bias[rows].mean()
    centered = replace(last, weight=weight.astype(np.float32), bias=bias.astype(np.float32))
    return replace(network, layers=(*network.layers[:-1], centered))


def _error(weight: NDArray[np.float64]) -> float:
    """What the squared errors of the rows are proportional to: the distance of two integers is that of the largest weight."""
    return float((np.abs(weight).max(axis=1) ** 2).sum())
