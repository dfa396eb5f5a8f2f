"""Every form of every policy: MLP, CNN, dict observations, gSDE, shared and separate extractors."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv

import sb3_sparse.policies as policies
from sb3_sparse import GradualPruningCallback, summarize
from sb3_sparse.nn import LSTMWeight, MaskedConv2d, MaskedLayer, MaskedLinear, find_twins, prunable_layers
from tests.algorithms import CASES
from tests.invariants import Watch, check, check_targets

NAMES = {name: case.sparse_policy.__name__.removesuffix("Policy") for name, case in CASES.items()}
DISCRETE = {"dqn", "qrdqn", "a2c", "maskable_ppo"}
#: Contrib has no other form of CrossQ than the MLP.
IMAGES = [name for name in CASES if name != "crossq"]


class MaskedActions(gym.Wrapper):
    """All actions are allowed: what MaskablePPO asks of an environment."""

    def action_masks(self):
        return np.ones(self.action_space.n, dtype=bool)


def image_env(name):
    env = FakeImageEnv(screen_height=36, screen_width=36, n_channels=1, discrete=name in DISCRETE)
    return MaskedActions(env) if name == "maskable_ppo" else env


def dict_env(name):
    env = SimpleMultiObsEnv(random_start=False, discrete_actions=name in DISCRETE, channel_last=False)
    return MaskedActions(env) if name == "maskable_ppo" else env


def train(name, form, env, steps=40, callback=None, **policy_kwargs):
    case = CASES[name]
    policy = getattr(policies, f"{NAMES[name]}{form}Policy")
    kwargs = {**case.kwargs}
    if "buffer_size" in kwargs:
        kwargs.update(buffer_size=250, batch_size=8)
    model = case.algorithm(policy, env, policy_kwargs=policy_kwargs, seed=0, device="cpu", **kwargs)
    model.learn(steps, callback=[callback, Watch()] if callback else Watch())
    return model


@pytest.mark.parametrize("name", IMAGES)
def test_cnn(name, tmp_path):
    model = train(name, "Cnn", image_env(name), sparsity=0.9, features_extractor_kwargs={"features_dim": 16})
    layers = prunable_layers(model.policy).values()
    kinds = {type(layer) for layer in layers if not isinstance(layer, LSTMWeight)}
    assert kinds == {MaskedLinear, MaskedConv2d} and all(isinstance(layer, MaskedLayer) for layer in layers)
    assert summarize(model).sparsity == pytest.approx(0.9, abs=0.01)
    model.save(tmp_path / "agent.zip")
    loaded = CASES[name].algorithm.load(tmp_path / "agent.zip", device="cpu")
    check(loaded)
    check_targets(loaded)
    obs = np.stack([model.observation_space.sample() for _ in range(3)])
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


@pytest.mark.parametrize("name", IMAGES)
def test_multi_input(name):
    extractor = {"cnn_output_dim": 16}
    model = train(name, "MultiInput", dict_env(name), sparsity=0.8, features_extractor_kwargs=extractor)
    assert summarize(model).sparsity == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("name", ["sac", "ppo", "a2c", "tqc", "trpo"])
def test_gsde(name):
    """The matrix log_std of gSDE is no layer, and is left alone."""
    case = replace(CASES[name], env="Pendulum-v1")
    model = case.make(True, policy_kwargs={"sparsity": 0.8}, use_sde=True)
    model.learn(64, callback=Watch())
    log_std = [p for n, p in model.policy.named_parameters() if n.endswith("log_std")]
    assert log_std and all(p.dim() == 2 and p.all() for p in log_std)
    assert summarize(model).sparsity == pytest.approx(0.8, abs=0.05)


@pytest.mark.quick("sac-shared", "td3-separate", "ppo-separate")
@pytest.mark.parametrize("shared", [False, True], ids=["separate", "shared"])
@pytest.mark.parametrize("name", ["sac", "td3", "tqc", "ppo"])
def test_features_extractor(name, shared):
    """Pruned by a callback; a shared extractor counts once, and its target twins follow."""
    kwargs = {"share_features_extractor": shared, "features_extractor_kwargs": {"features_dim": 16}}
    model = train(name, "Cnn", image_env(name), callback=GradualPruningCallback("all", 0.9, update_freq=5), **kwargs)
    summary = summarize(model)
    assert summary.sparsity == pytest.approx(0.9, abs=0.01)
    layers = prunable_layers(model.policy)
    online = {id(layer) for path, layer in layers.items() if "_target" not in path}
    assert len(online) == sum(len(network.layers) for network in summary.networks.values())
    if name != "ppo":
        twins = find_twins(model.policy)
        assert {id(layer) for layer in twins} <= online
        assert any("_target.features_extractor" in path for path in layers)


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_left_unmasked(name):
    model = CASES[name].make(True)
    assert all(isinstance(layer, MaskedLayer) for layer in prunable_layers(model.policy).values())


@pytest.mark.parametrize("name", ["sac", "td3", "ddpg", "tqc", "crossq"])
def test_sparsity_per_network(name):
    model = CASES[name].make(True, policy_kwargs={"sparsity": {"critic": 0.5}, "distribution": "uniform"})
    networks = summarize(model).networks
    assert networks["actor"].sparsity == 0.0
    assert networks["critic"].sparsity == pytest.approx(0.5, abs=0.01)


def test_recurrent_critic_layer():
    """Without a second LSTM the critic is a linear layer, made after all others: it is masked too, as LSTMs are."""
    model = CASES["recurrent_ppo"].make(
        True, policy_kwargs={"sparsity": 0.8, "enable_critic_lstm": False, "lstm_hidden_size": 16}
    )
    assert "critic" in summarize(model).networks
    model.learn(64, callback=Watch())
    assert model.policy.lstm_actor.weight_hh_l0.count_nonzero() < 0.2 * 64 * 16


def test_policy_from_its_name():
    """rl-zoo3 and Optuna give policies by dotted name."""
    from rl_zoo3.utils import get_class_by_name

    assert get_class_by_name("sb3_sparse.policies.SparseSACPolicy") is policies.SparseSACPolicy


def test_seed_decides_the_topology():
    one, same, other = (CASES["td3"].make(True, policy_kwargs={"sparsity": 0.5}, seed=seed) for seed in (0, 0, 1))
    masks = [
        th.cat([layer.mask.flatten() for layer in prunable_layers(model.policy).values()]) for model in (one, same, other)
    ]
    assert th.equal(masks[0], masks[1]) and not th.equal(masks[0], masks[2])
