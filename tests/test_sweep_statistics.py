"""Statistics of reports, against rliable, scipy and algebra."""

import numpy as np
import pytest

from sb3_sparse.sweeps.report.statistics import (
    estimate_difference,
    estimate_improvement,
    estimate_iqm,
    estimate_mean,
    interquartile_mean,
    t_quantile,
)

# The matrices [runs, tasks] of rliable's own tests.
X = np.array([[1.0, 2.0], [2.0, 2.0], [1.0, 1.0], [2.0, 1.0]])
Y = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])


def samples():
    """Ten and eight seeds of six tasks."""
    first = np.random.RandomState(0).normal(size=(10, 6)).round(2) + np.arange(6)
    second = np.random.RandomState(1).normal(size=(8, 6)).round(2) + np.arange(6) + 0.3
    return list(first.T), list(second.T)


def test_values_of_rliables_own_tests():
    assert estimate_iqm(list(X.T)).value == 1.5
    assert estimate_iqm(list(Y.T)).value == 2.0
    assert estimate_improvement(list(X.T), list(Y.T)).value == pytest.approx(1 / 3)
    x = np.arange(80.0).reshape(5, 16)
    assert estimate_iqm(list(x.T)).value == 39.5
    assert estimate_improvement(list(x.T), list(x[::-1].T)).value == 0.5


def test_intervals_of_rliable():
    """rliable 1.2.0 on the same numbers, two random seeds: the bounds differ by 0.003 between them."""
    first, second = samples()
    iqm, improvement = estimate_iqm(first, draws=20_000), estimate_improvement(first, second)
    assert iqm.value == pytest.approx(2.507333333333334)
    assert iqm.interval == pytest.approx((2.254, 2.758), abs=0.01)
    assert estimate_iqm(second).value == pytest.approx(2.72)
    assert improvement.value == pytest.approx(0.47083333333333327)
    assert improvement.interval == pytest.approx((0.360, 0.584), abs=0.012)


def test_values_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    first, second = samples()
    for n in range(1, 12):
        scores = np.concatenate(first)[:n]
        assert float(interquartile_mean(scores)) == pytest.approx(stats.trim_mean(scores, 0.25))
    a, b = first[0], second[0] - 0.5
    pairs = len(a) * len(b)
    assert estimate_improvement([a], [b]).value == pytest.approx(stats.mannwhitneyu(a, b).statistic / pairs)
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert estimate_difference(a, b).interval == pytest.approx((welch.low, welch.high), abs=1e-4)
    student = stats.ttest_1samp(a, 0.0).confidence_interval()
    assert estimate_mean(a).interval == pytest.approx((student.low, student.high), abs=1e-4)
    for df in (1, 1.5, 2, 4.2, 9, 30, 200):
        assert t_quantile(df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-4)


def test_a_control_of_few_seeds_widens_the_interval():
    """Scores over the mean of a control: in large samples the ratio's deviation is that of the delta method."""
    rng = np.random.default_rng(0)
    scores, control = 0.8 + 0.1 * rng.normal(size=400), 1.0 + 0.2 * rng.normal(size=100)
    control /= control.mean()
    known, resampled = (estimate_iqm([scores], dense) for dense in (None, [control]))
    assert known.value == pytest.approx(resampled.value)
    own, other = (known.interval[1] - known.interval[0]) / 2, 1.96 * known.value * control.std() / 10
    assert np.ptp(resampled.interval) / 2 == pytest.approx(np.hypot(own, other), rel=0.08)
    assert estimate_iqm([scores], [np.array([-0.5, 2.5])]) == (known.value, None)
    assert estimate_iqm([scores], [np.ones(1)]).interval is None


def test_seeds_are_drawn_within_their_task():
    """Two tasks at 0 and 100: a bootstrap that mixed them would move the mean by several units."""
    rng = np.random.default_rng(0)
    strata = [rng.normal(level, 1.0, size=40) for level in (0.0, 100.0)]
    low, high = estimate_improvement(strata, [np.full(40, -1e9), np.full(40, 100.0)]).interval
    # Certain on one task, a share of 40 seeds on the other, whose standard deviation is known.
    share = float((strata[1] > 100.0).mean())
    half = 1.96 * np.sqrt(share * (1.0 - share) / 40) / 2
    assert (low, high) == pytest.approx(((1 + share) / 2 - half, (1 + share) / 2 + half), abs=0.02)


def test_what_has_no_interval():
    """One seed says nothing of the spread, and a task with one seed would look certain."""
    one, two = np.array([1.0]), np.array([1.0, 3.0])
    assert estimate_mean(one) == (1.0, None)
    assert estimate_difference(two, one) == (1.0, None)
    assert estimate_iqm([two, one]).interval is None
    assert estimate_improvement([two], [one]).interval is None
    assert estimate_difference(np.full(3, 500.0), np.full(3, 500.0)) == (0.0, (0.0, 0.0))


def test_the_same_scores_have_the_same_interval():
    first, _ = samples()
    assert estimate_iqm(first) == estimate_iqm(first)
