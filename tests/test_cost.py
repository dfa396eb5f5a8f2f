"""What is counted is what is there, by hand on a small network."""

import base64
import io
import json
import pickle
import random
import zipfile
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import ARS
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sb3_sparse import OneShotPruningCallback, restore, summarize
from sb3_sparse.agents.archive import read_settings
from sb3_sparse.cli import main
from sb3_sparse.cost import Training, read_training, summarize_parameters
from sb3_sparse.nn import apply_mask, find_networks, find_optimizers, mask_layers
from sb3_sparse.policies import SparseDQNCnnPolicy, SparsePPOMultiInputPolicy, SparseTD3Policy
from sb3_sparse.runtime.format.artifact import MAGIC
from sb3_sparse.sparsity import Constant, Cubic
from tests.algorithms import CASES


class Spaces(gym.Env):
    """Nothing but an observation and an action space."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


ATARI = spaces.Box(0, 255, (84, 84, 4), np.uint8)
DICT = spaces.Dict({"image": spaces.Box(0, 255, (40, 52, 3), np.uint8), "vector": spaces.Box(1.0, 2.0, (5,))})
MOVES = spaces.Box(-1.0, 1.0, (2,))


def half_cheetah(policy="MlpPolicy", **kwargs):
    """TD3 as in Sokar et al. 2022, on spaces of HalfCheetah's shapes."""
    env = Spaces(spaces.Box(-np.inf, np.inf, (17,)), spaces.Box(-1.0, 1.0, (6,)))
    return TD3(policy, env, batch_size=100, policy_kwargs={"net_arch": [256, 256], **kwargs}, buffer_size=10, device="cpu")


def small():
    """2-3-1, one hidden unit without inputs; a target twin that does not count."""
    net = nn.Module()
    net.actor = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    net.actor_target = nn.Sequential(nn.Linear(2, 3))
    with th.no_grad():
        net.actor[0].weight.copy_(th.tensor([[1.0, 0.0], [0.0, 0.0], [2.0, 3.0]]))
        net.actor[2].weight.copy_(th.tensor([[0.0, 5.0, 0.0]]))
    return net


def test_counts_by_hand():
    summary = summarize_parameters(small().state_dict())
    assert list(summary.networks) == ["actor"]
    first, last = summary.networks["actor"].layers.values()
    assert (first.shape, first.nonzero, first.total, first.active_neurons, first.neurons) == ((3, 2), 3, 6, 2, 3)
    assert (last.shape, last.nonzero, last.total, last.active_neurons, last.neurons) == ((1, 3), 1, 3, 1, 1)
    assert first.sparsity == 0.5 and first.value_bytes == 12
    assert (first.connections, first.flops, first.dense_flops) == (3, 6, 12)
    for sums in (summary, summary.networks["actor"]):
        assert (sums.connections, sums.flops, sums.dense_flops) == (4, 8, 18)
        assert (sums.nonzero, sums.total, sums.active_neurons, sums.neurons) == (4, 9, 3, 4)
        assert sums.sparsity == pytest.approx(5 / 9)


def test_bytes_are_those_of_a_file(tmp_path):
    net = small()
    np.savez_compressed(tmp_path / "actor.npz", **{name: value.numpy() for name, value in net.actor.state_dict().items()})
    assert summarize_parameters(net.state_dict()).networks["actor"].nbytes == (tmp_path / "actor.npz").stat().st_size


@pytest.mark.parametrize("name", CASES)
def test_every_policy_is_counted(name):
    model = CASES[name].make()
    summary = summarize(model)
    assert tuple(summary.networks) == CASES[name].networks
    assert summary.sparsity == 0.0
    weights = sum(parameter.nbytes for key, parameter in model.policy.named_parameters() if "_target" not in key)
    assert summary.nbytes > 0.8 * weights, "all parameters count in the bytes, those of an LSTM too"
    assert (
        str(summary).splitlines()[0].split()
        == "layer shape connections nonzero total sparsity active neurons FLOPs value bytes npz bytes".split()
    )


def test_a_summary_from_the_file_equals_one_of_the_model(tmp_path):
    model = CASES["ppo"].make()
    file = io.BytesIO()
    th.save(model.policy.state_dict(), file)
    file.seek(0)
    assert summarize_parameters(th.load(file, weights_only=True)) == replace(summarize(model), training=None)


def test_nothing_to_count():
    with pytest.raises(ValueError, match="no linear or convolutional layer"):
        summarize_parameters({"log_std": th.zeros(3)})


