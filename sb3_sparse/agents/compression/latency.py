"""The time of single calls, of a model and of its exported policy in every backend."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
import torch as th
from numpy.typing import NDArray

from sb3_sparse.agents.observations import Observation, length, take
from sb3_sparse.table import format_table

#: Rounds of a measurement, timed calls of each contestant per round, and untimed calls before them.
_ROUNDS, _CALLS, _WARM = 9, 200, 20


@dataclass(frozen=True)
class Latency:
    """
    Times of one call, in microseconds.

    :param times: Times of all calls by contestant, ``[rounds * calls]``; the others are compared with the first.
    """

    times: Mapping[str, NDArray[np.float64]]

    def to_dict(self) -> dict[str, dict[str, float]]:
        """
        :return: By contestant: median, 99th percentile, and how many times faster it is than the first
        """
        medians = {name: float(np.median(times)) for name, times in self.times.items()}
        first = next(iter(medians.values()))
        return {
            name: {"median": medians[name], "p99": float(np.percentile(times, 99)), "speedup": first / medians[name]}
            for name, times in self.times.items()
        }

    def __str__(self) -> str:
        rows = [("latency, one observation", "median us", "p99 us", "SB3 / this")]
        for name, row in self.to_dict().items():
            rows.append((name, f"{row['median']:.2f}", f"{row['p99']:.2f}", f"{row['speedup']:.1f}"))
        return format_table(rows)


def measure_latency(contestants: Mapping[str, Callable[[Observation], object]], observations: Observation) -> Latency:
    """
    Time single calls, in one process and thread. The contestants take turns, in a new random order in every round, so that a
    busy machine slows all alike.

    :param contestants: Policies by name; the others are compared with the first.
    :param observations: ``[n, ...]``, or a dict of them, used one after the other.
    :return: The times of the calls
    """
    inputs = [take(observations, index) for index in range(min(1024, length(observations)))]
    times: dict[str, list[int]] = {name: [] for name in contestants}
    order = np.random.default_rng(0)
    with one_thread():
        for _ in range(_ROUNDS):
            for name in order.permutation(list(contestants)):
                times[name] += _time(contestants[name], inputs)
    return Latency({name: np.array(values) / 1e3 for name, values in times.items()})


def _time(act: Callable[[Observation], object], inputs: list[Observation]) -> list[int]:
    times = []
    for call in range(_WARM + _CALLS):
        observation = inputs[call % len(inputs)]
        start = perf_counter_ns()
        act(observation)
        times.append(perf_counter_ns() - start)
    return times[_WARM:]


@contextmanager
def one_thread() -> Iterator[None]:
    """
    :return: A context in which torch has one thread
    """
    threads = th.get_num_threads()
    th.set_num_threads(1)
    try:
        yield
    finally:
        th.set_num_threads(threads)
