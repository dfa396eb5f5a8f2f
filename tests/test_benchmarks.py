"""The benchmarks say what they measured: nothing half done is taken for a result."""

import time

import numpy as np
import pytest


@pytest.fixture
def inference(scripts):
    return scripts("inference")


def test_t_intervals(scripts):
    """The quantiles of the usual tables (NIST/SEMATECH e-Handbook, 1.3.6.7.2), and intervals by hand."""
    intervals = scripts("intervals")
    t_quantile, half_width = intervals.t_quantile, intervals.half_width
    mean_interval, difference_interval = intervals.mean_interval, intervals.difference_interval
    for df, expected in ((1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (10, 2.228), (30, 2.042), (100, 1.984)):
        assert t_quantile(df) == pytest.approx(expected, abs=6e-4)
    assert t_quantile(3) < t_quantile(2.5) < t_quantile(2)
    values = np.array([1.0, 2.0, 3.0])
    assert mean_interval(values) == pytest.approx([2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5], abs=0.01)
    assert half_width(np.stack([values, values], axis=1)).tolist() == [half_width(values)] * 2
    # Equal variances and sizes: Welch's degrees of freedom are 2 n - 2.
    half = 2.776 * (2 / 3) ** 0.5
    assert difference_interval(values + 5, values) == pytest.approx([5 - half, 5 + half], abs=0.01)
    assert difference_interval(np.ones(3), np.zeros(3)) == [1.0, 1.0]
    assert mean_interval(np.ones(1)) is difference_interval(np.ones(1), values) is None
    assert np.isnan(half_width(np.ones((1, 4)))).all()


def test_sparse_contestants_act_like_their_model(inference):
    """Every row of a table is measured, or skipped with a reason; the one that is compared with is the stock model."""
    rng = np.random.default_rng(0)
    model, observations = inference.load_actor(None, rng)
    rows = inference.make_rows(model, observations, (0.95,))
    assert rows.predicts["sb3"] == model.predict
    whos = ("onnx_float32", "onnx_int8", "litert_float32", "litert_int8", "numpy", "ctypes", "portable", "vbmi")
    expected = {"sb3", "0/torch"} | {f"95/{who}" for who in whos}
    assert set(rows.predicts) | set(rows.skipped) == expected and not set(rows.predicts) & set(rows.skipped)
    assert "95/numpy" in rows.predicts and all(rows.skipped.values())
    assert rows.networks["95"]["sparsity"] == pytest.approx(0.95, abs=1e-4) and max(rows.errors.values()) < 0.05
    times = inference.measure(rows, rounds=2, calls=3, rng=rng)
    assert all(values.shape == (2, 3) and (values > 0).all() for values in times.values())
    assert set(inference.speedups(times)) == set(rows.predicts) - {"sb3"}


def test_speedups_are_taken_within_a_round(inference):
    times = {
        "sb3": np.array([[10.0, 10.0, 99.0], [20.0, 20.0, 20.0]]),
        "95/numpy": np.array([[1.0, 1.0, 1.0], [4.0, 4.0, 4.0]]),
    }
    assert inference.speedups(times)["95/numpy"].tolist() == [10.0, 5.0]


def test_a_contestant_that_acts_differently_is_no_result(inference):
    observations = np.random.default_rng(0).normal(size=(32, 3))
    rows = inference.Rows(observations)
    with pytest.raises(RuntimeError, match="acts differently"):
        rows.add("95/wrong", lambda: lambda observation, deterministic: (observation[::-1], None), observations)

    def missing():
        raise ImportError("not installed")

    rows.add("95/missing", missing, observations)
    assert rows.skipped == {"95/missing": "not installed"} and not rows.predicts


def test_late_ticks_are_all_counted(inference):
    """A call that takes long is late itself, and so is every tick that ends before it does."""

    def slow(observation, deterministic):
        time.sleep(0.025)

    assert inference.count_late(slow, np.zeros((1, 2)), ticks=10, period=10_000_000) == 10
    assert inference.count_late(lambda observation, deterministic: None, np.zeros((1, 2)), ticks=5, period=100_000_000) == 0


def test_an_agent_is_never_made_denser(scripts, inference):
    """A trained agent is measured from its own sparsity on; what it has lost stays lost."""
    model, observations = inference.load_actor(None, np.random.default_rng(0))
    sparse_twin = scripts("contestants").sparse_twin
    rows = inference.make_rows(sparse_twin(model, 0.9), observations, (0.8, 0.9))
    assert rows.skipped["80"] == "the agent is 90.0% sparse already"
    assert rows.networks["90"]["sparsity"] == pytest.approx(0.9, abs=1e-4) and "80/numpy" not in rows.predicts


@pytest.mark.slow
def test_returns_of_an_export(scripts, tmp_path):
    """An export of float weights plays the same episodes; ratios come with their intervals."""
    returns = scripts("returns")
    found = returns.measure(returns.train(tmp_path, 150), episodes=2, seed=0)
    assert set(found["returns"]) == {"SB3 model", *returns.FORMS}
    np.testing.assert_allclose(found["returns"]["float"], found["returns"]["SB3 model"], rtol=1e-3)
    share, (low, high) = returns.ratio(np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.random.default_rng(0))
    assert share == low == high == 1


def test_published_networks_take_the_bytes_that_are_reported(scripts):
    """Packed weights alone, as the two papers' raw results give them."""
    sizes = scripts("sizes")
    assert [point["nbytes"] for point in sizes.published("tqc-Hopper-v4")] == [176]
    assert [point["nbytes"] for point in sizes.published("sac-HalfCheetah-v4")] == [19_328, 62_496]
    assert sizes.split("64x32-95") == ([64, 32], 0.95)


def test_students_that_are_not_there_are_left_out(scripts, tmp_path):
    """A result that is there is read again, and nothing is made when nothing is to be made."""
    students = scripts("students")
    students.keep({"model": 1}, tmp_path / "sac-Hopper-v4" / "a.json")
    work = [(tmp_path / "sac-Hopper-v4.zip", {"name": name}) for name in ("a", "b")]
    found = students.run_cells("no script", work, lambda cell: cell["name"], tmp_path, missing=False)
    assert found == {"sac-Hopper-v4": [({"name": "a"}, {"model": 1})]}
    with pytest.raises(RuntimeError, match="sac-Hopper-v4 b failed"):
        students.run_cells("no script", work, lambda cell: cell["name"], tmp_path)


def test_ratios_of_students(scripts):
    """The mean of all seeds over the teacher's; a student that always plays alike has an interval of one point."""
    ratio = scripts("students").ratio
    assert ratio(np.full(4, 2.0), np.full((3, 4), 1.0), np.random.default_rng(0)) == (0.5, [0.5, 0.5])
    share, (low, high) = ratio(np.array([1.0, 3.0]), np.array([[1.0, 1.0], [3.0, 3.0]]), np.random.default_rng(0))
    assert share == 1.0 and low < 1.0 < high
