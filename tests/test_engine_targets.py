"""Target networks with weights of their own, quantized networks, and DQN's target in the engine: as SB3 computes them."""

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_sparse import EngineCallback, OneShotPruningCallback, QATCallback, RewiringCallback
from sb3_sparse.engine.learner import Learner
from sb3_sparse.engine.session import Session
from sb3_sparse.engine.support import find_update, why_not_now
from sb3_sparse.nn import find_follower, find_networks, find_twins
from tests.test_engine import build, distance, state, train

ALGORITHMS = ["sac", "td3", "tqc", "dqn", "qrdqn"]
SHALLOW = {"policy_kwargs": {"net_arch": [40, 27]}}


def callbacks(targets, sparsity, update_freq=20):
    pruning = OneShotPruningCallback("all", sparsity, saliency="random", targets="mask")
    return [pruning, RewiringCallback("all", fraction=0.3, update_freq=update_freq, targets=targets, seed=3)]


def rewired(name, targets, sparsity=0.8):
    """A model that SB3 has trained and rewired, whose target network has weights where its network has none."""
    model = build(name)
    return model.learn(45, callback=callbacks(targets, sparsity), reset_num_timesteps=False, log_interval=1000)


def places(model):
    return {name: tensor != 0 for name, tensor in model.policy.state_dict().items() if "_target" in name}


def outside(model):
    """How many weights of the target network are where the network has none."""
    twins = find_twins(model.policy)
    online = [layer for layers in find_networks(model.policy).values() for layer in layers.values()]
    return sum(int((twin.weight[layer.weight == 0] != 0).sum()) for layer in online for twin in twins.get(layer, []))


class Reasons(BaseCallback):
    """Why the engine has left gradient steps to SB3."""

    def _on_step(self):
        if isinstance(self.model, Learner) and self.model._session.reason:
            self.reasons.add(self.model._session.reason)
        return True

    def __init__(self):
        super().__init__()
        self.reasons = set()


@pytest.mark.parametrize("sparsity", [0.55, 0.8])
@pytest.mark.parametrize("targets", ["topk", "polyak"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_one_update_equals_sb3(name, targets, sparsity):
    models = [rewired(name, targets, sparsity) for _ in range(2)]
    assert outside(models[0]) > 20
    assert why_not_now(models[1]) is None
    count = 2 if name == "td3" else 1
    for model, engine in zip(models, (False, True), strict=True):
        train(model, count, engine=engine)
    deviation, where = distance(*map(state, models))
    assert deviation < 1e-5, where


@pytest.mark.parametrize("sparsity", [0.3, 0.55, 0.9])
@pytest.mark.parametrize("targets", ["topk", "polyak"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_run_with_rewirings_equals_sb3(name, targets, sparsity):
    """The same places after each rewiring and at the end, and values to the rounding that training makes larger."""
    models = [build(name), build(name)]
    reasons = Reasons()
    for model, extra in zip(models, ([], [EngineCallback(strict=True), reasons]), strict=True):
        th.manual_seed(2)
        np.random.seed(2)
        model.learn(
            60, callback=[*callbacks(targets, sparsity, 25), *extra], reset_num_timesteps=False, log_interval=1000
        )
    assert not reasons.reasons
    stock, engine = models
    for name, there in places(stock).items():
        assert th.equal(there, places(engine)[name]), name
    deviation, where = distance(*map(state, models))
    assert deviation < 1e-2, where
