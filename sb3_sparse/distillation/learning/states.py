"""The states that a student has learnt from so far, with what the teacher does in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch as th
from numpy.typing import NDArray
from torch import nn

from sb3_sparse.export.passes import to_minifloats

#: Most bytes of the states of a run.
MOST_BYTES = 4 * 1024**3
#: Rows that are computed with at once.
_PART = 65_536
#: What is added to the standard deviation of an input.
_EPSILON = 1e-3


class States:
    """
    A growing table of inputs and targets. When it is full, the oldest rows are overwritten. Vectors are stored normalized, by
    the mean and the standard deviation of the first rows, and networks that read them have that folded into their first layer.

    :param capacity: Most rows.
    :param inputs: The first rows' inputs, ``[n, ...]``: they give the shape and the type.
    :param targets: Likewise, ``[n, targets]``.
    :param normalize: Whether the inputs are vectors to normalize.
    :param coarse: Whether one over the standard deviation of each has to be a number in one byte, as the gain of an exported
        layer is.
    """

    def __init__(
        self,
        capacity: int,
        inputs: NDArray[Any],
        targets: NDArray[np.float32],
        *,
        normalize: bool,
        coarse: bool = False,
    ) -> None:
        self.capacity = max(1, min(capacity, MOST_BYTES // int(inputs[0].nbytes + targets[0].nbytes)))
        self.inputs = np.empty((self.capacity, *inputs.shape[1:]), np.float32 if normalize else inputs.dtype)
        self.targets = np.empty((self.capacity, *targets.shape[1:]), np.float32)
        self.mean: NDArray[np.float64] | None = None
        if normalize:
            self.mean = sum(inputs[part].astype(np.float64).sum(axis=0) for part in _parts(inputs)) / len(inputs)
            squares = sum(np.square(inputs[part] - self.mean).sum(axis=0) for part in _parts(inputs))
            self.std = np.sqrt(squares / len(inputs)) + _EPSILON
            if coarse:
                self.std = 1 / to_minifloats((1 / self.std).astype(np.float32), up=False).values.astype(np.float64)
        #: Rows that have been added in all.
        self.added = 0
        self.add(inputs, targets)

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, inputs: NDArray[Any], targets: NDArray[np.float32]) -> None:
        """
        :param inputs: Inputs of the network, ``[n, ...]``.
        :param targets: Their targets, ``[n, targets]``.
        """
        inputs, targets = inputs[-self.capacity :], targets[-self.capacity :]
        rows = (self.added + np.arange(len(inputs))) % self.capacity
        for part in _parts(inputs):
            self.inputs[rows[part]] = inputs[part] if self.mean is None else (inputs[part] - self.mean) / self.std
        self.targets[rows] = targets
        self.added += len(inputs)

    @property
    def deviations(self) -> NDArray[np.float64] | None:
        """The standard deviations that inputs were divided by; None if they were not."""
        return None if self.mean is None else self.std

    def raw(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """
        :param inputs: Rows of the table.
        :return: They as they were given, to rounding
        """
        return inputs if self.mean is None else (inputs * self.std + self.mean).astype(np.float32)

    @th.no_grad()
    def fold(self, layer: nn.Linear) -> None:
        """
        :param layer: A layer that reads inputs; from now on it reads the normalized ones, and computes the same.
        """
        if self.mean is not None:
            weight = layer.weight.double()
            layer.bias.add_((weight @ th.as_tensor(self.mean, device=weight.device)).to(layer.bias.dtype))
            layer.weight.copy_(weight * th.as_tensor(self.std, device=weight.device))

    @th.no_grad()
    def unfold(self, layer: nn.Linear) -> None:
        """
        :param layer: A layer that reads normalized inputs; from now on it reads the inputs, and computes the same.
        """
        if self.mean is not None:
            weight = layer.weight.double() / th.as_tensor(self.std, device=layer.weight.device)
            layer.bias.sub_((weight @ th.as_tensor(self.mean, device=weight.device)).to(layer.bias.dtype))
            layer.weight.copy_(weight)


def _parts(rows: NDArray[Any]) -> Iterator[slice]:
    """Some rows after the others: in numbers of double precision all of them would take much memory."""
    for begin in range(0, len(rows), _PART):
        yield slice(begin, begin + _PART)