def test_the_papers_dense_td3():
    """Sokar et al. 2022, table 2: 214,784 connections, 1.07e14 FLOPs."""
    summary = summarize(half_cheetah())
    assert summary.connections == summary.total == 214_784
    assert summary.training == Training(100, 1.0, {"actor": 2})
    assert summary.training_flops(1_000_000) == 6e8 * (143_360 + 35_712)
    assert summary.training_flops(1_000_000) == pytest.approx(1.0744e14, rel=1e-4)


def test_the_papers_sparse_td3():
    """The same table: Erdos-Renyi with lambda = 7 and 64 on the hidden layers, a dense output, 0.49 of the FLOPs."""
    model = half_cheetah()
    dense = summarize(model)
    mask_layers(model.policy, persistent=False)
    for layer in (layer for network in find_networks(model.policy).values() for layer in network.values()):
        outputs, inputs = layer.weight.shape
        keep = {17: 7 * 273, 23: 7 * 279, 256: 64 * 512}[inputs] if outputs == 256 else layer.weight.numel()
        mask = (th.randperm(layer.weight.numel()) < keep).view(layer.weight.shape)
        apply_mask(layer, mask, find_optimizers(model.policy))
    summary = summarize(model)
    assert (summary.connections, summary.networks["actor"].connections) == (106_169, 36_215)
    assert summary.training_flops(1_000_000) / dense.training_flops(1_000_000) == pytest.approx(0.4918, abs=5e-5)
    assert summary.training_flops(1_000_000, schedule=Constant(0.0)) == dense.training_flops(1_000_000)
    assert (
        "training with these connections: 5.284e+13 FLOPs per 1,000,000 environment steps; dense 1.074e+14, ratio 0.4918"
        in str(summary)
    )
    assert "connections: 106,169 of 214,784, ratio 0.4943" in str(summary)
    assert f"inference: 212,338 FLOPs per observation and pass through all networks; dense {2 * 214_784:,}" in str(summary)


def test_a_weight_just_grown_exists():
    model = half_cheetah(SparseTD3Policy, sparsity=0.5)
    layer = model.actor.mu[0]
    before = summarize(model)
    with th.no_grad():
        layer.weight.masked_fill_(layer.mask & (th.arange(17) < 3), 0.0)
    summary = summarize(model)
    assert summary.connections == before.connections == 107_392
    assert summary.nonzero < before.nonzero
    assert summary.flops == 2 * 107_392
    assert summarize_parameters(model.policy.state_dict()) == replace(summary, training=None)


def test_a_mask_that_does_not_fit():
    weights = {"actor.0.weight": th.ones(3, 2), "actor.0.mask": th.ones(2, dtype=th.bool)}
    with pytest.raises(ValueError, match=r"mask of 'actor.0' has shape \(2,\), its weight \(3, 2\)"):
        summarize_parameters(weights)


@pytest.mark.parametrize("policy", ["CnnPolicy", SparseDQNCnnPolicy])
def test_nature_cnn_by_hand(policy):
    """84 x 84 pixels become 20 x 20, 9 x 9 and 7 x 7."""
    sparsity = {} if policy == "CnnPolicy" else {"sparsity": 0.5}
    model = DQN(policy, Spaces(ATARI, spaces.Discrete(6)), buffer_size=1, policy_kwargs=sparsity, device="cpu")
    summary = summarize(model)
    weights = {"cnn.0": 8_192, "cnn.2": 32_768, "cnn.4": 36_864, "linear.0": 3_136 * 512}
    for (name, weight), pixels in zip(weights.items(), (20 * 20, 9 * 9, 7 * 7, 1), strict=True):
        layer = summary.networks["q_net"].layers[f"q_net.features_extractor.{name}"]
        assert layer.dense_flops == 2 * weight * pixels
        assert layer.flops == 2 * layer.connections * pixels
    assert summary.dense_flops == 18_692_096
    assert summary.connections == round(summary.total * (0.5 if sparsity else 1.0))
    blind = summarize_parameters(model.policy.state_dict())
    assert (blind.flops, blind.dense_flops, blind.connections) == (None, None, summary.connections)
    assert blind.networks["q_net"].layers["q_net.features_extractor.linear.0"].dense_flops == 2 * 3_136 * 512
    cells = [line.split() for line in str(blind).splitlines()[1:4]]
    assert [row[-2] for row in cells] == ["-"] * 3
    assert "which is unknown here" in str(blind)
    with pytest.raises(ValueError, match="FLOPs of 'q_net' are unknown"):
        blind.training_flops(10, batch_size=1, updates_per_step=1)


