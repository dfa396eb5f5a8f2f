"""Every schedule by its name, in gradual pruning and for the fraction of a rewiring."""

from itertools import pairwise

import pytest
from stable_baselines3.common.callbacks import BaseCallback

from sb3_sparse import GradualPruningCallback, OneShotPruningCallback, RewiringCallback, summarize
from sb3_sparse.sparsity import SCHEDULES
from tests.algorithms import CASES


class Sparsities(BaseCallback):
    """The sparsity of a network after each step."""

    def _on_training_start(self):
        self.seen = []

    def _on_step(self):
        self.seen.append(summarize(self.model).networks["actor"].sparsity)
        return True


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_gradual_pruning(schedule):
    """At each update the budget of the schedule, to one weight; the final sparsity exactly, whatever the way there."""
    model = CASES["sac"].make()
    watch = Sparsities()
    pruning = GradualPruningCallback("actor", 0.8, start=20, end=60, update_freq=10, initial_sparsity=0.2, schedule=schedule)
    model.learn(70, callback=[pruning, watch])
    expected = SCHEDULES[schedule](0.8, 0.2, 20, 60)
    total = summarize(model).networks["actor"].total
    assert watch.seen[18] == pytest.approx(0.2, abs=0.5 / total)
    for step in (20, 30, 40, 50, 60, 70):
        assert watch.seen[step - 1] == pytest.approx(expected(step), abs=0.5 / total), step


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_window_without_length(schedule):
    """A jump from the initial to the final sparsity."""
    model = CASES["sac"].make()
    watch = Sparsities()
    pruning = GradualPruningCallback("actor", 0.8, start=20, end=20, initial_sparsity=0.2, schedule=schedule)
    model.learn(25, callback=[pruning, watch])
    total = summarize(model).networks["actor"].total
    assert watch.seen[18:20] == pytest.approx([0.2, 0.8], abs=0.5 / total)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rewired_fraction(schedule):
    """Constant, or falling to nothing at the stop; ``churn`` counts the weights that grew where none was."""
    model = CASES["td3"].make()
    rewiring = RewiringCallback("critic", 0.4, 10, fraction_schedule=schedule, stop=60)
    static = OneShotPruningCallback("critic", 0.5, saliency="random", distribution="uniform", targets="topk")
    model.learn(70, callback=[static, rewiring])
    fractions = [rewiring._fraction(step) for step in (0, 10, 20, 30, 40, 50)]
    if schedule == "constant":
        assert fractions == [0.4] * 6
    else:
        assert fractions[0] == 0.4 and rewiring._fraction(60) == 0.0
        assert all(later < earlier for earlier, later in pairwise(fractions))
    churn = [row[1] / row[2] for row in model.sparsity_state["topology"]["critic"]]
    steps = [row[0] for row in model.sparsity_state["topology"]["critic"]]
    assert steps == [30, 40, 50]
    # Rounded down to whole weights, so the last may be none.
    assert churn[0] > 0 and all(moved <= rewiring._fraction(step) for moved, step in zip(churn, steps, strict=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda name: GradualPruningCallback("actor", 0.9, schedule=name),
        lambda name: RewiringCallback("actor", fraction_schedule=name),
    ],
)
def test_unknown_schedule(make):
    with pytest.raises(
        ValueError, match=r"unknown (fraction_)?schedule='exponential': use one of constant, linear, cubic, cosine"
    ):
        make("exponential")
