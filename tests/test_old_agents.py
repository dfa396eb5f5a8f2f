"""Agents of other versions of SB3 and Python load without the packages that they name, and no code in a file runs."""

import pickle
import sys

import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib import ARS
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from sb3_sparse import compress
from sb3_sparse.agents import load_agent, load_normalization
from sb3_sparse.agents.unpickle import loads
from tests.canary import CANARY, SONGS, Canary
from tests.old_zips import by_gym, rewrite

CPU = {"device": "cpu", "seed": 0}
SPACES = [
    spaces.Box(-1, 1, (3,), np.float32),
    spaces.Box(0, 255, (4, 8, 8), np.uint8),
    spaces.Discrete(4),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(5),
    spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Discrete(2)),
]


class Mine(ActorCriticPolicy):
    """A policy of a user's own."""


@pytest.fixture(autouse=True)
def _silent():
    SONGS.clear()
    yield


def test_the_canary_sings():
    """Where anything is unpickled: the silence of the other tests says something."""
    pickle.loads(CANARY)
    assert SONGS == ["sang"]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_spaces_of_gym(space):
    loaded = loads(by_gym(space))
    assert type(loaded) is type(space) and loaded == space


def test_discrete_spaces_that_know_no_start():
    space = spaces.Discrete(3)
    state = {name: value for name, value in vars(space).items() if name != "start"}
    space.__class__ = type(
        "Discrete", (spaces.Discrete,), {"__reduce_ex__": lambda self, _: (object.__new__, (spaces.Discrete,))}
    )
    written = pickle.dumps(_Old(state), protocol=2).replace(b"ctests.test_old_agents\n_Old", b"cgym.spaces.discrete\nDiscrete")
    assert loads(written) == spaces.Discrete(3)


class _Old:
    def __init__(self, state):
        self.__dict__.update(state)


@pytest.mark.parametrize("algorithm", [PPO, SAC, DQN, ARS])
def test_a_zip_of_an_old_version(algorithm, tmp_path):
    """Spaces of gym, schedules that are code of another Python: it loads, acts as before, and nothing runs."""
    env = "CartPole-v1" if algorithm is DQN else "Pendulum-v1"
    model, agent = algorithm("MlpPolicy", env, **CPU), tmp_path / "agent.zip"
    model.save(agent)
    old = {name: by_gym(getattr(model, name)) for name in ("observation_space", "action_space")}
    code = dict.fromkeys(("lr_schedule", "clip_range", "exploration_schedule", "ep_info_buffer"), CANARY)
    rewrite(agent, **old, **code)
    loaded = load_agent(agent)
    assert type(loaded) is algorithm and not SONGS
    for observation in (model.observation_space.sample() for _ in range(5)):
        expected = model.predict(observation, deterministic=True)[0]
        np.testing.assert_array_equal(loaded.predict(observation, deterministic=True)[0], expected)
        np.testing.assert_allclose(compress(loaded, bits=32).predict(observation)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["observation_space", "policy_class", "policy_kwargs"])
def test_what_a_policy_needs_is_not_replaced(name, tmp_path):
    agent = tmp_path / "agent.zip"
    PPO("MlpPolicy", "Pendulum-v1", **CPU).save(agent)
    rewrite(agent, **{name: CANARY})
    with pytest.raises(ValueError, match=rf"it names tests.canary.sing in the pickle of its {name}.*--trust"):
        load_agent(agent)
    assert not SONGS


def test_policies_of_the_users_own_have_to_be_trusted(tmp_path):
    agent = tmp_path / "agent.zip"
    PPO(Mine, "Pendulum-v1", **CPU).save(agent)
    with pytest.raises(ValueError, match=r"it names tests.test_old_agents.Mine in the pickle of its policy_class"):
        load_agent(agent)
    assert type(load_agent(agent, trust=True).policy) is Mine