def test_torch_counts_the_same():
    """Whole forward passes of dense models, under torch's own counter."""
    env = Spaces(DICT, MOVES)
    ppo = PPO("MultiInputPolicy", env, n_steps=8, batch_size=8, device="cpu")
    sparse = PPO(SparsePPOMultiInputPolicy, env, n_steps=8, batch_size=8, device="cpu")
    sac = SAC("MultiInputPolicy", env, buffer_size=1, device="cpu")
    observation, _ = sac.policy.obs_to_tensor(sac.get_env().reset())
    action = th.zeros(1, 2)
    for model in (ppo, sparse):
        with FlopCounterMode(display=False) as counter:
            model.policy(observation)
        assert summarize(model).dense_flops == counter.get_total_flops()
    networks = summarize(sac).networks
    with FlopCounterMode(display=False) as counter:
        sac.actor(observation)
    assert networks["actor"].flops == counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        sac.critic(observation, action)
    assert networks["critic"].flops == counter.get_total_flops()


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(4)])
def test_other_observations(space):
    dictionary = Spaces(spaces.Dict({"a": space, "b": ATARI}), spaces.Discrete(2))
    summary = summarize(DQN("MultiInputPolicy", dictionary, buffer_size=1, device="cpu"))
    assert summary.flops > 2 * summary.connections


class Random(BaseFeaturesExtractor):
    """Everything that a forward pass may leave behind; a layer that it meets three times, and one that it never meets."""

    def __init__(self, observation_space):
        super().__init__(observation_space, 4)
        self.conv = nn.Conv2d(4, 2, 8, stride=4)
        self.norm, self.dropout = nn.BatchNorm2d(2), nn.Dropout()
        self.linear, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, observations):
        assert not self.training and not th.is_grad_enabled()
        x = self.dropout(self.norm(self.conv(observations))).mean((2, 3)).repeat(1, 2)
        for _ in range(3):
            x = self.linear(x) + th.rand(1)
        return x


def test_it_leaves_no_trace():
    policy_kwargs = {"features_extractor_class": Random}
    model = SAC("CnnPolicy", Spaces(ATARI, MOVES), buffer_size=1, policy_kwargs=policy_kwargs, device="cpu")
    model.policy.actor.features_extractor.dropout.eval()

    def trace():
        tensors = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
        flags = [module.training for module in model.policy.modules()]
        hooks = [len(module._forward_hooks) for module in model.policy.modules()]
        states = th.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        assert all(parameter.grad is None for parameter in model.policy.parameters())
        return tensors, flags, hooks, states

    tensors, flags, hooks, (torch_state, numpy_state, python_state) = trace()
    summary = summarize(model)
    after, flags_after, hooks_after, states = trace()
    assert all(th.equal(tensors[name], tensor) for name, tensor in after.items()) and tensors.keys() == after.keys()
    assert flags == flags_after and hooks == hooks_after
    assert th.equal(torch_state, states[0]) and (numpy_state == states[1]).all() and python_state == states[2]
    layers = summary.networks["actor"].layers
    assert layers["actor.features_extractor.linear"].flops == 3 * 2 * 16
    assert layers["actor.features_extractor.unused"].flops == 0


def test_a_failing_extractor_gets_its_state_back(monkeypatch):
    model = DQN("CnnPolicy", Spaces(ATARI, spaces.Discrete(2)), buffer_size=1, device="cpu")
    model.policy.train()
    monkeypatch.setattr(type(model.q_net.features_extractor), "forward", lambda self, _: self.nothing)
    with pytest.raises(AttributeError, match="nothing"):
        summarize(model)
    assert all(module.training and not module._forward_hooks for module in model.q_net.modules())


