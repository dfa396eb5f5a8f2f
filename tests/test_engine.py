"""The engine: every algorithm computes what SB3 computes, and everybody who looks at the model sees it."""

import numpy as np
import pytest
import torch as th
from sb3_contrib import QRDQN, TQC
from stable_baselines3 import DDPG, DQN, SAC, TD3
from stable_baselines3.common.logger import configure

from sb3_sparse import EngineCallback, OneShotPruningCallback
from sb3_sparse.engine.learner import engage, release
from sb3_sparse.engine.session import Session
from sb3_sparse.engine.support import find_update
from sb3_sparse.engine.updates import UPDATES
from sb3_sparse.nn import find_optimizers

MODELS = {
    "sac": (SAC, "Pendulum-v1", {}),
    "sac_fixed": (SAC, "Pendulum-v1", {"ent_coef": 0.1, "target_update_interval": 2}),
    "td3": (TD3, "Pendulum-v1", {}),
    "ddpg": (DDPG, "Pendulum-v1", {}),
    "tqc": (TQC, "Pendulum-v1", {}),
    "dqn": (DQN, "CartPole-v1", {"target_update_interval": 50}),
    "qrdqn": (QRDQN, "CartPole-v1", {"target_update_interval": 50}),
}


def build(name, *, sparsity=0.0, steps=150, **kwargs):
    """A model that SB3 has trained for a while."""
    algorithm, env, settings = MODELS[name]
    settings = {"policy_kwargs": {"net_arch": [40, 27]}, **settings, **kwargs}
    model = algorithm("MlpPolicy", env, seed=0, learning_starts=50, device="cpu", buffer_size=1000, **settings)
    model.set_logger(configure(None, []))
    callback = [OneShotPruningCallback("all", sparsity, saliency="random", targets="mask")] if sparsity else []
    return model.learn(steps, callback=callback, log_interval=1000)


def state(model):
    """Every number that training changes."""
    numbers = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
    optimizers = find_optimizers(model.policy)
    if getattr(model, "ent_coef_optimizer", None) is not None:
        optimizers.append(model.ent_coef_optimizer)
        numbers["log_ent_coef"] = model.log_ent_coef.detach().clone()
    for i, optimizer in enumerate(optimizers):
        for j, moments in enumerate(optimizer.state.values()):
            numbers |= {f"{i}.{j}.{key}": value.clone() for key, value in moments.items()}
    return numbers


def train(model, count, *, engine, batch_size=64):
    """Gradient steps from one seed, and the log."""
    th.manual_seed(1)
    np.random.seed(1)
    if engine:
        engage(model, Session(model, find_update(model)))
    try:
        model.train(count, batch_size)
    finally:
        release(model)
    return {name: value for name, value in model.logger.name_to_value.items() if name.startswith("train/")}


def distance(a, b):
    """The largest relative distance of two states, and where it is."""
    assert a.keys() == b.keys()
    return max((float((a[k] - b[k]).norm() / a[k].norm().clamp(min=1e-12)), k) for k in a)


def test_every_update_is_tested():
    assert {algorithm for algorithm, *_ in MODELS.values()} == set(UPDATES)


@pytest.mark.parametrize("batch_size", [64, 100])
@pytest.mark.parametrize("sparsity", [0.0, 0.8])
@pytest.mark.parametrize("name", MODELS)
def test_one_update_equals_sb3(name, sparsity, batch_size):
    models = [build(name, sparsity=sparsity) for _ in range(2)]
    count = 2 if name == "td3" else 1
    logs = [
        train(model, count, engine=engine, batch_size=batch_size) for model, engine in zip(models, (False, True), strict=True)
    ]
    assert logs[0].keys() == logs[1].keys()
    for key, value in logs[0].items():
        assert logs[1][key] == pytest.approx(value, rel=1e-5), key
    deviation, where = distance(*map(state, models))
    assert deviation < 1e-5, where


@pytest.mark.parametrize("name", MODELS)
def test_a_run_equals_sb3(name):
    stock, engine = build(name), build(name)
    for model, callback in ((stock, None), (engine, [EngineCallback(strict=True)])):
        th.manual_seed(2)
        np.random.seed(2)
        model.learn(60, callback=callback, reset_num_timesteps=False, log_interval=1000)
    assert type(engine) is type(stock)
    assert engine.num_timesteps == stock.num_timesteps and engine._n_updates == stock._n_updates
    buffers = [model.replay_buffer for model in (stock, engine)]
    np.testing.assert_allclose(buffers[0].actions, buffers[1].actions, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(buffers[0].rewards, buffers[1].rewards, rtol=1e-2, atol=1e-2)
