"""
Contestants that take turns in an order that is drawn anew in every round, so that a busy machine slows all alike. What is
compared is compared within a round: a ratio is the median over the rounds.
"""

import os
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

#: By contestant: one value per round.
Rounds = dict[str, NDArray[np.float64]]


def pin() -> int | None:
    """
    Stay on one CPU, the last of those that this process may use, and so do all processes that it starts.

    :return: How many CPUs it may use now; None where the system cannot say
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return len(os.sched_getaffinity(0))


def take_turns(
    contestants: Mapping[str, Callable[[], float]], rounds: int, rng: np.random.Generator, description: str
) -> Rounds:
    """
    :param contestants: By name, what takes a turn and says how many seconds each of its steps took.
    :param rounds: Number of rounds in which each has its turn.
    :param rng: Source of the order of turns.
    :param description: What to show meanwhile.
    :return: Seconds by contestant, shape ``[rounds]``
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in track(range(rounds), description=description):
        for name in rng.permutation(list(contestants)):
            times[name].append(contestants[name]())
    return {name: np.array(values) for name, values in times.items()}


def interval(values: NDArray[np.float64], rng: np.random.Generator) -> list[float]:
    """
    :param values: One ratio per round.
    :param rng: Source of the bootstrap.
    :return: 95 % percentile bootstrap interval of the median
    """
    medians = np.median(rng.choice(values, size=(2000, len(values))), axis=1)
    return [round(float(q), 4) for q in np.quantile(medians, [0.025, 0.975])]


def summarize(ratios: Mapping[str, NDArray[np.float64]], rng: np.random.Generator) -> dict[str, dict[str, object]]:
    """
    :param ratios: Ratios by name, one per round.
    :param rng: Source of the bootstrap.
    :return: Their medians as ``ratios``, and the ``intervals`` of these
    """
    return {
        "ratios": {name: round(float(np.median(values)), 4) for name, values in ratios.items()},
        "intervals": {name: interval(values, rng) for name, values in ratios.items()},
    }
