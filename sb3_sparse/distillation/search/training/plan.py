"""How many students are trained for how long: successive halving, and what becomes of it when there is less time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean

from sb3_sparse.distillation.learning.training import BLOCK
from sb3_sparse.distillation.plan import ROUNDS
from sb3_sparse.distillation.search.results import Result

#: The shortest training, of which others are multiples.
UNIT = ROUNDS * BLOCK
#: How much longer the trainings of a rung are than those before, how many fewer, and how many rungs there are.
_LONGER, _FEWER, _RUNGS = 4, 3, 3
#: How much shorter trainings become at a time, and how many fewer there are.
_SHORTER_IN_TIME, _FEWER_IN_TIME = 0.8, 0.9
#: The share of a training that is done once more for further bits.
_PARTED = 0.35
#: A student that has been trained is trained anew for so many times as long at least.
WORTH = 1.5


@dataclass(frozen=True)
class Rung:
    """
    Trainings of one length.

    :param count: How many students there are.
    :param updates: Gradient updates of each.
    """

    count: int
    updates: int


@dataclass(frozen=True)
class Price:
    """
    How long trainings take.

    :param per_update: Seconds of an update, with the environment steps that come with it.
    :param fixed: Seconds of what follows a training: the export, and the episodes that choices are made by.
    """

    per_update: float
    fixed: float

    def seconds(self, rungs: Sequence[Rung], jobs: int) -> float:
        """
        :param rungs: Rungs.
        :param jobs: How many trainings run at once.
        :return: Seconds that they take
        """
        return sum(ceil(rung.count / jobs) * (rung.updates * self.per_update + self.fixed) for rung in rungs)


def measure_price(results: Sequence[Result], bits: float) -> Price:
    """
    :param results: What trainings have come to.
    :param bits: In how many bits the next students are, on average.
    :return: How long the longest ones took
    """
    longest = max(result.updates for result in results)
    results = [result for result in results if result.updates == longest]
    policies = [policy for result in results for policy in result.policies]
    updates = longest * sum(_lessons(len(result.policies)) for result in results)
    per_update = sum(each.training for each in policies) / updates
    return Price(per_update * _lessons(bits), fmean(each.exporting for each in policies) * bits)


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


def fit_into(plan: Sequence[Rung], seconds: float, price: Price, jobs: int, trained: int = 0) -> list[Rung]:
    """
    What is left of a plan, in the time that is left: all of it, or shorter trainings of fewer students. A rung whose students
    would be trained for less than half as long again as others have been is left out.

    >>> plan, price = make_rungs(15, 200_000), Price(per_update=1e-3, fixed=1.0)
    >>> fit_into(plan, 200.0, price, 2)
    [Rung(count=10, updates=5000), Rung(count=3, updates=25000), Rung(count=2, updates=100000)]
    >>> fit_into(plan, 1000.0, price, 2, trained=50_000)
    [Rung(count=2, updates=200000)]

    :param plan: The rungs that were planned, the shortest first.
    :param seconds: Seconds that there are for them.
    :param price: How long they take.
    :param jobs: How many trainings run at once.
    :param trained: Gradient updates of the longest trainings that have been.
    :return: The rungs to train, each with a student for each process at least; none if there is no time for that
    """
    length = count = 1.0
    plan = [rung for rung in plan if rung.updates > trained]
    while plan:
        rungs = _merge(
            [
                Rung(max(min(jobs, rung.count), int(rung.count * count)), max(UNIT, int(rung.updates * length) // UNIT * UNIT))
                for rung in plan
            ]
        )
        rungs = [rung for rung in rungs if rung.updates >= WORTH * trained]
        if price.seconds(rungs, jobs) <= seconds:
            return rungs
        if length * plan[-1].updates <= UNIT and count * plan[0].count <= jobs:
            break
        # In turns: a student that is trained for too short a time says as little as a student that is not there.
        length, count = (length * _SHORTER_IN_TIME, count) if length > count**2 else (length, count * _FEWER_IN_TIME)
    return []


def fill(seconds: float, price: Price, jobs: int, longest: int) -> list[Rung]:
    """
    What to do with time in which nothing that was planned fits any more: to train further students, for as long as others have
    been, or for as long as there is time.

    >>> fill(100.0, Price(per_update=1e-3, fixed=1.0), 1, 40_000), fill(40.0, Price(per_update=1e-3, fixed=1.0), 1, 40_000)
    ([Rung(count=2, updates=40000)], [Rung(count=1, updates=35000)])

    :param seconds: Seconds that there are.
    :param price: How long trainings take.
    :param jobs: How many of them run at once.
    :param longest: Gradient updates of the longest trainings so far.
    :return: A rung; nothing if the time is too short
    """
    updates = min(longest, int((seconds - price.fixed) / max(price.per_update, 1e-9)) // UNIT * UNIT)
    if updates < UNIT:
        return []
    return [Rung(jobs * int(seconds / price.seconds([Rung(jobs, updates)], jobs)), updates)]


def is_cut(plan: Sequence[Rung], done: Sequence[Rung]) -> bool:
    """
    :param plan: What was planned.
    :param done: What was trained.
    :return: Whether some of the plan was not
    """
    return any(sum(each.count for each in done if each.updates == rung.updates) < rung.count for rung in plan)


def _lessons(bits: float) -> float:
    """How many times as long a training in so many bits takes as one in one."""
    return 1 + _PARTED * (bits - 1)


def _merge(rungs: Sequence[Rung]) -> list[Rung]:
    """Of rungs of the same length, the first says it all."""
    return [rung for index, rung in enumerate(rungs) if index == 0 or rung.updates > rungs[index - 1].updates]
