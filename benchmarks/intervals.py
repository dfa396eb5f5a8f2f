"""Intervals over seeds, of a mean and of the difference of two."""

from math import nan, sqrt

import numpy as np


def t_quantile(df: float) -> float:
    """
    What Student's t exceeds in absolute value with probability 0.05. With t = sqrt(df) tan(a) the density of the angle a is
    proportional to cos(a)**(df - 1), which is summed up here on a grid.

    :param df: Degrees of freedom, at least 1, also between whole numbers.
    :return: The 97.5 % quantile
    """
    edges = np.linspace(0.0, np.pi / 2, 100_001)
    mass = np.cumsum(np.cos((edges[1:] + edges[:-1]) / 2) ** (df - 1))
    return sqrt(df) * float(np.tan(np.interp(0.95, np.concatenate([[0.0], mass / mass[-1]]), edges)))


def half_width(values: np.ndarray) -> np.ndarray:
    """
    :param values: A value per seed, or several, shape ``[seeds, ...]``.
    :return: t s / sqrt(n), half of the 95 % t interval of the mean over seeds; NaN for a single seed
    """
    n = len(values)
    return t_quantile(n - 1) * values.std(axis=0, ddof=1) / sqrt(n) if n > 1 else np.full(values.shape[1:], nan)


def mean_interval(values: np.ndarray) -> list[float] | None:
    """
    :param values: A value per seed.
    :return: 95 % t interval of the mean, or None for a single seed
    """
    return _interval(float(values.mean()), float(half_width(values))) if len(values) > 1 else None


def difference_interval(values: np.ndarray, control: np.ndarray) -> list[float] | None:
    """
    :param values: A value per seed.
    :param control: A value per seed of what it is compared with, drawn independently.
    :return: 95 % interval of the difference of the means, values - control, by Welch's t (the variances may differ), or
        None where one of them is a single seed
    """
    if min(len(values), len(control)) < 2:
        return None
    difference = float(values.mean() - control.mean())
    first, second = (float(x.var(ddof=1)) / len(x) for x in (values, control))
    if first + second == 0.0:
        return _interval(difference, 0.0)
    df = (first + second) ** 2 / (first**2 / (len(values) - 1) + second**2 / (len(control) - 1))
    return _interval(difference, t_quantile(df) * sqrt(first + second))


def bootstrap(dense: np.ndarray, sparse: np.ndarray) -> tuple[float, list[float]]:
    """
    A percentile bootstrap: over three seeds or so it is little more than their range, and :func:`difference_interval` is
    to be preferred.

    :param dense: Mean return of each dense seed.
    :param sparse: Mean return of each sparse seed.
    :return: Difference of the means, sparse - dense, and its 95 % percentile bootstrap interval over seeds
    """
    rng = np.random.default_rng(0)
    draws = [rng.choice(values, size=(10_000, len(values))).mean(axis=1) for values in (sparse, dense)]
    return float(sparse.mean() - dense.mean()), [round(float(q), 3) for q in np.quantile(draws[0] - draws[1], [0.025, 0.975])]


def _interval(center: float, half: float) -> list[float]:
    return [round(center - half, 2), round(center + half, 2)]
