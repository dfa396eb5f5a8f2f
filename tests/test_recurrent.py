"""Recurrent policies: the state of predict, every backend against SB3's own predict over episodes, and what is refused."""

import ctypes
import json
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_sparse import compress
from sb3_sparse.agents import compress_agent, load_agent, make_environment, model_act, play_starts
from sb3_sparse.cli import main
from sb3_sparse.export.c.header import to_c
from sb3_sparse.export.onnx import WEIGHT_FORMS, to_onnx
from sb3_sparse.export.passes import order, shrink
from sb3_sparse.offline.spaces_env import SpacesEnv
from sb3_sparse.policies import SparseRecurrentPPOPolicy
from sb3_sparse.runtime import Policy, load
from sb3_sparse.runtime.format.artifact import decode, encode, encode_as
from sb3_sparse.runtime.network.records import Activation, Head, Layer, Network
from sb3_sparse.runtime.network.reference import layer_inputs, run_lstm
from tests.networks import EXACT, draw_observations, draw_recurrent_network, expect_close, pack, unpack

VECTOR = spaces.Box(-2, 2, (3,))
IMAGE = spaces.Box(0, 255, (36, 36, 1), np.uint8)
CONTINUOUS = spaces.Box(np.array([-1, -0.05], np.float32), np.array([0.02, 3], np.float32))
#: Arguments of the policy, and the spaces: what RecurrentPPO has.
MODELS = {
    "continuous": ({}, VECTOR, CONTINUOUS),
    "discrete": ({}, VECTOR, spaces.Discrete(4)),
    "multi-discrete": ({"n_lstm_layers": 2}, VECTOR, spaces.MultiDiscrete([3, 4])),
    "multi-binary": ({"net_arch": []}, VECTOR, spaces.MultiBinary(5)),
    "three layers": ({"n_lstm_layers": 3}, VECTOR, CONTINUOUS),
    "shared": ({"shared_lstm": True, "enable_critic_lstm": False}, VECTOR, CONTINUOUS),
    "without a critic's": ({"enable_critic_lstm": False}, VECTOR, CONTINUOUS),
    "extractors of their own": ({"share_features_extractor": False}, VECTOR, CONTINUOUS),
    "without biases": ({"lstm_kwargs": {"bias": False}}, VECTOR, CONTINUOUS),
    "gSDE, squashed": ({"use_sde": True, "squash_output": True}, VECTOR, CONTINUOUS),
    "images": ({"features_extractor_kwargs": {"features_dim": 20}}, IMAGE, spaces.Box(-9, 9, (2,))),
    "images, flattened": ({}, spaces.Box(0, 255, (6, 5, 2), np.uint8), CONTINUOUS),
}


def make(name="continuous", *, wrap=None, **kwargs):
    """A model of RecurrentPPO whose actions depend on what it has seen."""
    arguments, observations, actions = MODELS[name]
    env = make_vec_env(lambda: SpacesEnv(observations, actions))
    policy = "CnnLstmPolicy" if observations is IMAGE else "MlpLstmPolicy"
    settings = {"lstm_hidden_size": 12, **arguments, **kwargs}
    use_sde = settings.pop("use_sde", False)
    env = env if wrap is None else wrap(env)
    model = RecurrentPPO(policy, env, seed=0, device="cpu", use_sde=use_sde, policy_kwargs=settings)
    with th.no_grad():
        for module in (model.policy.lstm_actor, model.policy.action_net):
            for parameter in module.parameters():
                parameter.normal_(std=0.5)
        if observations is IMAGE:
            model.policy.features_extractor.linear[0].weight.mul_(8)
    return model


def observe(model, count, seed=0):
    """``[count, 3, ...]``: observations of three environments in the order of time, and where episodes begin."""
    rng = np.random.default_rng(seed)
    space = model.observation_space
    shape = (count, 3, *space.shape)
    if space.dtype == np.uint8:
        # Some are darker than others: a network sees little else in noise.
        drawn = (rng.integers(0, 256, shape) * rng.random((count, 3, 1, 1, 1))).astype(np.uint8)
    else:
        drawn = rng.normal(size=shape).astype(np.float32)
    return drawn, rng.random((count, 3)) < 0.15


