"""
Schedules: how much, at which point of a run.

A schedule maps the progress of a run to a value: a sparsity, or the fraction of weights to rewire. Progress is a share of
the run in [0, 1], or a number of environment steps if ``start`` and ``end`` are numbers of steps too.

All schedules have the same four arguments: a schedule has its ``initial`` value before ``start`` and its ``final`` value
from ``end`` on. They differ in the way between the two. Schedules are frozen dataclasses: they print, compare and pickle. A
new one is one class and one entry in ``SCHEDULES``.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class Window(ABC):
    """
    Base class of the schedules. A subclass says with :meth:`remaining` how far the value still is from ``final``:

        value = final + (initial - final) * remaining(t),     t = (progress - start) / (end - start), within [0, 1]

    :param final: Value from ``end`` on.
    :param initial: Value before ``start``.
    :param start: Progress at which the value begins to change.
    :param end: Progress at which it has arrived.
    :raises ValueError: if ``end`` is less than ``start``
    """

    final: float = 0.0
    initial: float = 0.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not self.start <= self.end:
            raise ValueError(f"a schedule must not end before it starts: start={self.start}, end={self.end}")

    def __call__(self, progress: float) -> float:
        if progress < self.start:
            return self.initial
        remaining = self.remaining(1.0 if progress >= self.end else (progress - self.start) / (self.end - self.start))
        # In this form the values at both ends are exact, and so are the budgets there.
        return self.initial * remaining + self.final * (1.0 - remaining)

    @abstractmethod
    def remaining(self, t: float) -> float:
        """
        :param t: Elapsed share of the window, in [0, 1].
        :return: Share of the way that is left, 0 at t = 1
        """


@dataclass(frozen=True)
class Constant(Window):
    """
    Jumps from the initial to the final value at ``start``.

    >>> Constant(0.05)(0.7)
    0.05
    """

    def remaining(self, t: float) -> float:
        return 0.0


@dataclass(frozen=True)
class Linear(Window):
    """
    The same change at every step, ``remaining(t) = 1 - t``.

    >>> [Linear(0.8)(p) for p in (0.0, 0.25, 1.0)]
    [0.0, 0.2, 0.8]
    """

    def remaining(self, t: float) -> float:
        return 1.0 - t


@dataclass(frozen=True)
class Cubic(Window):
    """
    Fast at first and slow in the end, ``remaining(t) = (1 - t)**3`` (Zhu & Gupta 2017, "To prune, or not to prune", eq. 1).

    >>> [round(Cubic(0.9, start=0.2, end=0.8)(p), 4) for p in (0.0, 0.2, 0.5, 0.8, 1.0)]
    [0.0, 0.0, 0.7875, 0.9, 0.9]
    """

    def remaining(self, t: float) -> float:
        return (1.0 - t) ** 3


@dataclass(frozen=True)
class Cosine(Window):
    """
    Slow at both ends, ``remaining(t) = (1 + cos(pi * t)) / 2`` (Evci et al. 2020, "Rigging the Lottery", section 3, where it
    lets the fraction of rewired weights fall to zero).

    >>> [round(Cosine(initial=0.3)(p), 4) for p in (0.0, 0.5, 1.0)]
    [0.3, 0.15, 0.0]
    """

    def remaining(self, t: float) -> float:
        return (1.0 + math.cos(math.pi * t)) / 2


#: By the name that YAML files use.
SCHEDULES: dict[str, type[Window]] = {"constant": Constant, "linear": Linear, "cubic": Cubic, "cosine": Cosine}


def check_schedule(argument: str, name: str) -> str:
    """
    :param argument: Name of the argument, for the error.
    :param name: What a user gave as the name of a schedule.
    :return: The same name
    :raises ValueError: if there is no such schedule
    """
    if not isinstance(name, str) or name not in SCHEDULES:
        raise ValueError(f"unknown {argument}='{name}': use one of {', '.join(SCHEDULES)}")
    return name
