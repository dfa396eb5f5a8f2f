"""
Rounded inputs of a layer: in the forward pass they take the values that an exported policy rounds them to, in the backward
pass they are themselves.

The grid is symmetric and uniform: ``unit * q`` with an integer q from ``low`` to ``top``, where low is ``-top``, or 0 for
inputs that are never negative. Its range ``unit * top`` follows the inputs of training, until it is frozen: that of hidden
layers is an exponential average of the largest input of each batch, that of an observation the largest one that was seen, with
headroom.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch as th
from torch import Tensor, nn

from sb3_sparse.nn.compiled import named_modules

#: Most steps of an observation, which is rounded to 16 bits: with 8 bits agents with inputs of different scales fall.
_FINEST = 2**15 - 1


class InputGrid(nn.Module):
    """
    The grid of a layer's inputs, as a part of the layer.

    :param top: Largest integer of the grid.
    :param signed: Whether there are negative ones.
    :param observation: Whether the inputs are an observation, which has headroom, and not the outputs of another layer.
    """

    #: Distance of two neighbours, a scalar. It is a buffer that is moved with the layer and not in its state dict.
    unit: Tensor
    #: How much of the average a batch makes up.
    rate: Final[float] = 0.01
    #: Room above the largest observation.
    headroom: Final[float] = 1.5

    def __init__(self, top: int, *, signed: bool, observation: bool = False) -> None:
        super().__init__()
        self.low, self.top = -top if signed else 0, top
        self.observation = observation
        #: Whether the range follows the inputs.
        self.follows = True
        #: Whether there is a range. Without one, inputs pass as they are.
        self.known = False
        #: Whether it rounds at present.
        self.enabled = True
        self.register_buffer("unit", th.zeros(()), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """
        :param input: Inputs of any shape. With gradients enabled, as in training, the range follows them first.
        :return: ``unit * clip(round(input / unit), low, top)``; halves are rounded to even integers
        """
        fixed = input.detach()
        if th.is_grad_enabled() and self.enabled and (self.follows or not self.known):
            self._follow(fixed)
        if not self.known or not self.enabled:
            return input
        # Not torch's own operator for it, which takes ten times as long on a CPU.
        rounded = (fixed / self.unit).round_().clamp_(self.low, self.top).mul_(self.unit)
        # The bracket is zero, so the sum is exact.
        return (input - fixed) + rounded if th.is_grad_enabled() else rounded

    def _follow(self, input: Tensor) -> None:
        if self.low == 0:
            largest = input.amax()
        else:
            smallest, largest = th.aminmax(input)
            largest = th.maximum(largest, -smallest)
        if self.observation:
            self.unit.copy_(th.maximum(self.unit, largest.mul_(self.headroom / self.top)))
        elif self.known:
            self.unit.lerp_(largest.mul_(1 / self.top), self.rate)
        else:
            self.unit.copy_(largest.mul_(1 / self.top))
        # The smallest ordinary number: a unit of zero would make NaN of zeros.
        self.unit.clamp_(min=1.1754943508222875e-38)
        self.known = True

    def numbers(self) -> list[float]:
        """
        :return: All that it is made of, to be saved: unit (0 if it is not known), low, top, and 1 or 0 for an observation and
            for a range that follows
        """
        return [float(self.unit) if self.known else 0.0, self.low, self.top, float(self.observation), float(self.follows)]

    @classmethod
    def from_numbers(cls, numbers: Sequence[float]) -> "InputGrid":
        """
        :param numbers: As :meth:`numbers` gives them, or anything else that a file may contain.
        :return: The grid
        :raises ValueError: if there is no such grid
        """
        if (
            not isinstance(numbers, Sequence)
            or not all(type(number) in (int, float) for number in numbers)
            or len(numbers) != 5
        ):
            raise ValueError(f"{numbers!r} are not the five numbers of rounded inputs")
        unit, low, top, observation, follows = numbers
        right = (unit == 0 or 1.17e-38 < unit < 1e30) and low in (0, -top) and top in range(1, _FINEST + 1)
        if not right or {observation, follows} - {0, 1}:
            raise ValueError(f"{numbers!r} are not the five numbers of rounded inputs")
        grid = cls(int(top), signed=low != 0, observation=bool(observation))
        grid.unit.fill_(unit)
        grid.known, grid.follows = unit > 0, bool(follows)
        return grid

    def extra_repr(self) -> str:
        return f"{self.low}..{self.top}"


def hidden_grid(bits: int, *, signed: bool) -> InputGrid:
    """
    :param bits: Bits of an input, from 2 to 8.
    :param signed: Whether inputs may be negative.
    :return: The grid of outputs of another layer, with 2**bits steps at most
    """
    return InputGrid(2 ** (bits - 1) - 1 if signed else 2**bits - 1, signed=signed)


def observation_grid(inputs: int, bits: int) -> InputGrid:
    """
    :param inputs: Inputs of each row of the weight.
    :param bits: Bits of a weight.
    :return: The grid of an observation in 16 bits, or in as many that no sum of a row needs more than 32
    """
    return InputGrid(min(_FINEST, (2**31 - 1) // (inputs * (2 ** (bits - 1) - 1))), signed=True, observation=True)


@contextmanager
def unrounded_inputs(module: nn.Module) -> Iterator[None]:
    """
    Inside, layers take their inputs as they are, and ranges stay as they are.

    :param module: Root of the layers.
    """
    grids = [grid for grid in input_grids(module).values() if grid.enabled]
    for grid in grids:
        grid.enabled = False
    try:
        yield
    finally:
        for grid in grids:
            grid.enabled = True


def input_grids(module: nn.Module, prefix: str = "") -> dict[str, InputGrid]:
    """
    :param module: Root of the search.
    :param prefix: Name of the root, to begin the names with.
    :return: By full name of the layer: the grids of the layers that round their inputs
    """
    end = ".input_grid"
    found = ((name, part) for name, part in named_modules(module, prefix) if isinstance(part, InputGrid))
    return {name.removesuffix(end) if name.endswith(end) else "": grid for name, grid in found}