def play(policy, observations, starts, state=None):
    """The actions of every step, and the last state."""
    actions = []
    for observation, start in zip(observations, starts, strict=True):
        action, state = policy.predict(observation, state=state, episode_start=start, deterministic=True)
        actions.append(action)
    return np.stack(actions), state


@pytest.mark.parametrize("name", MODELS)
def test_every_backend_plays_as_the_model(name):
    """To 1e-5, over episodes that begin at other times in each of three environments; the state is that of the model too."""
    model = make(name)
    exported, (observations, starts) = compress(model, bits=32), observe(model, 40)
    expected, state = play(model, observations, starts)
    assert len(np.unique(expected.reshape(len(expected) * 3, -1), axis=0)) > 2, "the actions say something"
    for backend in EXACT:
        policy = Policy(decode(encode(exported.network)), backend)
        actions, own = play(policy, observations, starts)
        assert actions.dtype == expected.dtype and actions.shape == expected.shape
        np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-5)
        assert [part.shape for part in own] == [part.shape for part in state]
        # Units are in another order in the file.
        np.testing.assert_allclose(np.sort(own), np.sort(state), rtol=0, atol=1e-5)
        alone = [play(policy, observations[:, env], starts[:, env, None])[0] for env in range(3)]
        np.testing.assert_allclose(np.stack(alone, axis=1), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("space", "policy"),
    [
        (spaces.Dict({"place": VECTOR, "camera": IMAGE, "kind": spaces.Discrete(4)}), "MultiInputLstmPolicy"),
        (spaces.Discrete(5), "MlpLstmPolicy"),
    ],
    ids=["dict", "classes"],
)
def test_observations_of_parts(space, policy):
    """Dicts and classes; the other forms are those of policies that do not remember."""
    env = make_vec_env(lambda: SpacesEnv(space, CONTINUOUS))
    model = RecurrentPPO(policy, env, seed=0, device="cpu", policy_kwargs={"lstm_hidden_size": 12, "net_arch": []})
    with th.no_grad():
        for parameter in (*model.policy.lstm_actor.parameters(), *model.policy.action_net.parameters()):
            parameter.normal_(std=0.5)
    network = compress(model, bits=32).network
    policies = [Policy(decode(encode(network)), backend) for backend in EXACT]
    session = onnxruntime.InferenceSession(to_onnx(network), providers=["CPUExecutionProvider"])
    model.observation_space.seed(0)
    h = c = np.zeros((1, 3, 12), np.float32)
    states, state = [None] * len(policies), None
    for starts in np.random.default_rng(0).random((12, 3)) < 0.2:
        drawn = [model.observation_space.sample() for _ in range(3)]
        keys = drawn[0] if isinstance(drawn[0], dict) else None
        batch = np.array(drawn) if keys is None else {key: np.stack([one[key] for one in drawn]) for key in keys}
        expected, state = model.predict(batch, state, starts, deterministic=True)
        for number, exported in enumerate(policies):
            actions, states[number] = exported.predict(batch, states[number], starts)
            np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-5)
        inputs = {"observation": batch} if keys is None else batch
        types = {each.name: np.uint8 if "uint8" in each.type else None for each in session.get_inputs()}
        given = {name: np.asarray(array, types[name]) for name, array in inputs.items()}
        h, c = (np.where(starts[:, None], np.float32(0), part) for part in (h, c))
        actions, h, c = session.run(["action", "next_h", "next_c"], {**given, "h": h, "c": c})
        np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", WEIGHT_FORMS)
@pytest.mark.parametrize("name", ["continuous", "three layers", "discrete"])
def test_onnx_plays_as_the_model(name, form):
    model = make(name)
    network, (observations, starts) = compress(model, bits=32).network, observe(model, 40)
    session = onnxruntime.InferenceSession(to_onnx(network, form=form), providers=["CPUExecutionProvider"])
    _, layers, units = network.state_shape
    h = c = np.zeros((layers, 3, units), np.float32)
    actions = []
    for observation, start in zip(observations, starts, strict=True):
        h, c = (np.where(start[:, None], np.float32(0), part) for part in (h, c))
        action, h, c = session.run(["action", "next_h", "next_c"], {"observation": observation, "h": h, "c": c})
        actions.append(action)
    np.testing.assert_allclose(np.stack(actions), play(model, observations, starts)[0], rtol=0, atol=1e-5)


needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler (gcc)")


def compile_header(network, folder):
    """``act(observation, action, start)`` of a header, with one state that it keeps."""
    (folder / "policy.h").write_text(to_c(network))
    (folder / "all.c").write_text("""
        #include "policy.h"
        void act(const policy_observation *observation, policy_action *action, int start) {
            static policy_state state;
            if (start) policy_reset(&state);
            policy_act(&state, observation, action);
        }""")
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fPIC", "-shared"]
    subprocess.run(["gcc", *flags, str(folder / "all.c"), "-o", str(folder / "all.so")], check=True)
    subprocess.run(["gcc", "-x", "c++", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", str(folder / "all.c")], check=True)
    function = ctypes.CDLL(str(folder / "all.so")).act

    def act(observation, start):
        action = np.zeros(network.head.shape, np.int32 if network.head.kind == "argmax" else np.float32)
        observation = np.ascontiguousarray(observation, None if network.image else np.float32)
        function(ctypes.c_void_p(observation.ctypes.data), ctypes.c_void_p(action.ctypes.data), int(start))
        return action

    return act


@needs_gcc
@pytest.mark.parametrize("name", ["continuous", "multi-discrete", "three layers", "images"])
def test_the_header_plays_as_the_model(name, tmp_path):
    model = make(name)
    observations, starts = observe(model, 40)
    starts[0] = True
    network = compress(model, bits=32).network
    act = compile_header(network, tmp_path)
    actions = np.stack([act(observation, start) for observation, start in zip(observations[:, 0], starts[:, 0], strict=True)])
    np.testing.assert_allclose(actions, play(model, observations, starts)[0][:, 0], rtol=0, atol=1e-5)


@needs_gcc
@pytest.mark.parametrize("bits", [4, 8, 32])
@pytest.mark.parametrize("name", ["continuous", "discrete"])
def test_the_header_tests_itself(name, bits, tmp_path):
    """Its test vectors are one episode: with other weights for what is remembered some of them fail."""
    network = compress(make(name), bits=bits).network
    first = network.layers[0]
    forgetful = first.weight.copy()
    forgetful[:, first.inputs :] = 0
    for number, tested in enumerate(
        (network, replace(network, layers=(replace(first, weight=forgetful), *network.layers[1:])))
    ):
        text = to_c(tested)
        # The expected actions of the network itself.
        ours, theirs = text.split("policy_observations"), to_c(network).split("policy_observations")
        (tmp_path / "policy.h").write_text("policy_observations".join([ours[0], *theirs[1:]]))
        flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-pedantic", "-Werror", "-x", "c", "-DPOLICY_MAIN"]
        subprocess.run(["gcc", *flags, str(tmp_path / "policy.h"), "-o", str(tmp_path / "test")], check=True)
        done = subprocess.run([str(tmp_path / "test")], capture_output=True, text=True, check=False)
        assert done.returncode == number, done.stdout


@pytest.mark.parametrize("calibrated", [True, False], ids=["calibrated", "guessed"])
@pytest.mark.parametrize("name", ["continuous", "discrete", "three layers"])
def test_8_bits_agree(name, calibrated):
    """Weights of 8 bits change the actions of a random network, which remembers for long, by 2 % at most in the mean."""
    model = make(name)
    observations, starts = observe(model, 300)
    calibration = observe(model, 600, seed=1)[0][:, 0] if calibrated else None
    policy = compress(model, calibration=calibration)
    assert all(layer.quantized for layer in policy.network.layers)
    actions, expected = play(policy, observations, starts)[0], play(model, observations, starts)[0]
    if name == "discrete":
        assert np.mean(actions == expected) > 0.97
    else:
        wide = (CONTINUOUS.high - CONTINUOUS.low) / 2
        assert np.abs((actions - expected) / wide).mean() < 0.02


def observe_slowly():
    """Observations of short episodes that all begin alike, and where they begin."""
    starts = np.arange(200) % 4 == 0
    return np.where(starts[:, None], 0, 2 * np.ones((200, 3))).astype(np.float32), starts


def largest_inputs(network, observations, starts):
    """The largest number that each layer behind the LSTM reads in play."""
    state, found = np.zeros((1, *network.state_shape), np.float32), []
    for observation, start in zip(observations, starts, strict=True):
        state[...] *= not start
        found.append([np.abs(inputs).max() for inputs in layer_inputs(network, observation[None], state)[1:-1]])
    return np.max(found, axis=0)


def test_calibration_forgets_where_an_episode_begins():
    """The ranges are those of play, where no episode is longer than four steps."""
    model = make()
    observations, starts = observe_slowly()
    policy = compress(model, calibration=observations, episode_starts=starts)
    ranges = np.array(policy.network.ranges)[1:]
    np.testing.assert_allclose(ranges, largest_inputs(policy.network, observations, starts), rtol=1e-3)
    other = compress(model, calibration=observations).network
    np.testing.assert_allclose(other.ranges[1:], largest_inputs(other, observations, np.arange(200) == 0), rtol=1e-3)
    assert np.abs(ranges / other.ranges[1:] - 1).max() > 0.02


@pytest.mark.parametrize(
    ("calibration", "starts", "message"),
    [
        (None, np.ones(4), "are those of calibration observations"),
        (np.ones((4, 3)), np.ones(3), r"for each of the 4 calibration observations, but has shape \(3,\)"),
        (np.ones((4, 3)), np.ones((4, 1), bool), r"has shape \(4, 1\)"),
        (np.ones((4, 3)), np.arange(4), "must be true or false"),
        (np.ones((4, 3)), np.array(["a"] * 4), "must be true or false"),
    ],
)
def test_episode_starts_that_do_not_fit(calibration, starts, message):
    with pytest.raises(ValueError, match=message):
        compress(make(), calibration=calibration, episode_starts=starts)


def test_a_normalization_is_part_of_it():
    model = make(wrap=lambda env: VecNormalize(env, clip_obs=2.0))
    statistics = model.get_vec_normalize_env()
    statistics.obs_rms.mean[:], statistics.obs_rms.var[:] = [1, -2, 0], [4, 1, 0.25]
    observations, starts = observe(model, 30)
    expected = play(model, statistics.normalize_obs(observations), starts)[0]
    np.testing.assert_allclose(play(compress(model, bits=32), observations, starts)[0], expected, rtol=0, atol=1e-5)


def test_a_file_goes_on_where_another_stopped(tmp_path):
    """The state is the caller's: it may be kept, and given to another backend or to a copy."""
    policy = compress(make())
    policy.save(tmp_path / "policy.sb3s")
    observations, starts = observe(make(), 20)
    _, state = play(policy, observations[:9], starts[:9])
    kept = [part.copy() for part in state]
    first = play(policy, observations[9:], starts[9:], state)[0]
    np.testing.assert_array_equal(kept, state)
    for backend in EXACT:
        again = play(load(tmp_path / "policy.sb3s", backend), observations[9:], starts[9:], state)[0]
        np.testing.assert_allclose(again, first, rtol=0, atol=1e-5)


def test_sb3_evaluates_it():
    """``evaluate_policy`` hands the state around itself."""
    model = RecurrentPPO("MlpLstmPolicy", "Pendulum-v1", seed=0, device="cpu", policy_kwargs={"lstm_hidden_size": 8})
    env = make_vec_env("Pendulum-v1", n_envs=2, seed=0)
    expected = evaluate_policy(model, env, n_eval_episodes=4, return_episode_rewards=True)
    env.seed(0)
    assert expected == evaluate_policy(model, env, n_eval_episodes=4, return_episode_rewards=True), "the same episodes"
    env.seed(0)
    rewards = evaluate_policy(compress(model, bits=32), env, n_eval_episodes=4, return_episode_rewards=True)[0]
    np.testing.assert_allclose(rewards, expected[0], rtol=1e-3)


@pytest.mark.parametrize("sparse", [False, True], ids=["stock", "sparse"])
def test_from_the_command_line(sparse, tmp_path, capsys):
    """The zip names its algorithm, calibration and returns are those of episodes with a state, and the file plays the same."""
    policy = SparseRecurrentPPOPolicy if sparse else "MlpLstmPolicy"
    model = RecurrentPPO(policy, "Pendulum-v1", n_steps=64, seed=0, device="cpu", policy_kwargs={"lstm_hidden_size": 8})
    model.learn(64)
    with th.no_grad():
        model.policy.lstm_actor.weight_hh_l0.mul_(4)
        model.policy.action_net.weight.mul_(30)
    model.save(tmp_path / "agent.zip")
    loaded = load_agent(tmp_path / "agent.zip")
    assert type(loaded) is RecurrentPPO and type(load_agent(tmp_path / "agent.zip", "ppo_lstm")) is RecurrentPPO
    options = ["--env", "Pendulum-v1", "--episodes", "2", "--calibration-steps", "250", "--seed", "3", "--bits", "32"]
    main(["compress", str(tmp_path / "agent.zip"), "-o", str(tmp_path), *options])
    assert "lstm_actor.l0" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["algorithm"] == "RecurrentPPO"
    env = make_vec_env("Pendulum-v1")
    expected = []
    for seed in (3, 4):
        env.seed(seed)
        expected.append(evaluate_policy(model, env, n_eval_episodes=1)[0])
    assert report["returns"]["SB3 model"] == pytest.approx(expected, rel=1e-3)
    assert report["returns"]["exported file"] == pytest.approx(expected, rel=1e-2)
    assert set(report["latency_us"]) == {"SB3 predict", *EXACT} - {"auto"}


def test_the_command_line_forgets_where_an_episode_begins(tmp_path):
    model = RecurrentPPO("MlpLstmPolicy", "Pendulum-v1", seed=0, device="cpu", policy_kwargs={"lstm_hidden_size": 8})
    model.save(tmp_path / "agent.zip")
    compress_agent(
        tmp_path / "agent.zip", tmp_path, env="Pendulum-v1", calibration_steps=210, episodes=1, seed=3, latency=False
    )
    observations, starts = play_starts(make_environment("Pendulum-v1", model), model_act(model, None), 210, 4)
    assert np.flatnonzero(starts).tolist() == [0, 200]
    written = []
    for known in (starts, None):
        compress(model, calibration=observations, episode_starts=known).save(tmp_path / "own.sb3s")
        written.append((tmp_path / "own.sb3s").read_bytes() == (tmp_path / "agent.sb3s").read_bytes())
    assert written == [True, False]


def test_states_that_do_not_fit():
    policy = compress(make(), bits=32)
    observations = observe(make(), 1)[0][0]
    part = np.zeros((1, 3, 12))
    for state in ((part,), (part, part[:, :2]), (part[0], part[0]), part, 3, (part, None)):
        with pytest.raises(ValueError, match=r"a state of shape .* pass on the state that the last predict\(\) has returned"):
            policy.predict(observations, state)
    for start in (np.zeros(2), ["yes"] * 3, np.zeros((3, 2))):
        with pytest.raises(ValueError, match="episode_start of shape"):
            policy.predict(observations, None, start)
    with pytest.raises(ValueError, match="has only its deterministic action"):
        policy.predict(observations, deterministic=False)


def test_an_empty_batch():
    for backend in EXACT:
        policy = Policy(compress(make(), bits=32).network, backend)
        actions, state = policy.predict(np.zeros((0, 3), np.float32))
        assert actions.shape == (0, 2) and [part.shape for part in state] == [(1, 0, 12)] * 2
        assert policy.predict(np.zeros((0, 3), np.float32), state, np.zeros(0, bool))[0].shape == (0, 2)


def test_what_is_not_a_number():
    """It stays in the state until the episode ends."""
    for backend in EXACT:
        policy = Policy(compress(make(), bits=32).network, backend)
        action, state = policy.predict(np.array([0, np.nan, 0], np.float32))
        assert np.isnan(action).all() and all(np.isnan(part).all() for part in state)
        assert np.isnan(policy.predict(np.zeros(3, np.float32), state)[0]).all()
        assert np.isfinite(policy.predict(np.zeros(3, np.float32), state, [True])[0]).all()


@pytest.mark.parametrize("seed", range(30))
def test_random_networks_agree(seed):
    """Backends, ONNX and the file, on networks with layers of every kind, from a state that they share."""
    rng = np.random.default_rng(seed)
    network = draw_recurrent_network(rng)
    x, state = draw_observations(rng, network, 20), rng.normal(size=(20, *network.state_shape)).astype(np.float32)
    for row, layer in zip(state.transpose(2, 0, 1, 3), network.lstms, strict=True):
        row[..., layer.outputs :] = 0
    pair = tuple(state.transpose(1, 2, 0, 3))
    after = state.copy()
    expected = network.head(layer_inputs(network, x, after)[-1])
    after = tuple(after.transpose(1, 2, 0, 3))
    for backend in EXACT:
        for part in (slice(0, 3), slice(0, 20)):
            start = tuple(half[:, part] for half in pair)
            actions, got = Policy(decode(encode(network)), backend).predict(x[part], start)
            expect_close(actions, expected[part], network, x[part])
            np.testing.assert_allclose(got, [half[:, part] for half in after], rtol=1e-5, atol=1e-5)
    for form in WEIGHT_FORMS:
        session = onnxruntime.InferenceSession(to_onnx(network, form=form), providers=["CPUExecutionProvider"])
        given = x.astype(np.uint8) if network.image else x
        names = {"observation": given, "h": pair[0], "c": pair[1]}
        _, *got = session.run(["action", "next_h", "next_c"], names)
        truth = state.copy()
        layer_inputs(network, given.astype(np.float32), truth)
        np.testing.assert_allclose(got, truth.transpose(1, 2, 0, 3), rtol=1e-4, atol=1e-4)


def lstm(units, inputs, seed=0):
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(4 * units, inputs + units)), rng.normal(size=4 * units)
    return Layer(weight.astype(np.float32), bias.astype(np.float32), lstm=True)


def linear(outputs, inputs, **kwargs):
    rng = np.random.default_rng(1)
    return Layer(rng.normal(size=(outputs, inputs)).astype(np.float32), np.ones(outputs, np.float32), **kwargs)


def test_the_cell_is_that_of_torch():
    layer = lstm(4, 3)
    module = nn.LSTM(3, 4)
    with th.no_grad():
        for name, value in (("ih", layer.weight[:, :3]), ("hh", layer.weight[:, 3:])):
            getattr(module, f"weight_{name}_l0").copy_(th.from_numpy(value))
        module.bias_ih_l0.copy_(th.from_numpy(layer.bias))
        module.bias_hh_l0.zero_()
        x = th.randn(30, 3)
        expected = module(x)[0].numpy()
        episodes = np.concatenate([module(part)[0].numpy() for part in (x[:7], x[7:8], x[8:])])
    np.testing.assert_allclose(run_lstm(layer, x.numpy())[1], expected, rtol=0, atol=1e-5)
    starts = np.isin(np.arange(30), (0, 7, 8))
    inputs, outputs = run_lstm(layer, x.numpy(), starts)
    np.testing.assert_allclose(outputs, episodes, rtol=0, atol=1e-5)
    last = np.where(starts[:, None], 0, np.roll(episodes, 1, axis=0))
    np.testing.assert_allclose(inputs, np.concatenate([x.numpy(), last], axis=1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("passes", [shrink, order], ids=["shrink", "order"])
def test_passes_keep_the_actions(passes):
    """Units that are read by dead ones alone go, units that read themselves stay only if another does, and inputs go too."""
    first, second = lstm(6, 8), lstm(5, 6, seed=2)
    first.weight[:, 8 + 2] = 0  # No unit reads unit 2, and
    second.weight[:, 2] = 0  # neither does the next layer: it is dead.
    second.weight[:, [0, 3]] = 0  # Units 0 and 3 are read by each other and by themselves, and by no other unit.
    for own in (0, 3):
        readers = [row for row in range(24) if row % 6 not in (0, 3)]
        first.weight[readers, 8 + own] = 0
    first.weight[[unit + gate * 6 for unit in (0, 1, 2, 3, 4, 5) for gate in range(4)], 1] = 0  # Nobody reads input 1.
    layers = (linear(8, 4, activation=Activation("relu")), first, second, linear(2, 5))
    bounds = np.full(2, 100, np.float32)
    network = Network((4,), False, None, layers, Head("clip", (2,), -bounds, bounds))
    small = passes(network)
    if passes is shrink:
        assert [layer.weight.shape for layer in small.layers] == [(7, 4), (12, 10), (20, 8), (2, 5)]
    x = np.random.default_rng(3).normal(size=(50, 4)).astype(np.float32)
    ours, theirs = (play(Policy(each, "numpy"), x, np.zeros((50, 1), bool))[0] for each in (small, network))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def test_an_lstm_that_nobody_reads():
    layers = (lstm(6, 4), replace(linear(2, 6), weight=np.zeros((2, 6), np.float32)))
    network = shrink(Network((4,), False, None, layers, Head("positive", (2,))))
    assert [layer.weight.shape for layer in network.layers] == [(4, 5), (2, 1)]
    np.testing.assert_array_equal(Policy(network).predict(np.ones(4, np.float32))[0], [1, 1])


def file_of(*changes, version=3):
    """A file of an LSTM layer of one unit and two inputs, with changes of bytes of the payload: (offset, byte)."""
    network = Network((2,), False, None, (lstm(1, 2), linear(1, 1)), Head("positive", (1,)))
    payload = bytearray(unpack(encode_as(network, 3)))
    for at, byte in changes:
        payload[at] = byte
    return pack(bytes(payload), version=version)


LAYER = 7


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (file_of(version=1), "of a kind that version 1 does not have"),
        (file_of(version=2), "of a kind that version 2 does not have"),
        (file_of(version=7), "has format version 7, not 1 to 6"),
        (file_of((LAYER, 129)), "a convolution has something that only a linear layer has"),
        (file_of((LAYER, 128 + 16)), "a linear layer has something that only a convolution has"),
        (file_of((LAYER + 1, 1)), "an LSTM layer has an activation, or too many units"),
        (file_of((LAYER + 2, 0)), "a layer is of an unknown kind"),
        (file_of((LAYER + 3, 64)), "an LSTM layer has an activation, or too many units"),
        (file_of((LAYER + 2, 2)), "damaged"),
        (file_of((LAYER, 0)), "damaged"),
    ],
)
def test_damaged_files(data, message):
    decode(file_of())
    with pytest.raises(ValueError, match=message) as error:
        decode(data)
    assert "\n" not in str(error.value) and 30 < len(str(error.value)) < 250


class Direct(RecurrentPPO.policy_aliases["MlpLstmPolicy"]):
    def _process_sequence(self, *args, **kwargs):
        return super()._process_sequence(*args, **kwargs)


class Scaled(RecurrentPPO.policy_aliases["MlpLstmPolicy"]):
    def predict(self, *args, **kwargs):
        action, state = super().predict(*args, **kwargs)
        return action / 2, state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: setattr(model.policy, "__class__", Direct), r"Direct with a _process_sequence\(\) of its own"),
        (lambda model: setattr(model.policy, "__class__", Scaled), r"Scaled with a predict\(\) of its own"),
        (lambda model: setattr(model.policy.lstm_actor, "batch_first", True), "'lstm_actor' .* the batch first, cannot be"),
        (lambda model: setattr(model.policy, "lstm_actor", nn.GRU(3, 12)), "'lstm_actor' .* cannot be exported"),
        (lambda model: model.policy.lstm_actor.register_forward_hook(lambda *_: None), "'lstm_actor' .* with a hook"),
        (lambda model: nn.utils.parametrizations.weight_norm(model.policy.lstm_actor, "weight_hh_l0"), "cannot be exported"),
    ],
)
def test_what_is_refused(change, message):
    model = make()
    change(model)
    with pytest.raises(ValueError, match=message):
        compress(model)


def test_backends_that_do_not_remember():
    with pytest.raises(RuntimeError, match="layer 0 has lstm=True, which the int8 backend does not support"):
        Policy(compress(make()).network, "int8")
