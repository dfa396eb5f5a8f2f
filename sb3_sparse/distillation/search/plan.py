"""How many students are trained for how long: successive halving, and what becomes of it when there is less time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from sb3_sparse.distillation.learning.training import BLOCK
from sb3_sparse.distillation.plan import ROUNDS

#: The shortest training, of which others are multiples.
UNIT = ROUNDS * BLOCK
#: How much longer the trainings of a rung are than those before, how many fewer, and how many rungs there are.
_LONGER, _FEWER, _RUNGS = 4, 3, 3
#: How many fewer there are for trainings of half the length.
_FEWER_IN_TIME = 0.7


@dataclass(frozen=True)
class Rung:
    """
    Trainings of one length.

    :param count: How many students there are.
    :param updates: Gradient updates of each.
    """

    count: int
    updates: int


def make_rungs(shapes: int, updates: int) -> list[Rung]:
    """
    Successive halving (Jamieson and Talwalkar 2016): of every three students, one goes on, for four times as long.

    >>> [(rung.count, rung.updates) for rung in make_rungs(15, 200_000)]
    [(15, 10000), (5, 50000), (2, 200000)]

    :param shapes: Number of students at first.
    :param updates: Gradient updates of the last ones, a multiple of 5,000.
    :return: The rungs, the shortest first
    """
    lengths = [max(UNIT, updates // _LONGER ** (_RUNGS - 1 - index) // UNIT * UNIT) for index in range(_RUNGS)]
    counts = [min(shapes, max(2, ceil(shapes / _FEWER**index))) for index in range(_RUNGS)]
    return _merge([Rung(*pair) for pair in zip(counts, lengths, strict=True)])


def fit_into(rungs: Sequence[Rung], seconds: float, per_update: float, jobs: int) -> list[Rung]:
    """
    >>> fit_into(make_rungs(15, 200_000), 100.0, 1e-3, 2)
    [Rung(count=10, updates=5000), Rung(count=3, updates=10000), Rung(count=2, updates=50000)]

    :param rungs: Rungs.
    :param seconds: Seconds that there are for them.
    :param per_update: Seconds that a training takes, over its updates.
    :param jobs: How many trainings run at once.
    :return: The same, or shorter trainings of fewer students: at least one rung with a student for each process
    """
    length = count = 1.0
    fitting = list(rungs)
    while _seconds(fitting, per_update, jobs) > seconds:
        if length * rungs[-1].updates <= UNIT and count * rungs[0].count <= jobs:
            return fitting[:1]
        # In turns: a student that is trained for too short a time says as little as a student that is not there.
        length, count = (length / 2, count) if length > count**2 / 2 else (length, count * _FEWER_IN_TIME)
        fitting = _merge(
            [
                Rung(max(min(jobs, rung.count), int(rung.count * count)), max(UNIT, int(rung.updates * length) // UNIT * UNIT))
                for rung in rungs
            ]
        )
    return fitting


def _merge(rungs: Sequence[Rung]) -> list[Rung]:
    """Of rungs of the same length, the first says it all."""
    return [rung for index, rung in enumerate(rungs) if index == 0 or rung.updates > rungs[index - 1].updates]


def _seconds(rungs: Sequence[Rung], per_update: float, jobs: int) -> float:
    return sum(ceil(rung.count / jobs) * rung.updates * per_update for rung in rungs)
