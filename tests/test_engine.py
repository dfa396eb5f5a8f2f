"""The engine: every algorithm computes what SB3 computes, whatever the model is made of."""

import numpy as np
import pytest
import torch as th
from sb3_contrib import QRDQN, TQC
from stable_baselines3 import DDPG, DQN, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_sparse import EngineCallback, OneShotPruningCallback
from sb3_sparse.engine.learner import engage, release
from sb3_sparse.engine.session import Session
from sb3_sparse.engine.support import find_update
from sb3_sparse.engine.updates import UPDATES
from sb3_sparse.nn import find_optimizers

HER = {"policy": "MultiInputPolicy", "replay_buffer_class": HerReplayBuffer}
MODELS = {
    "sac": (SAC, "Pendulum-v1", {}),
    "sac_fixed": (SAC, "Pendulum-v1", {"ent_coef": 0.1, "target_update_interval": 2}),
    "td3": (TD3, "Pendulum-v1", {}),
    "ddpg": (DDPG, "Pendulum-v1", {}),
    "tqc": (TQC, "Pendulum-v1", {}),
    "dqn": (DQN, "CartPole-v1", {"target_update_interval": 50}),
    "qrdqn": (QRDQN, "CartPole-v1", {"target_update_interval": 50}),
    "sac_her": (SAC, lambda: BitFlippingEnv(5, continuous=True, max_steps=7), HER),
    "dqn_her": (DQN, lambda: BitFlippingEnv(5, max_steps=7), HER),
}
#: Settings of SAC, each of which changes what an update reads or computes.
SETTINGS = {
    "one layer": {"net_arch": [16]},
    "four layers": {"net_arch": [33, 8, 12, 20]},
    "no hidden layer": {"net_arch": []},
    "one critic": {"n_critics": 1},
    "three critics": {"n_critics": 3},
    "tanh": {"activation_fn": nn.Tanh},
    "elu": {"activation_fn": nn.ELU},
    "silu": {"activation_fn": nn.SiLU},
    "leaky relu": {"activation_fn": nn.LeakyReLU},
    "sigmoid": {"activation_fn": nn.Sigmoid},
    "shared extractor": {"share_features_extractor": True},
    "weight decay": {"optimizer_kwargs": {"weight_decay": 1e-2}},
    "adamw": {"optimizer_class": th.optim.AdamW},
    "betas": {"optimizer_kwargs": {"betas": (0.8, 0.95), "eps": 1e-5}},
    "fused": {"optimizer_kwargs": {"fused": True}},
}
MODEL_SETTINGS = {
    "learning rate schedule": {"learning_rate": LinearSchedule(1e-3, 1e-4, 1.0)},
    "several steps": {"n_steps": 3},
    "memory": {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}},
    "full memory": {
        "optimize_memory_usage": True,
        "replay_buffer_kwargs": {"handle_timeout_termination": False},
        "buffer_size": 100,
    },
    "full buffer": {"buffer_size": 100},
    "several updates": {"train_freq": 8, "gradient_steps": 4},
    "episodes": {"train_freq": (1, "episode"), "gradient_steps": 2},
    "target entropy": {"target_entropy": -3.0, "ent_coef": "auto_0.5"},
}


def build(name, *, sparsity=0.0, steps=80, env=None, **kwargs):
    """A model that SB3 has trained for a while."""
    algorithm, default, settings = MODELS[name]
    policy_kwargs = {"net_arch": [40, 27], **kwargs.pop("policy_kwargs", {})}
    settings = {"policy": "MlpPolicy", "buffer_size": 1000, **settings, **kwargs}
    env = env or (default if isinstance(default, str) else default())
    model = algorithm(env=env, policy_kwargs=policy_kwargs, seed=0, learning_starts=50, device="cpu", **settings)
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


def expect_equal(a, b, bound=1e-5):
    """Two states are equal up to rounding. The gradient of few weights may cancel over the batch, and then it rounds more."""
    assert a.keys() == b.keys()
    for name in a:
        distance = float((a[name] - b[name]).norm() / a[name].norm().clamp(min=1e-12))
        assert distance < (bound if a[name].numel() > 100 else 10 * bound), name


def expect_equal_updates(models, count=1, batch_size=64):
    """SB3 trains the first, the engine the second."""
    logs = [
        train(model, count, engine=engine, batch_size=batch_size) for model, engine in zip(models, (False, True), strict=True)
    ]
    assert logs[0].keys() == logs[1].keys()
    for key, value in logs[0].items():
        assert logs[1][key] == pytest.approx(value, rel=1e-5, abs=1e-5), key
    expect_equal(*map(state, models))


def test_every_update_is_tested():
    assert {algorithm for algorithm, *_ in MODELS.values()} <= set(UPDATES)


@pytest.mark.quick("sac-0.0-64", "sac-0.8-100", "sac_her-0.8-64", "td3-0.8-64", "dqn-0.4-100", "tqc-0.8-100")
@pytest.mark.parametrize("batch_size", [64, 100])
@pytest.mark.parametrize("sparsity", [0.0, 0.4, 0.8])
@pytest.mark.parametrize("name", MODELS)
def test_one_update_equals_sb3(name, sparsity, batch_size):
    # Two updates of TD3, of which one trains the actor.
    expect_equal_updates([build(name, sparsity=sparsity) for _ in range(2)], 2 if name == "td3" else 1, batch_size)


