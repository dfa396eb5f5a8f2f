"""The engine on offline algorithms: it computes what they compute without it, and everybody who looks at the model sees it."""

import pytest
from stable_baselines3.common.logger import configure

from sb3_sparse import EngineCallback, OneShotPruningCallback
from sb3_sparse.engine.learner import engage, release
from sb3_sparse.engine.session import Session
from sb3_sparse.engine.support import find_update
from sb3_sparse.engine.updates import UPDATES
from sb3_sparse.offline import ALGORITHMS
from tests.invariants import check, check_targets
from tests.offline import CASES
from tests.test_engine import distance, state

SPARSITIES = [0.0, 0.8]


def build(name, *, sparsity=0.0, updates=30, **kwargs):
    """A model that has been trained without the engine for a while."""
    model = CASES[name].make(policy_kwargs={"net_arch": [40, 27]}, **kwargs)
    model.set_logger(configure(None, []))
    callback = [OneShotPruningCallback("all", sparsity, saliency="random", targets="mask")] if sparsity else []
    return model.learn(updates, callback=callback, log_interval=None)


def losses(model):
    """The mean losses since the last entry of the log."""
    means = {name: float(total) / count for name, (total, count) in model._means._losses.items()}
    model._means._losses.clear()
    return means


def train(model, count, *, engine):
    """Updates, and their mean losses."""
    losses(model)
    if engine:
        engage(model, Session(model, find_update(model)))
    try:
        model.train(count, model.batch_size)
    finally:
        release(model)
    return losses(model)


def test_every_algorithm_is_there():
    assert set(ALGORITHMS.values()) <= UPDATES.keys()


@pytest.mark.parametrize("batch_size", [64, 100])
@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("name", CASES)
def test_one_update_equals_torch(name, sparsity, batch_size):
    models = [build(name, sparsity=sparsity, batch_size=batch_size) for _ in range(2)]
    plain, engine = (train(model, 1, engine=engine) for model, engine in zip(models, (False, True), strict=True))
    assert engine.keys() == plain.keys() == set(CASES[name].networks)
    assert engine == pytest.approx(plain, rel=1e-5)
    deviation, where = distance(*map(state, models))
    assert deviation < 1e-5, where


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("name", CASES)
def test_a_run_equals_torch(name, sparsity):
    plain, engine = (build(name, sparsity=sparsity) for _ in range(2))
    plain.learn(30, reset_num_timesteps=False, log_interval=None)
    engine.learn(30, callback=EngineCallback(strict=True), reset_num_timesteps=False, log_interval=None)
    assert type(engine) is type(plain) and engine._n_updates == plain._n_updates == 60
    assert losses(engine) == pytest.approx(losses(plain), rel=1e-3)
    check(engine)
    check_targets(engine)
    deviation, where = distance(*map(state, (plain, engine)))
    assert deviation < 1e-3, where
