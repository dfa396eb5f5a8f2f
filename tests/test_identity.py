"""What is not asked for does not change: at sparsity 0, and until the first weight is pruned, training is stock SB3's."""

import pytest
import torch as th

from sb3_sparse import GradualPruningCallback, OneShotPruningCallback
from tests.algorithms import CASES

STEPS = 80


def parameters_after(model, steps, callback=None):
    model.learn(steps, callback=callback)
    return {name: value.clone() for name, value in model.policy.state_dict().items() if not name.endswith("mask")}


def expect_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert th.equal(value, other[name]), name


@pytest.mark.parametrize("name", CASES)
def test_sparsity_zero(name):
    case = CASES[name]
    stock = parameters_after(case.make(), STEPS)
    expect_equal(stock, parameters_after(case.make(), STEPS, GradualPruningCallback("all", 0.0, update_freq=10)))
    expect_equal(stock, parameters_after(case.make(), STEPS, OneShotPruningCallback("all", 0.0, saliency="random")))
    expect_equal(stock, parameters_after(case.make(True), STEPS))
    expect_equal(stock, parameters_after(case.make(True, policy_kwargs={"sparsity": 0.0}), STEPS))


@pytest.mark.parametrize("name", ["sac", "td3", "dqn", "ppo"])
def test_before_the_first_weight_is_pruned(name):
    stock = parameters_after(CASES[name].make(), STEPS)
    expect_equal(stock, parameters_after(CASES[name].make(), STEPS, GradualPruningCallback("all", 0.9, start=200, end=300)))


def test_a_run_is_deterministic():
    runs = [
        parameters_after(CASES["sac"].make(), STEPS, GradualPruningCallback("all", 0.9, saliency="random")) for _ in range(2)
    ]
    expect_equal(*runs)