def test_statistics_of_an_old_version(tmp_path):
    venv = VecNormalize(make_vec_env("Pendulum-v1", 2), clip_obs=5.0)
    PPO("MlpPolicy", venv, n_steps=8, batch_size=8, **CPU).learn(16)
    file = tmp_path / "vecnormalize.pkl"
    file.write_bytes(pickle.dumps(venv, protocol=2).replace(b"cgymnasium.", b"cgym."))
    _, loaded = load_normalization(tmp_path / "agent.zip")
    obs = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded.normalize_obs(obs), venv.normalize_obs(obs))
    file.write_bytes(CANARY)
    with pytest.raises(ValueError, match=r"was not saved by VecNormalize.save\(\) \(it names tests.canary.sing\)"):
        load_normalization(tmp_path / "agent.zip")
    assert not SONGS


@pytest.mark.parametrize("name, value", [("epsilon", None), ("clip_obs", "ten"), ("obs_rms", None)])
def test_statistics_that_lack_something(name, value, tmp_path):
    venv = VecNormalize(make_vec_env("Pendulum-v1"))
    setattr(venv, name, value)
    venv.save(str(tmp_path / "vecnormalize.pkl"))
    with pytest.raises(ValueError, match=r"vecnormalize.pkl is damaged: its VecNormalize lacks statistics, or they are not"):
        load_normalization(tmp_path / "agent.zip")


def test_a_model_that_cannot_predict(tmp_path):
    """The error is a sentence, not torch's list of numbers."""
    model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [4]}, **CPU)
    model.actor.log_std.bias.data.fill_(np.nan)
    with pytest.raises(
        ValueError, match=r"model.predict\(\) itself fails on random observations.* \(ValueError: Expected"
    ) as caught:
        compress(model)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("algorithm", [None, "ppo"])
def test_no_other_unpickler_reads_a_zip(algorithm, tmp_path, monkeypatch):
    """Not either where ours has found nothing: a pickle may be harmless to one and not to the other."""
    agent = tmp_path / "agent.zip"
    PPO("MlpPolicy", "Pendulum-v1", **CPU).save(agent)
    rewrite(agent, policy_class=pickle.dumps(None))
    monkeypatch.setattr("stable_baselines3.common.save_util.cloudpickle.loads", SONGS.append)
    with pytest.raises(ValueError, match="does not say its algorithm" if algorithm is None else "cannot be loaded"):
        load_agent(agent, algorithm)
    assert not SONGS


def test_a_pickle_does_not_change_classes():
    """The state of an object is its own; that of a class would be everybody's."""
    state = b"N}\x8c\x04evilK\x01s\x86"
    written = b"\x80\x04cstable_baselines3.common.running_mean_std\nRunningMeanStd\n" + state + b"b."
    assert pickle.loads(written).evil == 1
    del RunningMeanStd.evil
    with pytest.raises(pickle.UnpicklingError, match="it changes RunningMeanStd"):
        loads(written)
    assert not hasattr(RunningMeanStd, "evil")


@pytest.mark.parametrize("module", ["numpy.f2py.__main__", "sb3_sparse.__main__", "numpy.testing"])
def test_a_pickle_imports_no_programs(module, monkeypatch):
    monkeypatch.setattr("sys.argv", ["f2py"])
    with pytest.raises(pickle.UnpicklingError, match=f"it names {module}.x"):
        loads(f"c{module}\nx\n.".encode())
    assert module not in sys.modules or module == "numpy.testing"


def test_a_zip_without_layers(tmp_path):
    """The error is a sentence, not a page of names."""
    agent, settings = tmp_path / "agent.zip", {"net_arch": [8] * 30}
    SAC("MlpPolicy", "Pendulum-v1", policy_kwargs=settings, **CPU).save(agent)
    rewrite(agent, policy_kwargs=pickle.dumps({"net_arch": [8] * 40}))
    with pytest.raises(ValueError, match=r"Missing key\(s\) in state_dict: .* \.\.\.\)$") as caught:
        load_agent(agent)
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damaged_pickles(count):
    """An error of one kind, or something else that is harmless."""
    rng = np.random.default_rng(count)
    venv = VecNormalize(make_vec_env("Pendulum-v1"))
    originals = [pickle.dumps(venv), pickle.dumps({"canary": Canary(), "space": SPACES[0]}), *map(by_gym, SPACES)]
    failed = 0
    for _ in range(count):
        damaged = bytearray(originals[rng.integers(len(originals))])
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        try:
            loads(bytes(damaged))
        except pickle.UnpicklingError:
            failed += 1
    assert failed > count / 10 and not SONGS
