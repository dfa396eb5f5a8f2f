"""
Schedules: how much, at which point of a run.

A schedule maps the progress of a run, in [0, 1], to a value: a sparsity, or the share of weights to rewire. It holds its
first value before ``start`` and its last one after ``end``. Schedules are frozen dataclasses: they print, compare and
pickle.
"""

import math
from dataclasses import dataclass


def _check_window(start: float, end: float) -> None:
    if not start <= end:
        raise ValueError(f"a schedule must not end before it starts: start={start}, end={end}")


def _elapsed(progress: float, start: float, end: float) -> float:
    """Share of the window [start, end] that has passed, in [0, 1]."""
    if progress >= end:
        return 1.0
    if progress <= start:
        return 0.0
    return (progress - start) / (end - start)


@dataclass(frozen=True)
class Constant:
    """
    The same value all along.

    >>> Constant(0.05)(0.7)
    0.05

    :param value: The value.
    """

    value: float

    def __call__(self, progress: float) -> float:
        return self.value


@dataclass(frozen=True)
class Cubic:
    """
    Sparsity that rises fast and lands softly: with t the elapsed share of [start, end],

        s(t) = final + (initial - final) * (1 - t)**3

    (Zhu & Gupta 2017, "To prune, or not to prune", eq. 1.)

    >>> [round(Cubic(final=0.9, start=0.2, end=0.8)(p), 4) for p in (0.0, 0.2, 0.5, 0.8, 1.0)]
    [0.0, 0.0, 0.7875, 0.9, 0.9]

    :param final: Value at ``end`` and after.
    :param initial: Value at ``start`` and before.
    :param start: Progress at which it begins to rise.
    :param end: Progress at which it has arrived.
    :raises ValueError: if ``end`` lies before ``start``
    """

    final: float
    initial: float = 0.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        _check_window(self.start, self.end)

    def __call__(self, progress: float) -> float:
        left = (1.0 - _elapsed(progress, self.start, self.end)) ** 3
        # This form is exact at both ends, and so are the budgets there.
        return self.initial * left + self.final * (1.0 - left)


@dataclass(frozen=True)
class Cosine:
    """
    Half a cosine from one value to another: with t the elapsed share of [start, end],

        v(t) = final + (initial - final) * (1 + cos(pi t)) / 2

    (Evci et al. 2020, "Rigging the Lottery", section 3, where it decays the share of rewired weights.)

    >>> [round(Cosine(initial=0.3)(p), 4) for p in (0.0, 0.5, 1.0)]
    [0.3, 0.15, 0.0]

    :param initial: Value at ``start`` and before.
    :param final: Value at ``end`` and after.
    :param start: Progress at which it begins to move.
    :param end: Progress at which it has arrived.
    :raises ValueError: if ``end`` lies before ``start``
    """

    initial: float
    final: float = 0.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        _check_window(self.start, self.end)

    def __call__(self, progress: float) -> float:
        half_wave = (1.0 + math.cos(math.pi * _elapsed(progress, self.start, self.end))) / 2
        return self.initial * half_wave + self.final * (1.0 - half_wave)


SCHEDULES = {"constant": Constant, "cubic": Cubic, "cosine": Cosine}
