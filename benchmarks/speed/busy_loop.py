"""A loop of 10 kHz in which a policy has to act: how many of its actions come too late."""

from time import perf_counter_ns
from typing import Any

from numpy.typing import NDArray
from rich.progress import track

from benchmarks.speed.contestants.making import TIERS
from benchmarks.speed.contestants.rows import BASE, Predict, Rows

#: Nanoseconds between two ticks of the busy loop, and how many there are.
PERIOD, TICKS = 100_000, 20_000


def count_late(predict: Predict, observations: NDArray[Any], ticks: int = TICKS, period: int = PERIOD) -> int:
    """
    :param predict: A policy.
    :param observations: What it is given.
    :param ticks: Number of ticks.
    :param period: Nanoseconds between two of them.
    :return: Number of ticks that had no action before the next one
    """
    inputs = list(observations)
    late = tick = 0
    begin = perf_counter_ns()
    while tick < ticks:
        start = begin + tick * period
        while perf_counter_ns() < start:
            pass
        predict(inputs[tick % len(inputs)], deterministic=True)
        periods = (perf_counter_ns() - start) // period
        late += min(periods, ticks - tick)
        tick += max(periods, 1)
    return late


def busy_loop(rows: Rows) -> dict[str, int]:
    """
    :param rows: Contestants of the actor.
    :return: Ticks without an action in time, by name
    """
    names = [BASE, "95/onnx_float32", "95/litert_float32", *(f"95/{tier}" for tier in TIERS)]
    contestants: dict[str, Predict] = {"nothing": lambda observation, deterministic: (observation, None)}
    contestants |= {name: rows.predicts[name] for name in names if name in rows.predicts}
    late = {}
    for name, predict in track(contestants.items(), description="busy loop"):
        late[name] = count_late(predict, rows.observations)
    return late