def test_formulas():
    model = half_cheetah(SparseTD3Policy, sparsity={"actor": 0.9, "critic": 0.75})
    summary = summarize(model)
    (a, ad), (c, cd) = ((network.flops, network.dense_flops) for network in summary.networks.values())
    assert (c, cd) == (2 * 35_840, 2 * 143_360) and (a, ad) == (2 * 7_142, 2 * 71_424)
    run = 500 * 100

    def same(expected, **kwargs):
        assert summary.training_flops(500, **kwargs) == pytest.approx(run * expected, rel=1e-9)

    same(3 * c + 3 * a / 2)
    same(3 * c + 3 * a, delays={})
    same(3 * c / 4 + 3 * a, delays={"critic": 4})
    same((3 * c + 3 * a / 2) * 2, batch_size=200)
    same((3 * c + 3 * a / 2) / 4, updates_per_step=0.25)
    same(4 * c + 5 * a / 2, extra_forward={"critic": 1, "actor": 2})

    def rigl(sparse, dense, delta):
        return (3 * sparse * delta + 2 * sparse + dense) / (delta + 1)

    same(rigl(c, cd, 1000) + rigl(a, ad, 1000) / 2, grow_freq=1000)
    same(rigl(c, cd, 100) + 3 * a / 2, grow_freq={"critic": 100})
    same(rigl(c, cd, 100) + c + 3 * a / 2, grow_freq={"critic": 100}, extra_forward={"critic": 1})
    # 1 - s = 0.1 + 0.9 (1 - t)^3 between 0.2 and 0.8: a mean of 0.2 + 0.6 * (0.1 + 0.9 / 4) + 0.2 * 0.1.
    cubic = Cubic(0.9, 0.0, 0.2, 0.8)
    density = 0.2 + 0.6 * (0.1 + 0.9 / 4) + 0.2 * 0.1
    assert summary.training_flops(500, schedule=cubic) == pytest.approx(run * 3 * density * (cd + ad / 2), rel=1e-6)
    same(3 * c + 3 * ad * 0.75 / 2, schedule={"actor": Constant(0.25)})
    same(3 * c + 4 * ad * 0.75 / 2, schedule={"actor": Constant(0.25)}, extra_forward={"actor": 1})
    same(rigl(c, cd, 10) + 3 * ad * 0.75 / 2, grow_freq={"critic": 10}, schedule={"actor": Constant(0.25)})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"delays": {"q_net": 2}}, "delays names 'q_net', but the networks are: actor, critic"),
        ({"extra_forward": {"pi": 1}}, "extra_forward names 'pi'"),
        ({"extra_forward": {"actor": -1}}, "must not be negative"),
        ({"grow_freq": {"vae": 1}}, "grow_freq names 'vae'"),
        ({"grow_freq": 0}, "grow_freq of 'actor' must be at least 1"),
        ({"schedule": {"vae": Constant(0.5)}}, "schedule names 'vae'"),
        ({"schedule": Constant(1.5)}, r"must stay in \[0, 1\]"),
        ({"schedule": {"actor": Constant(0.5)}, "grow_freq": 10}, "'actor' is either pruned along a schedule or grown"),
        ({"delays": {"actor": 0}}, "at least 1 update"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"updates_per_step": -1.0}, "batch_size must be at least 1"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        summarize(CASES["td3"].make()).training_flops(100, **kwargs)


def test_what_is_unknown_has_to_be_given():
    summary = summarize_parameters(small().state_dict())
    with pytest.raises(ValueError, match="give training_flops batch_size and updates_per_step"):
        summary.training_flops(10)
    assert summary.training_flops(10, batch_size=2, updates_per_step=0.5) == 10 * 0.5 * 2 * 3 * 8
    episodes = summarize(CASES["sac"].make(train_freq=(1, "episode")))
    with pytest.raises(ValueError, match="give training_flops updates_per_step"):
        episodes.training_flops(10)
    assert f"training with these connections: {16 * 3 * episodes.flops:.4g} FLOPs per gradient update" in str(episodes)


def test_how_models_train():
    """Samples and updates of SB3's own algorithms, four environments at once."""
    env = make_vec_env("CartPole-v1", 4)
    assert read_training(vars(DQN("MlpPolicy", env, train_freq=4, gradient_steps=2, buffer_size=10))) == Training(32, 2 / 16)
    assert read_training(vars(DQN("MlpPolicy", env, train_freq=4, gradient_steps=-1, buffer_size=10))) == Training(32, 1.0)
    ppo = summarize(PPO("MlpPolicy", env, n_steps=32, batch_size=32, n_epochs=5, device="cpu"))
    assert ppo.training == Training(32, 5 / 32)
    assert ppo.training_flops(128) == 5 * 128 * 3 * ppo.flops
    a2c = summarize(A2C("MlpPolicy", env, n_steps=8, device="cpu"))
    assert a2c.training == Training(32, 1 / 32)
    assert a2c.training_flops(320) == 320 * 3 * a2c.flops


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sac", Training(16, 1.0)),
        ("tqc", Training(16, 1.0)),
        ("td3", Training(16, 1.0, {"actor": 2})),
        ("ddpg", Training(16, 1.0, {"actor": 1})),
        ("crossq", Training(16, 1.0, {"actor": 3})),
        ("maskable_ppo", Training(16, 2 / 16)),
        ("recurrent_ppo", Training(16, 2 / 16)),
        ("trpo", None),
    ],
)
def test_how_other_models_train(name, expected):
    assert summarize(CASES[name].make()).training == expected


