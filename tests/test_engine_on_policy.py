"""The engine on PPO and A2C: their updates and their rollouts are SB3's, under masks and without."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import TRPO, RecurrentPPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv, FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.logger import configure
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_sparse import EngineCallback, OneShotPruningCallback, QATCallback, restore
from sb3_sparse.engine.learner import engage, release
from sb3_sparse.engine.session import Session
from sb3_sparse.engine.support import find_update
from tests.test_engine import expect_equal, state
from tests.test_engine_callback import METHODS, Keeper, Truth

SMALL = {"n_steps": 64, "batch_size": 32, "n_epochs": 2}
MODELS = {
    "ppo": (PPO, "Pendulum-v1", SMALL),
    "ppo_discrete": (PPO, "CartPole-v1", SMALL),
    "a2c": (A2C, "Pendulum-v1", {"n_steps": 16}),
    "a2c_discrete": (A2C, "CartPole-v1", {"n_steps": 16}),
    "ppo_dict": (PPO, lambda: BitFlippingEnv(5, continuous=True, max_steps=7), {**SMALL, "policy": "MultiInputPolicy"}),
}
#: Settings, each of which changes what an update reads or computes.
SETTINGS = {
    "target kl": ("ppo", {"target_kl": 1e-2, "n_epochs": 8}),
    "clipped values": ("ppo", {"clip_range_vf": 0.05}),
    "uneven minibatches": ("ppo", {"batch_size": 21}),
    "advantages as they are": ("ppo", {"normalize_advantage": False}),
    "entropy": ("ppo_discrete", {"ent_coef": 0.1, "vf_coef": 0.0}),
    "entropy of a gaussian": ("ppo", {"ent_coef": 0.1, "max_grad_norm": 0.01}),
    "schedules": ("ppo", {"learning_rate": LinearSchedule(1e-3, 1e-4, 1.0), "clip_range": LinearSchedule(0.2, 0.1, 1.0)}),
    "several environments": ("ppo", {"n_envs": 3}),
    "several environments, discrete": ("a2c_discrete", {"n_envs": 3}),
    "adam": ("a2c", {"use_rms_prop": False, "normalize_advantage": True, "ent_coef": 0.01}),
    "weight decay": (
        "a2c",
        {"policy_kwargs": {"optimizer_kwargs": {"weight_decay": 1e-2}, "optimizer_class": th.optim.RMSprop}},
    ),
    "two networks": ("ppo", {"policy_kwargs": {"net_arch": {"pi": [32], "vf": [24, 16, 8]}, "activation_fn": nn.ReLU}}),
    "no hidden layer": ("ppo_discrete", {"policy_kwargs": {"net_arch": []}}),
    "two extractors": ("ppo", {"policy_kwargs": {"share_features_extractor": False}}),
}


def make(name, *, n_envs=1, env=None, **kwargs):
    algorithm, default, settings = MODELS[name]
    env = env or make_vec_env(default, n_envs, seed=0)
    policy_kwargs = {"net_arch": [40, 27], **kwargs.pop("policy_kwargs", {})}
    settings = {"policy": "MlpPolicy", **settings, **kwargs}
    model = algorithm(env=env, seed=0, device="cpu", policy_kwargs=policy_kwargs, **settings)
    model.set_logger(configure(None, []))
    return model


def masks(sparsity):
    return [OneShotPruningCallback("all", sparsity, saliency="random")] if sparsity else []


def build(name, *, sparsity=0.0, **kwargs):
    """A model that SB3 has trained on some rollouts, of which the last one is still there."""
    model = make(name, **kwargs)
    return model.learn(3 * model.n_steps * model.n_envs, callback=masks(sparsity))


def train(model, *, engine):
    """One call of train() from one seed, and the log."""
    th.manual_seed(1)
    np.random.seed(1)
    if engine:
        engage(model, Session(model, find_update(model)))
    try:
        model.train()
    finally:
        release(model)
    return {name: value for name, value in model.logger.name_to_value.items() if name.startswith("train/")}


def columns(model, name):
    """The arrays of a column of the rollout buffer."""
    column = getattr(model.rollout_buffer, name)
    return list(column.values()) if isinstance(column, dict) else [column]


def expect_equal_updates(stock, engine):
    logs = train(stock, engine=False), train(engine, engine=True)
    assert logs[0].keys() == logs[1].keys()
    for key, value in logs[0].items():
        assert logs[1][key] == pytest.approx(value, rel=1e-5, abs=1e-5), key
    expect_equal(state(stock), state(engine))
    assert stock._n_updates == engine._n_updates
    for name in ("observations", "actions", "returns"):
        for a, b in zip(*(columns(model, name) for model in (stock, engine)), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.quick("ppo-0.8", "ppo_discrete-0.0", "ppo-0.4")
@pytest.mark.parametrize("sparsity", [0.0, 0.4, 0.8])
@pytest.mark.parametrize("name", MODELS)
def test_one_update_equals_sb3(name, sparsity):
    expect_equal_updates(*(build(name, sparsity=sparsity) for _ in range(2)))


@pytest.mark.quick("target kl", "clipped values", "adam", "entropy*", "several environments")
@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
@pytest.mark.parametrize("setting", SETTINGS)
def test_settings(setting):
    name, kwargs = SETTINGS[setting]
    expect_equal_updates(*(build(name, **kwargs) for _ in range(2)))


def test_early_stopping():
    """A minibatch whose policy has gone too far makes no step, and the passes end with it."""
    counts = []
    for last in ([], [EngineCallback(strict=True)]):
        model = make("ppo", target_kl=1e-3, n_epochs=10).learn(192, callback=last)
        counts.append((model._n_updates, float(model.policy.optimizer.state[model.policy.log_std]["step"])))
    assert counts[0] == counts[1]
    passes, steps = counts[0]
    assert 3 < passes < 30 and 2 * (passes - 3) <= steps < 2 * passes


@pytest.mark.quick("ppo-0.8", "ppo_discrete-0.0", "a2c-0.0", "ppo_dict-0.0")
@pytest.mark.parametrize("sparsity", [0.0, 0.8])
@pytest.mark.parametrize("name", MODELS)
def test_a_run_equals_sb3(name, sparsity):
    """With ends by a time limit and without, from one seed. The first rollout differs by rounding alone."""
    models = []
    for last in ([], [EngineCallback(strict=True)]):
        model = make(name, n_envs=2)
        models.append(model.learn(480, callback=[*masks(sparsity), Truth(), *last]))
    stock, engine = models
    assert type(engine) is type(stock)
    assert engine.num_timesteps == stock.num_timesteps and engine._n_updates == stock._n_updates
    for column in ("observations", "actions", "values", "log_probs", "advantages", "returns"):
        for a, b in zip(*(columns(model, column) for model in models), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-2, err_msg=column)
    np.testing.assert_array_equal(*(model.rollout_buffer.episode_starts for model in (stock, engine)))
    expect_equal(*map(state, (stock, engine)), bound=1e-3)


class Rollouts(BaseCallback):
    """Keeps what SB3's loop shows to callbacks."""

    holds_layers = False

    def _init_callback(self):
        self.steps = []

    def _on_step(self):
        names = ("obs_tensor", "actions", "clipped_actions", "values", "log_probs", "rewards", "dones", "infos", "n_steps")
        self.steps.append({name: copy.deepcopy(self.locals[name]) for name in names})
        return True


