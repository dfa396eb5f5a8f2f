"""
A grid of weights that stays as it is while they are trained: ``step * q`` with an integer q, and one step for each row.

The scale of :func:`~sb3_sparse.nn.fake_quantize` follows the largest weight of a layer. Here somebody has chosen the steps:
with a few bits it pays to clip the largest weights, and each row has a range of its own.
"""

from dataclasses import dataclass
from functools import cached_property

import torch as th
from torch import Tensor

#: A weight this far from an integer of its grid, in steps, is not on the grid: far more than the rounding of floats.
_NEAR = 1e-3


@dataclass(frozen=True, eq=False)
class WeightGrid:
    """
    The grid of a layer's weight, on the device of the weight.

    :param bits: Bits of an integer, from 2 to 8.
    :param scale: Of each row, ``[out]``, positive; it may be changed in place.
    :param gain: What the steps of each column are multiplied by, ``[in]``, positive; None for ones. It is for inputs that
        differ in scale.
    """

    bits: int
    scale: Tensor
    gain: Tensor | None = None

    @property
    def top(self) -> int:
        """The largest integer."""
        return int(2 ** (self.bits - 1) - 1)

    @cached_property
    def _rows(self) -> Tensor:
        return self.scale[:, None]

    def steps(self, weight: Tensor) -> Tensor:
        """
        :param weight: A weight, ``[out, in, ...]``.
        :return: The distance of two neighbouring values, in a shape to divide by
        """
        rows = self._rows if weight.dim() == 2 else self.scale.view(-1, *[1] * (weight.dim() - 1))
        return rows if self.gain is None else rows * self.gain

    def integers(self, weight: Tensor) -> Tensor:
        """
        :param weight: A weight, ``[out, in, ...]``.
        :return: ``clip(round(weight / step), -top, top)``, of the weight's type; halves are rounded to even integers
        """
        return (weight / self.steps(weight)).clamp_(-self.top, self.top).round_()

    def holds(self, weight: Tensor) -> bool:
        """
        :param weight: A weight, ``[out, in, ...]``.
        :return: Whether its values are on the grid, up to the rounding of floats
        """
        return bool(((weight / self.steps(weight)) - self.integers(weight)).abs().max() < _NEAR)

    def __call__(self, weight: Tensor) -> Tensor:
        """
        :param weight: A weight, ``[out, in, ...]``.
        :return: The nearest values of the grid, whose gradient is that of the weight
        """
        fixed = weight.detach()
        rounded = self.integers(fixed).mul_(self.steps(fixed))
        # The bracket is zero, so the sum is exact.
        return (weight - fixed) + rounded if th.is_grad_enabled() else rounded