@pytest.mark.parametrize("name", CASES)
def test_a_zip_is_recognized_by_its_attributes(name, tmp_path):
    """As its class is; what is pickled in a zip stays unknown."""
    model = CASES[name].make()
    assert read_training(vars(model)) == read_training(vars(model), type(model))
    model.save(tmp_path / "agent.zip")
    found, known = read_training(read_settings(tmp_path / "agent.zip")), summarize(model).training
    assert (found is None) == (known is None)
    if known is not None:
        assert found in (known, replace(known, updates_per_step=None))


def test_unknown_algorithms_are_not_guessed():
    model = CASES["ppo"].make()
    assert read_training(vars(model), ARS) is None
    text = str(replace(summarize(model), training=None))
    assert "training: unknown here; give training_flops() the batch_size and the updates_per_step" in text


def test_command(capsys, tmp_path):
    """Safe by default; --load adds what is pickled, the masks of a callback and the size of images."""
    agent = str(tmp_path / "agent.zip")
    model = CASES["td3"].make()
    model.learn(20, callback=OneShotPruningCallback("actor", 0.5))
    grown = model.actor.mu[2]
    with th.no_grad():
        grown.weight[grown.mask] = 0.0
    model.save(agent)
    main(["summary", agent])
    safe = capsys.readouterr().out
    assert f"connections: {832 - int(grown.mask.sum())} of 992" in safe
    assert "FLOPs per gradient update" in safe
    assert "without --load the connections are the nonzero weights" in safe
    main(["summary", agent.removesuffix(".zip")])
    assert capsys.readouterr().out == safe, "as in SB3's load(), the ending may be missing"
    main(["summary", agent, "--load"])
    assert capsys.readouterr().out == f"{summarize(model)}\n"
    assert summarize(model).connections == 832
    row = next(line.split() for line in str(summarize(model)).splitlines() if line.startswith("actor.mu.2 "))
    assert row[2:4] == [str(int(grown.mask.sum())), "0"]
    loaded = TD3.load(agent)
    assert summarize(loaded).connections == 832 - int(grown.mask.sum())
    restore(loaded)
    assert summarize(loaded).connections == 832
    DQN("CnnPolicy", Spaces(ATARI, spaces.Discrete(6)), buffer_size=1, device="cpu").save(agent)
    main(["summary", agent, "--load"])
    assert "inference: 18,692,096 FLOPs" in capsys.readouterr().out


def test_files_that_are_not_an_agent(capsys, tmp_path):
    (tmp_path / "agent.sb3s").write_bytes(MAGIC + bytes(50))
    for name, message in (
        ("none", "there is no agent at"),
        (".", "there is no agent at"),
        ("agent.sb3s", "an exported policy"),
    ):
        with pytest.raises(SystemExit):
            main(["summary", str(tmp_path / name)])
        assert message in capsys.readouterr().err


def test_a_path_is_not_a_model():
    with pytest.raises(ValueError, match=r"summarize takes a model, such as SAC.load\(...\), and was given a str"):
        summarize("half.zip")


@pytest.mark.parametrize("name", ["a2c", "trpo"])
def test_command_takes_no_algorithm_for_another(name, capsys, tmp_path):
    model = CASES[name].make()
    model.save(tmp_path / "agent.zip")
    main(["summary", str(tmp_path / "agent.zip"), "--load"])
    assert capsys.readouterr().out == f"{summarize(model)}\n"


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def with_data(agent, data):
    """The zip of an agent with another part "data"."""
    with zipfile.ZipFile(agent) as archive:
        policy = archive.read("policy.pth")
    with zipfile.ZipFile(agent, "w") as archive:
        archive.writestr("policy.pth", policy)
        archive.writestr("data", data)


def test_command_unpickles_nothing(capsys, tmp_path):
    agent, mark = tmp_path / "agent.zip", tmp_path / "mark"
    CASES["sac"].make().save(agent)
    bomb = {":type:": "bomb", ":serialized:": base64.b64encode(pickle.dumps(Bomb(mark))).decode()}
    for size in (16, 10**400, True, -3, 0, None, bomb, "16"):
        values = {"policy_class": bomb, "train_freq": bomb, "gradient_steps": 1, "n_envs": 1, "batch_size": size}
        with_data(agent, json.dumps(values | {"policy_delay": 2}))
        main(["summary", str(agent)])
        assert ("FLOPs per gradient update" in capsys.readouterr().out) == (size == 16)
    assert not mark.exists()
    for data in ("[", "[]", "[" * 100_000, b"\xff\xfe"):
        with_data(agent, data)
        with pytest.raises(SystemExit):
            main(["summary", str(agent)])
        assert "its part 'data'" in capsys.readouterr().err