@pytest.mark.parametrize("name", ["ppo", "ppo_discrete"])
def test_callbacks_see_what_sb3_shows_them(name):
    seen = []
    for last in ([], [EngineCallback(strict=True)]):
        rollouts = Rollouts()
        make(name, n_envs=2).learn(64, callback=[rollouts, *last])
        seen.append(rollouts.steps)
    assert len(seen[0]) == len(seen[1]) == 64
    for stock, engine in zip(*seen, strict=True):
        for key, value in stock.items():
            assert type(engine[key]) is type(value)
            if isinstance(value, np.ndarray | th.Tensor):
                assert engine[key].shape == value.shape and engine[key].dtype == value.dtype, key
                np.testing.assert_allclose(engine[key], value, rtol=1e-4, atol=1e-4, err_msg=key)


@pytest.mark.parametrize("name", ["ppo", "ppo_discrete"])
def test_normalized_environments_and_evaluations(name):
    results = []
    for last in ([], [EngineCallback(strict=True)]):
        env = VecNormalize(make_vec_env(MODELS[name][1], 2, seed=0))
        evaluation = EvalCallback(
            VecNormalize(make_vec_env(MODELS[name][1], 1, seed=7), training=False, norm_reward=False),
            n_eval_episodes=1,
            eval_freq=50,
            verbose=0,
            warn=False,
        )
        model = make(name, env=env).learn(256, callback=[evaluation, *last])
        results.append((evaluation.last_mean_reward, model.rollout_buffer.observations))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-2)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-2, atol=1e-2)


@pytest.mark.quick("rigl")
@pytest.mark.parametrize("method", ["static", "gmp", "set", "rigl", "qat"])
def test_methods(method):
    """Callbacks that change layers in the middle of a run find and leave the same weights at every step as on SB3."""
    callbacks = {**METHODS, "qat": lambda: [QATCallback("mlp_extractor", 0.5)]}
    keepers = []
    for last in ([], [EngineCallback(strict=True)]):
        model, keeper = make("ppo", n_steps=30, batch_size=30), Keeper()
        model.learn(120, callback=[*callbacks[method](), Truth(), keeper, *last])
        keepers.append(keeper)
    for step, (a, b) in enumerate(zip(keepers[0].seen, keepers[1].seen, strict=True)):
        for x, y in zip(a, b, strict=True):
            assert (x - y).abs().max() < 1e-4, step