@pytest.mark.quick("four layers", "no hidden layer", "adamw")
@pytest.mark.parametrize("setting", SETTINGS)
def test_policies(setting):
    expect_equal_updates([build("sac", steps=60, sparsity=0.7, policy_kwargs=SETTINGS[setting]) for _ in range(2)])


@pytest.mark.quick("several updates", "full memory", "several steps")
@pytest.mark.parametrize("setting", MODEL_SETTINGS)
def test_settings(setting):
    expect_equal_updates([build("sac", steps=130, **MODEL_SETTINGS[setting]) for _ in range(2)])


@pytest.mark.parametrize("normalized", [False, True])
def test_several_environments(normalized):
    def environments():
        env = make_vec_env("Pendulum-v1", 3, seed=0)
        return VecNormalize(env) if normalized else env

    models = [build("sac", env=environments(), steps=90) for _ in range(2)]
    expect_equal_updates(models)


@pytest.mark.quick("dqn-0.8")
@pytest.mark.parametrize("sparsity", [0.0, 0.8])
@pytest.mark.parametrize("name", ["sac", "td3", "dqn", "tqc", "qrdqn"])
def test_many_updates_drift_as_sb3_does(name, sparsity, monkeypatch):
    """Over 100 updates from one state the engine is no further from float64 than three times SB3 in float32 is."""
    reference, stock, engine = (build(name, sparsity=sparsity) for _ in range(3))
    train(stock, 100, engine=False)
    train(engine, 100, engine=True)
    _to_double(reference, monkeypatch)
    train(reference, 100, engine=False)
    exact, rounded, ours = (_vector(model) for model in (reference, stock, engine))
    assert (ours - exact).norm() <= 3.0 * (rounded - exact).norm() + 1e-7 * exact.norm()


def _to_double(model, monkeypatch):
    """Let SB3 compute in float64, with the batches and the noise of float32."""
    model.policy.double()
    optimizers = find_optimizers(model.policy)
    if getattr(model, "ent_coef_optimizer", None) is not None:
        model.log_ent_coef.data = model.log_ent_coef.data.double()
        optimizers.append(model.ent_coef_optimizer)
    for optimizer in optimizers:
        for moments in optimizer.state.values():
            moments |= {key: value.double() for key, value in moments.items() if key != "step"}
    sample = model.replay_buffer.sample

    def sample_in_double(*args, **kwargs):
        batch = sample(*args, **kwargs)
        return batch._replace(rewards=batch.rewards.double(), dones=batch.dones.double())

    def standard_normal(shape, dtype, device):
        return th.normal(th.zeros(shape), th.ones(shape)).double()

    monkeypatch.setattr(model.replay_buffer, "sample", sample_in_double)
    monkeypatch.setattr("stable_baselines3.common.policies.preprocess_obs", lambda obs, *_, **__: obs.double())
    monkeypatch.setattr("torch.distributions.normal._standard_normal", standard_normal)


def _vector(model):
    return th.cat([tensor.double().flatten() for tensor in model.policy.state_dict().values()])


@pytest.mark.quick("sac", "td3", "dqn_her")
@pytest.mark.parametrize("name", MODELS)
def test_a_run_equals_sb3(name):
    stock, engine = build(name), build(name)
    for model, callback in ((stock, None), (engine, [EngineCallback(strict=True)])):
        th.manual_seed(2)
        np.random.seed(2)
        model.learn(60, callback=callback, reset_num_timesteps=False, log_interval=1000)
    assert type(engine) is type(stock)
    assert engine.num_timesteps == stock.num_timesteps and engine._n_updates == stock._n_updates
    assert engine.exploration_rate == stock.exploration_rate if hasattr(stock, "exploration_rate") else True
    buffers = [model.replay_buffer for model in (stock, engine)]
    np.testing.assert_allclose(buffers[0].actions, buffers[1].actions, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(buffers[0].rewards, buffers[1].rewards, rtol=1e-2, atol=1e-2)


def test_actions_for_observations_by_name():
    """One observation, several, and what is no batch: as SB3's policy answers."""
    model = build("sac_her", steps=60, sparsity=0.5)
    several = {name: np.stack([part.sample() for _ in range(4)]) for name, part in model.observation_space.spaces.items()}
    one = {name: part[0] for name, part in several.items()}
    expected = [model.predict(observations, deterministic=True)[0] for observations in (several, one)]
    engage(model, Session(model, find_update(model)))
    for observations, actions in zip((several, one), expected, strict=True):
        np.testing.assert_allclose(model.predict(observations, deterministic=True)[0], actions, rtol=1e-5, atol=1e-6)
    assert set(model._session.update._answers._programs) == {(4, True)}
    with pytest.raises(ValueError, match="shape"):
        model.predict({name: part[:, :2] for name, part in several.items()})
