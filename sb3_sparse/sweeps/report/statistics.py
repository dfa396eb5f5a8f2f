"""
Statistics of returns over seeds and tasks.

Interquartile means, stratified bootstrap intervals and probabilities of improvement are those of Agarwal et al., "Deep
Reinforcement Learning at the Edge of the Statistical Precipice" (NeurIPS 2021), as their archived package rliable computes
them. Scores come as **strata**, one array ``[seeds]`` for each task; unlike there, a task may have fewer seeds than another,
and a control of few seeds is resampled as well.

The intervals of means and of their differences are Student's and Welch's: a bootstrap over few seeds is hardly more than their
range, and too narrow. All intervals are 95 % intervals.
"""

from collections.abc import Callable, Sequence
from functools import cache
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Strata = Sequence[Floats]

#: Resamples of a bootstrap, the number that rliable takes for its profiles.
DRAWS = 2000


class Estimate(NamedTuple):
    """
    :param value: An estimate.
    :param interval: Its lower and upper bound; None where seeds are too few for one.
    """

    value: float
    interval: tuple[float, float] | None


def interquartile_mean(scores: Floats) -> Floats:
    """
    The mean of the middle half: a quarter of the scores, rounded down, is left out at each end.

    >>> float(interquartile_mean(np.array([-100.0, 1.0, 2.0, 300.0])))
    1.5

    :param scores: Scores, shape ``[..., n]``.
    :return: Over the last axis, shape ``[...]``
    """
    cut = scores.shape[-1] // 4
    middle: Floats = np.sort(scores, axis=-1)[..., cut : scores.shape[-1] - cut].mean(axis=-1)
    return middle


def estimate_iqm(strata: Strata, controls: Strata | None = None, draws: int = DRAWS) -> Estimate:
    """
    :param strata: Scores of each task.
    :param controls: Scores of each task's control, whose mean has score 1: seeds of their own, so they are resampled as well.
        None where score 1 is a fixed return.
    :param draws: Number of resamples.
    :return: Interquartile mean over all tasks and seeds, and its stratified bootstrap interval over seeds; without an interval
        where the seeds of a control are not all above score 0, because a resampled control can be 0
    """

    def pooled(resampled: Strata, dense: Strata | None = None) -> Floats:
        scales = [1.0] * len(resampled) if dense is None else [each.mean(axis=-1, keepdims=True) for each in dense]
        scaled = [each / scale for each, scale in zip(resampled, scales, strict=True)]
        return interquartile_mean(np.concatenate(scaled, axis=-1))

    if controls is None:
        return _bootstrap(pooled, (strata,), draws)
    if min(float(each.min()) for each in controls) <= 0.0:
        return Estimate(float(pooled(strata)), None)
    return _bootstrap(pooled, (strata, controls), draws)


def estimate_improvement(first: Strata, second: Strata, draws: int = DRAWS) -> Estimate:
    """
    The probability that a seed of the first is better than one of the second on the same task, ties by halves (Mann and
    Whitney's U over the number of pairs), averaged over tasks.

    :param first: Scores of each task.
    :param second: Scores of the same tasks.
    :param draws: Number of resamples.
    :return: It and its stratified bootstrap interval, for which both are resampled independently
    """

    def probability(left: Strata, right: Strata) -> Floats:
        tasks = []
        for ours, theirs in zip(left, right, strict=True):
            difference = ours[..., :, None] - theirs[..., None, :]
            tasks.append(((np.sign(difference) + 1.0) / 2.0).mean(axis=(-2, -1)))
        mean: Floats = np.mean(tasks, axis=0)
        return mean

    return _bootstrap(probability, (first, second), draws)


def estimate_mean(values: Floats) -> Estimate:
    """
    :param values: A value per seed.
    :return: Mean and Student's interval
    """
    n = len(values)
    half = t_quantile(n - 1) * float(values.std(ddof=1)) / sqrt(n) if n > 1 else None
    return _around(float(values.mean()), half)


def estimate_difference(values: Floats, control: Floats) -> Estimate:
    """
    :param values: A value per seed.
    :param control: A value per seed of the control, drawn independently.
    :return: Difference of the means, values - control, and Welch's interval, for which the variances may differ
    """
    difference = float(values.mean() - control.mean())
    if min(len(values), len(control)) < 2:
        return Estimate(difference, None)
    first, second = (float(each.var(ddof=1)) / len(each) for each in (values, control))
    if first + second == 0.0:
        return _around(difference, 0.0)
    df = (first + second) ** 2 / (first**2 / (len(values) - 1) + second**2 / (len(control) - 1))
    return _around(difference, t_quantile(df) * sqrt(first + second))


def estimate_difference_to_one(values: Floats, other: float) -> Estimate:
    """
    :param values: A value per seed.
    :param other: The value of one seed of another population, of the same variance.
    :return: Difference of the means, values - other, and Student's interval for samples of n and of one (Crawford and Howell
        1998)
    """
    difference, n = float(values.mean()) - other, len(values)
    if n < 2:
        return Estimate(difference, None)
    return _around(difference, t_quantile(n - 1) * float(values.std(ddof=1)) * sqrt(1 / n + 1))


@cache
def t_quantile(df: float) -> float:
    """
    The number that Student's t exceeds in absolute value with probability 0.05. With t = sqrt(df) tan(a) the density of the
    angle a is proportional to cos(a)**(df - 1), which is summed up on a grid.

    >>> round(t_quantile(9), 3)
    2.262

    :param df: Degrees of freedom, at least 1, also between whole numbers.
    :return: The 97.5 % quantile
    """
    edges = np.linspace(0.0, np.pi / 2, 50_001)
    mass = np.cumsum(np.cos((edges[1:] + edges[:-1]) / 2) ** (df - 1))
    return sqrt(df) * float(np.tan(np.interp(0.95, np.concatenate([[0.0], mass / mass[-1]]), edges)))


def _bootstrap(statistic: Callable[..., Floats], samples: Sequence[Strata], draws: int) -> Estimate:
    """The statistic of strata ``[..., seeds]``, and its percentiles when the seeds of each task are drawn with replacement."""
    value = float(statistic(*samples))
    if any(len(stratum) < 2 for strata in samples for stratum in strata):
        return Estimate(value, None)
    # The same results have the same report.
    rng = np.random.default_rng(0)
    resampled = [[stratum[rng.integers(len(stratum), size=(draws, len(stratum)))] for stratum in strata] for strata in samples]
    low, high = np.quantile(statistic(*resampled), (0.025, 0.975))
    return Estimate(value, (float(low), float(high)))


def _around(value: float, half: float | None) -> Estimate:
    return Estimate(value, None if half is None else (value - half, value + half))