@pytest.mark.quick("ppo-True-True", "ppo-False-True")
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
@pytest.mark.parametrize("name", ["ppo", "a2c_discrete"])
def test_a_run_goes_on_wherever_it_was_saved(name, second, first, tmp_path):
    """Bit for bit; and the engine goes on with a run of SB3, and the reverse."""

    def run(model, engine, **kwargs):
        last = [EngineCallback(strict=True)] if engine else []
        return model.learn(2 * model.n_steps, callback=[*METHODS["set"](), *last], **kwargs)

    half = run(make(name), first)
    half.save(tmp_path / "half")
    loaded = type(half).load(tmp_path / "half", env=half.get_env(), device="cpu")
    restore(loaded)
    loaded._last_obs, loaded._last_episode_starts = half._last_obs, half._last_episode_starts
    loaded.set_logger(configure(None, []))
    state_of_torch, state_of_numpy = th.get_rng_state(), np.random.get_state()
    envs = [copy.deepcopy(half.get_env()) for _ in range(2)]
    results = []
    for model, env in zip((half, loaded), envs, strict=True):
        model.env = env
        th.set_rng_state(state_of_torch)
        np.random.set_state(state_of_numpy)
        results.append(state(run(model, second, reset_num_timesteps=False)))
    assert results[0].keys() == results[1].keys()
    for key, value in results[0].items():
        assert th.equal(value, results[1][key]), key


def test_predictions_are_those_of_the_policy():
    for name in ("ppo", "ppo_discrete"):
        model = make(name)
        observations = model.observation_space.sample()[None].repeat(3, axis=0)
        answers = {}
        for deterministic in (True, False):
            for engine in (False, True):
                th.manual_seed(3)
                if engine:
                    engage(model, Session(model, find_update(model)))
                answers[engine], _ = model.predict(observations, deterministic=deterministic)
                one, _ = model.predict(observations[0], deterministic=True)
                assert one.shape == model.action_space.shape
                release(model)
            assert answers[True].dtype == answers[False].dtype and answers[True].shape == answers[False].shape
            np.testing.assert_allclose(answers[True], answers[False], atol=1e-5)


def test_a_run_that_diverges_ends():
    model = build("ppo")
    with th.no_grad():
        model.policy.value_net.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="training has diverged"):
        train(model, engine=True)


class Mine(RolloutBuffer):
    pass


class OtherActions(gym.ActionWrapper):
    """Pendulum with an action space that the engine does not know."""

    def __init__(self, space):
        super().__init__(gym.make("Pendulum-v1"))
        self.action_space = space

    def action(self, action):
        return np.zeros(1, dtype=np.float32)


REFUSED = {
    "RecurrentPPO is none of": lambda: RecurrentPPO("MlpLstmPolicy", "Pendulum-v1", n_steps=8, batch_size=8, device="cpu"),
    "TRPO is none of": lambda: TRPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8, device="cpu"),
    "gSDE": lambda: make("ppo", use_sde=True),
    "actions in MultiDiscrete": lambda: make("ppo", env=OtherActions(spaces.MultiDiscrete([2, 3]))),
    "actions in MultiBinary": lambda: make("a2c", env=OtherActions(spaces.MultiBinary(2))),
    "observations in Dict": lambda: A2C("MultiInputPolicy", SimpleMultiObsEnv(channel_last=False), device="cpu"),
    "observations in Box": lambda: A2C("CnnPolicy", FakeImageEnv(40, 40), device="cpu"),
    "the rollout buffer Mine": lambda: make("ppo", rollout_buffer_class=Mine),
    "RMSpropTFLike": lambda: make("a2c", policy_kwargs={"optimizer_class": RMSpropTFLike}),
    "centered": lambda: make(
        "a2c", policy_kwargs={"optimizer_class": th.optim.RMSprop, "optimizer_kwargs": {"centered": True}}
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_it_cannot_train_is_refused_by_name(reason):
    with pytest.raises(ValueError, match=reason):
        REFUSED[reason]().learn(1, callback=EngineCallback(strict=True))


def test_more_environments_than_the_engine_acts_in(monkeypatch):
    """SB3 acts, with the weights that the engine has trained."""
    monkeypatch.setattr("sb3_sparse.engine.engaged.MOST_OBSERVATIONS", 1)
    models = [make("ppo", n_envs=2, n_steps=32) for _ in range(2)]
    for model, last in zip(models, ([], [EngineCallback(strict=True)]), strict=True):
        th.manual_seed(2)
        np.random.seed(2)
        model.learn(256, callback=last)
    expect_equal(*map(state, models), bound=1e-3)


def test_what_has_been_changed_is_for_sb3_to_train():
    model = make("ppo")
    session = Session(model, find_update(model))
    handle = model.policy.log_std.register_hook(lambda gradient: gradient)
    assert not session.take_over() and "hooks on gradients" in session.reason
    handle.remove()
    session.look()
    assert session.take_over()
    session.look()
    model.policy.log_std = nn.Parameter(th.zeros(1))
    assert not session.take_over() and "log_std" in session.reason
