"""The stack of frames as a part of the policy: every backend, ONNX and C against SB3's model behind its own VecFrameStack."""

import ctypes
import json
import re
import shutil
import subprocess
from dataclasses import replace

import gymnasium as gym
import numpy as np
import onnxruntime
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations
from torch import nn

from sb3_sparse import compress
from sb3_sparse.cli import main
from sb3_sparse.export.c.header import to_c
from sb3_sparse.export.onnx import WEIGHT_FORMS, to_onnx
from sb3_sparse.offline.spaces_env import SpacesEnv
from sb3_sparse.runtime import Policy, load
from sb3_sparse.runtime.format.artifact import decode, encode
from sb3_sparse.runtime.network.records import Head, Layer, Network, Normalize, Part, Stack
from sb3_sparse.runtime.network.reference import layer_inputs
from sb3_sparse.runtime.network.stacking import unroll
from tests.networks import AVAILABLE, EXACT, draw_stacked_network, expect_close, pack, unpack

VECTOR = spaces.Box(-2, 2, (3,))
CONTINUOUS = spaces.Box(np.array([-1, -0.05], np.float32), np.array([0.02, 3], np.float32))


class OverTime(BaseFeaturesExtractor):
    """A convolution over the values of each frame, whose channels are the frames."""

    def __init__(self, space):
        super().__init__(space, 8)
        self.net = nn.Sequential(nn.Unflatten(1, (4, 3)), nn.Conv1d(4, 4, 2), nn.LayerNorm((4, 2)), nn.ReLU(), nn.Flatten())

    def forward(self, observations):
        return self.net(observations)


#: Algorithm, policy and its arguments, the space of one frame, actions, frames, and where VecNormalize is.
MODELS = {
    "vectors": (PPO, "MlpPolicy", {}, VECTOR, CONTINUOUS, 4, ""),
    "matrices": (PPO, "MlpPolicy", {}, spaces.Box(-2, 2, (2, 3)), CONTINUOUS, 3, ""),
    "vectors of float64": (PPO, "MlpPolicy", {}, spaces.Box(-2, 2, (3,), np.float64), spaces.MultiBinary(5), 2, ""),
    "bytes": (DQN, "MlpPolicy", {}, spaces.Box(0, 255, (5,), np.uint8), spaces.Discrete(4), 4, ""),
    "images": (DQN, "CnnPolicy", {}, spaces.Box(0, 255, (36, 36, 1), np.uint8), spaces.Discrete(4), 4, ""),
    "images in color": (PPO, "CnnPolicy", {}, spaces.Box(0, 255, (36, 40, 3), np.uint8), CONTINUOUS, 2, ""),
    "channels first": (PPO, "CnnPolicy", {}, spaces.Box(0, 255, (2, 36, 40), np.uint8), CONTINUOUS, 3, ""),
    "images, flattened": (PPO, "MlpPolicy", {}, spaces.Box(0, 255, (8, 9, 2), np.uint8), CONTINUOUS, 3, ""),
    "normalized outside": (PPO, "MlpPolicy", {}, VECTOR, CONTINUOUS, 4, "outside"),
    "normalized inside": (PPO, "MlpPolicy", {}, VECTOR, CONTINUOUS, 4, "inside"),
    "matrices, normalized inside": (PPO, "MlpPolicy", {}, spaces.Box(-2, 2, (2, 3)), CONTINUOUS, 3, "inside"),
    "images, normalized outside": (
        *(PPO, "MlpPolicy", {"normalize_images": False}, spaces.Box(0, 255, (8, 9, 1), np.uint8), CONTINUOUS, 3, "outside"),
    ),
    "images, normalized inside": (
        *(PPO, "MlpPolicy", {"normalize_images": False}, spaces.Box(0, 255, (8, 9, 1), np.uint8), CONTINUOUS, 3, "inside"),
    ),
    "frames of a signal": (PPO, "MlpPolicy", {"features_extractor_class": OverTime}, VECTOR, CONTINUOUS, 4, "inside"),
    "recurrent": (RecurrentPPO, "MlpLstmPolicy", {"lstm_hidden_size": 12}, VECTOR, CONTINUOUS, 3, ""),
    "recurrent, normalized inside": (
        *(RecurrentPPO, "MlpLstmPolicy", {"lstm_hidden_size": 12}, VECTOR, spaces.Discrete(4), 3, "inside"),
    ),
    "recurrent images": (
        *(RecurrentPPO, "CnnLstmPolicy", {"lstm_hidden_size": 12}, spaces.Box(0, 255, (36, 36, 1), np.uint8)),
        *(CONTINUOUS, 2, ""),
    ),
}


class Episodes(gym.Env):
    """Random observations, and episodes that end or are cut off at random times."""

    def __init__(self, space, actions, seed):
        self.observation_space, self.action_space = space, actions
        self._rng = np.random.default_rng(seed)

    def _observe(self):
        space, rng = self.observation_space, self._rng
        if space.dtype == np.uint8:
            # Some are darker than others: a network sees little else in noise.
            return (rng.integers(0, 256, space.shape) * rng.random()).astype(np.uint8)
        return rng.normal(size=space.shape).astype(space.dtype)

    def reset(self, *, seed=None, options=None):
        return self._observe(), {}

    def step(self, action):
        chance = self._rng.random()
        return self._observe(), 0.0, chance < 0.1, 0.1 < chance < 0.2, {}


class Recorder(VecEnvWrapper):
    """Keeps the observations as the environments give them, and which of them begin an episode."""

    def __init__(self, venv):
        super().__init__(venv)
        self.frames, self.starts = [], []

    def reset(self):
        observations = self.venv.reset()
        self.frames, self.starts = [observations.copy()], [np.ones(self.num_envs, bool)]
        return observations

    def step_wait(self):
        observations, rewards, dones, infos = self.venv.step_wait()
        self.frames.append(observations.copy())
        self.starts.append(dones.copy())
        return observations, rewards, dones, infos


def make(name="vectors", **kwargs):
    """A model whose actions depend on every frame, its environments, and what records their frames."""
    algorithm, policy, arguments, space, actions, frames, normalized = MODELS[name]
    recorder = Recorder(DummyVecEnv([lambda seed=seed: Episodes(space, actions, seed) for seed in range(3)]))
    venv = VecNormalize(recorder, clip_obs=1.5) if normalized == "inside" else recorder
    venv = VecFrameStack(venv, frames)
    venv = VecNormalize(venv, clip_obs=1.5) if normalized == "outside" else venv
    settings = {"buffer_size": 10} if algorithm is DQN else {}
    model = algorithm(policy, venv, seed=0, device="cpu", policy_kwargs={**arguments, **kwargs}, **settings)
    statistics = model.get_vec_normalize_env()
    if statistics is not None:
        statistics.training = False
        rng = np.random.default_rng(1)
        size = statistics.obs_rms.mean.shape
        scale = 100 if space.dtype == np.uint8 else 1
        statistics.obs_rms.mean, statistics.obs_rms.var = scale * rng.random(size), scale**2 * (rng.random(size) + 0.1)
    with th.no_grad():
        for parameter in model.policy.parameters():
            if parameter.dim() > 1:
                parameter.mul_(1.5)
        for module in (getattr(model.policy, each, None) for each in ("action_net", "lstm_actor")):
            for parameter in [] if module is None else module.parameters():
                parameter.normal_(std=0.5)
    return model, model.get_env(), recorder


def play(model, venv, recorder, count=40):
    """The model's actions behind SB3's own stack, the frames that the stack was given, and where episodes begin."""
    observations, state, starts, actions = venv.reset(), None, np.ones(3, bool), []
    for step in range(count):
        action, state = model.predict(observations, state, starts, deterministic=True)
        actions.append(action)
        if step < count - 1:
            observations, _, starts, _ = venv.step(action)
    return np.stack(actions), np.stack(recorder.frames), np.stack(recorder.starts)


def replay(policy, frames, starts, state=None):
    actions = []
    for frame, start in zip(frames, starts, strict=True):
        action, state = policy.predict(frame, state=state, episode_start=start, deterministic=True)
        actions.append(action)
    return np.stack(actions), state


@pytest.mark.parametrize("name", MODELS)
def test_every_backend_plays_as_the_model(name):
    """To 1e-5, over episodes that begin at other times in each of three environments, one frame per call."""
    model, venv, recorder = make(name)
    expected, frames, starts = play(model, venv, recorder)
    assert 3 < starts[1:].sum() and len(np.unique(expected.reshape(120, -1), axis=0)) > 2, "it tests something"
    network = compress(model, bits=32, frame_stack=MODELS[name][5]).network
    data = encode(network)
    assert data[4] >= 4 and encode(decode(data)) == data
    for backend in EXACT:
        policy = Policy(decode(data), backend)
        actions, state = replay(policy, frames, starts)
        assert actions.dtype == expected.dtype and actions.shape == expected.shape
        np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-5)
        assert state[-1].shape == (3, *network.shape)
        alone = [replay(policy, frames[:, env], starts[:, env, None])[0] for env in range(3)]
        np.testing.assert_allclose(np.stack(alone, axis=1), expected, rtol=1e-5, atol=1e-5)
    # With the frames forgotten, the actions are others.
    forgotten = np.stack([policy.predict(frame)[0] for frame in frames])
    assert not np.allclose(forgotten, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", WEIGHT_FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_onnx_plays_as_the_model(name, form):
    model, venv, recorder = make(name)
    expected, frames, starts = play(model, venv, recorder)
    network = compress(model, bits=32, frame_stack=MODELS[name][5]).network
    session = onnxruntime.InferenceSession(to_onnx(network, form=form), providers=["CPUExecutionProvider"])
    states = {
        each.name: np.zeros([3 if size == "n" else size for size in each.shape], "u1" if "uint8" in each.type else "f4")
        for each in session.get_inputs()
        if each.name != "observation"
    }
    assert set(states) == {"frames", *("hc" if network.lstms else "")}
    outputs = ["action", *(f"next_{key}" for key in states)]
    actions = []
    for frame, start in zip(frames, starts, strict=True):
        frame = np.moveaxis(frame, -1, 1) if network.image and frame.shape[1:] != network.frame_shape else frame
        for key, state in states.items():
            (state if key == "frames" else state.swapaxes(0, 1))[start] = 0
        given = {"observation": frame.astype("u1" if network.image else "f4"), **states}
        action, *after = session.run(outputs, given)
        states = dict(zip(states, map(np.copy, after), strict=True))
        actions.append(action)
    np.testing.assert_allclose(np.stack(actions), expected, rtol=1e-5, atol=1e-5)


needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler (gcc)")
FLAGS = ["gcc", "-std=c99", "-O2", "-Wall", "-Wextra", "-pedantic", "-Werror"]


def compile_header(network, folder, *flags):
    """``act(frame, start)`` of a header, with one state that it keeps."""
    (folder / "policy.h").write_text(to_c(network))
    (folder / "all.c").write_text("""
        #include "policy.h"
        void act(const policy_observation *observation, policy_action *action, int start) {
            static policy_state state;
            if (start) policy_reset(&state);
            policy_act(&state, observation, action);
        }""")
    subprocess.run([*FLAGS, *flags, "-fPIC", "-shared", str(folder / "all.c"), "-o", str(folder / "all.so")], check=True)
    subprocess.run(["gcc", "-x", "c++", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", str(folder / "all.c")], check=True)
    function = ctypes.CDLL(str(folder / "all.so")).act

    def act(frame, start):
        action = np.zeros(network.head.shape, np.int32 if network.head.kind == "argmax" else np.float32)
        frame = np.moveaxis(frame, -1, 0) if network.image and frame.shape != network.frame_shape else frame
        frame = np.ascontiguousarray(frame, np.uint8 if network.image else np.float32)
        function(ctypes.c_void_p(frame.ctypes.data), ctypes.c_void_p(action.ctypes.data), int(start))
        return action

    return act


@needs_gcc
@pytest.mark.parametrize("name", MODELS)
def test_the_header_plays_as_the_model(name, tmp_path):
    model, venv, recorder = make(name)
    expected, frames, starts = play(model, venv, recorder)
    act = compile_header(compress(model, bits=32, frame_stack=MODELS[name][5]).network, tmp_path)
    actions = np.stack([act(frame, start) for frame, start in zip(frames[:, 0], starts[:, 0], strict=True)])
    np.testing.assert_allclose(actions, expected[:, 0], rtol=1e-5, atol=1e-5)


@needs_gcc
@pytest.mark.parametrize("arithmetic", [[], ["-DPOLICY_INTEGER"]], ids=["float", "integer"])
@pytest.mark.parametrize("name", ["vectors", "images", "matrices, normalized inside", "recurrent"])
def test_the_header_tests_itself(name, arithmetic, tmp_path):
    """Its test vectors are one episode: without the frames before, some of them fail."""
    model, venv, recorder = make(name)
    _, frames, starts = play(model, venv, recorder)
    policy = compress(model, frame_stack=MODELS[name][5], calibration=frames[:, 0], episode_starts=starts[:, 0])
    if policy.network.lstms and arithmetic:
        pytest.skip("there is no integer code for an LSTM")
    text = to_c(policy.network)
    forgetful = re.sub(r"state->frames\[i\] = state->frames\[i \+ \d+\];", "state->frames[i] = 0;", text)
    assert text.count("#error") - forgetful.count("#error") == 0 and text != forgetful
    for number, tested in enumerate((text, forgetful)):
        (tmp_path / "policy.h").write_text(tested)
        command = [*FLAGS, *arithmetic, "-x", "c", "-DPOLICY_MAIN", str(tmp_path / "policy.h"), "-o", str(tmp_path / "test")]
        subprocess.run(command, check=True)
        done = subprocess.run([str(tmp_path / "test")], capture_output=True, text=True, check=False)
        assert done.returncode == number, done.stdout


@pytest.mark.parametrize("name", ["vectors", "matrices", "images", "normalized outside", "recurrent"])
def test_calibration_stacks_the_frames(name):
    """The same file as of stacked observations, but for the stack; frames of the last episode do not count."""
    model, venv, recorder = make(name)
    play(model, venv, recorder, 100)
    frames, starts = np.stack(recorder.frames)[:, 0], np.stack(recorder.starts)[:, 0]
    stack = StackedObservations(1, MODELS[name][5], MODELS[name][3])
    stacks = np.stack(
        [
            (stack.reset(frame[None]) if start else stack.update(frame[None], [False], [{}])[0])[0].copy()
            for frame, start in zip(frames, starts, strict=True)
        ]
    )
    whole = compress(model, calibration=stacks, episode_starts=starts)
    ours = compress(model, calibration=frames, episode_starts=starts, frame_stack=MODELS[name][5])
    assert encode(replace(ours.network, stack=None)) == encode(whole.network)
    # Of one long episode there are other stacks.
    other = compress(model, calibration=frames, frame_stack=MODELS[name][5])
    assert encode(other.network) != encode(ours.network)


def test_calibration_of_normalized_frames():
    """The ranges are those of normalized stacks."""
    model, venv, recorder = make("normalized inside")
    stacks = [venv.reset()[0].copy()]
    for _ in range(199):
        stacks.append(venv.step(np.stack([venv.action_space.sample()] * 3))[0][0].copy())
    frames, starts = np.stack(recorder.frames)[:, 0], np.stack(recorder.starts)[:, 0]
    network = compress(model, calibration=frames, episode_starts=starts, frame_stack=4).network
    found = layer_inputs(replace(network, stack=None), np.array(stacks, np.float32))[1:-1]
    np.testing.assert_allclose(network.ranges[1:], [np.abs(inputs).max() for inputs in found], rtol=1e-4)
    other = compress(model, calibration=frames, frame_stack=4).network
    assert encode(other) != encode(network)


@pytest.mark.parametrize("name", ["vectors", "images", "normalized inside", "recurrent"])
def test_8_bits_agree(name):
    model, venv, recorder = make(name)
    expected, frames, starts = play(model, venv, recorder, 100)
    policy = compress(model, calibration=frames[:, 0], episode_starts=starts[:, 0], frame_stack=MODELS[name][5])
    assert all(layer.quantized for layer in policy.network.layers)
    for backend in AVAILABLE if name != "recurrent" else EXACT:
        actions = replay(Policy(policy.network, backend), frames, starts)[0]
        if expected.dtype == np.int64:
            assert np.mean(actions == expected) > 0.97
        else:
            wide = (CONTINUOUS.high - CONTINUOUS.low) / 2
            assert np.abs((actions - expected) / wide).mean() < 0.02


def test_masks_and_frames():
    """MaskablePPO: in Python, and in C with the values of all actions."""
    space = spaces.Box(-2, 2, (3,))
    venv = VecFrameStack(DummyVecEnv([lambda: Episodes(space, spaces.Discrete(6), 0)]), 3)
    model = MaskablePPO("MlpPolicy", venv, seed=0, device="cpu")
    with th.no_grad():
        model.policy.action_net.weight.normal_()
    policy, state, observation = compress(model, bits=32, frame_stack=3), None, venv.reset()
    rng = np.random.default_rng(0)
    for frame in observation[:, -3:] + rng.normal(size=(30, 1, 3)):
        masks = rng.random((1, 6)) < 0.5
        masks[0, rng.integers(6)] = True
        observation = np.concatenate([observation[:, 3:], frame], axis=1)
        expected, _ = model.predict(observation, deterministic=True, action_masks=masks)
        if state is None:
            state = (np.roll(observation, 3, axis=1).astype(np.float32),)
        action, state = policy.predict(frame, state, action_masks=masks)
        np.testing.assert_array_equal(action, expected)
    assert "policy_choose" in to_c(policy.network, masks=True)


def test_sb3_evaluates_it(tmp_path):
    """``evaluate_policy`` hands the state around itself, in an environment without a stack."""
    env = VecFrameStack(make_vec_env("Pendulum-v1", n_envs=2, seed=0), 4)
    model = PPO("MlpPolicy", env, seed=0, device="cpu")
    env.seed(0)
    expected, _ = evaluate_policy(model, env, n_eval_episodes=4, return_episode_rewards=True)
    compress(model, bits=32, frame_stack=4).save(tmp_path / "policy.sb3s")
    plain = make_vec_env("Pendulum-v1", n_envs=2, seed=0)
    plain.seed(0)
    rewards, _ = evaluate_policy(load(tmp_path / "policy.sb3s"), plain, n_eval_episodes=4, return_episode_rewards=True)
    np.testing.assert_allclose(rewards, expected, rtol=1e-3)


def test_a_state_is_the_callers(tmp_path):
    """It may be kept and given to another backend, and a call does not change it."""
    model, venv, recorder = make()
    _, frames, starts = play(model, venv, recorder)
    policy = compress(model, frame_stack=4)
    _, state = replay(policy, frames[:9], starts[:9])
    kept = [part.copy() for part in state]
    first = replay(policy, frames[9:], starts[9:], state)[0]
    np.testing.assert_array_equal(kept, state)
    for backend in EXACT:
        again = replay(Policy(policy.network, backend), frames[9:], starts[9:], state)[0]
        np.testing.assert_allclose(again, first, rtol=0, atol=1e-5)
    for wrong in ((), (state[0][:2],), (state[0], state[0]), state[0], 3):
        with pytest.raises(ValueError, match=r"a state of shape .* pass on the state .* arrays of shape \(3, 12\)"):
            policy.predict(frames[0], wrong)
    with pytest.raises(ValueError, match=r"of shape \(12,\) does not fit this policy: it needs \(3,\)"):
        policy.predict(np.zeros(12))
    for start in (np.zeros(2), ["yes"] * 3):
        with pytest.raises(ValueError, match="episode_start of shape"):
            policy.predict(frames[0], None, start)
    actions, state = policy.predict(np.zeros((0, 3)))
    assert actions.shape == (0, 2) and state[0].shape == (0, 12)


def test_pixels_may_be_floats():
    """Bytes, and the same numbers as floats, one after the other."""
    model, venv, recorder = make("images")
    expected, frames, starts = play(model, venv, recorder)
    for backend in EXACT:
        policy, state = Policy(compress(model, bits=32, frame_stack=4).network, backend), None
        for index, (frame, start) in enumerate(zip(frames, starts, strict=True)):
            frame = frame if index % 3 else frame.astype(np.float32)
            action, state = policy.predict(frame, state, start)
            np.testing.assert_array_equal(action, expected[index])


@pytest.mark.parametrize("normalized", ["", "outside", "inside"])
def test_from_the_command_line(normalized, tmp_path, capsys):
    """The model plays behind SB3's stack, and the file plays the same episodes one frame at a time."""
    venv = make_vec_env("Pendulum-v1")
    venv = VecNormalize(venv, clip_obs=1.5) if normalized == "inside" else venv
    venv = VecFrameStack(venv, 3)
    venv = VecNormalize(venv, clip_obs=1.5) if normalized == "outside" else venv
    model = PPO("MlpPolicy", venv, n_steps=64, batch_size=64, n_epochs=1, seed=0, device="cpu").learn(256)
    with th.no_grad():
        model.policy.action_net.weight.mul_(30)
    model.save(tmp_path / "agent.zip")
    statistics = model.get_vec_normalize_env()
    if statistics is not None:
        statistics.training = statistics.norm_reward = False
        statistics.save(tmp_path / "vecnormalize.pkl")
    options = ["--env", "Pendulum-v1", "--episodes", "2", "--calibration-steps", "250", "--seed", "3", "--bits", "32"]
    arguments = ["compress", str(tmp_path / "agent.zip"), "-o", str(tmp_path), "--one-frame", *options]
    main([*arguments, "--frame-stack", "3"])
    said = capsys.readouterr().out
    assert "keeps the last 3 itself" in said and "3 observations at once" not in said
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["one_frame"] and report["frame_stack"] == 3
    expected = []
    for seed in (3, 4):
        venv.seed(seed)
        expected.append(evaluate_policy(model, venv, n_eval_episodes=1, warn=False)[0])
    assert report["returns"]["SB3 model"] == pytest.approx(expected, rel=1e-3)
    assert report["returns"]["exported file"] == pytest.approx(expected, rel=1e-2)
    assert set(report["latency_us"]) == {"SB3 predict", *AVAILABLE} - {"auto"}
    assert load(tmp_path / "agent.sb3s").network.frame_shape == (3,)


def test_the_command_line_needs_the_number_of_frames(tmp_path, capsys):
    model = PPO("MlpPolicy", VecFrameStack(make_vec_env("Pendulum-v1"), 3), device="cpu")
    model.save(tmp_path / "agent.zip")
    arguments = ["compress", str(tmp_path / "agent.zip"), "-o", str(tmp_path / "out"), "--one-frame"]
    for options, message in (([], "give --frame-stack N"), (["--frame-stack", "2"], "are not 2 frames")):
        with pytest.raises(SystemExit):
            main([*arguments, *options])
        assert message in capsys.readouterr().err
    main([*arguments, "--frame-stack", "3"])
    assert load(tmp_path / "out" / "agent.sb3s").network.stack.frames == 3
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["latency_us"]["numpy"]["speedup"] > 1


@pytest.mark.parametrize("seed", range(30))
def test_random_networks_agree(seed):
    """Backends, ONNX and the file, over three steps."""
    rng = np.random.default_rng(seed)
    network = draw_stacked_network(rng)
    plain = replace(network, stack=None)
    frames = rng.normal(size=(3, 20, *network.frame_shape)).astype(np.float32)
    frames = np.abs(100 * frames).astype(np.uint8) if network.image else frames
    stacks = np.stack([unroll(network, frames[:, env], None, np.arange(3)) for env in range(20)], axis=1)
    for backend in EXACT:
        policy, state = Policy(decode(encode(network)), backend), None
        for step in range(3):
            actions, state = policy.predict(frames[step], state)
            np.testing.assert_array_equal(state[0], stacks[step])
            expected = network.head(layer_inputs(plain, stacks[step])[-1])
            expect_close(actions, expected, plain, stacks[step])
    session = onnxruntime.InferenceSession(to_onnx(network), providers=["CPUExecutionProvider"])
    last = np.zeros_like(stacks[0])
    for step in range(3):
        action, last = session.run(["action", "next_frames"], {"observation": frames[step], "frames": last})
        np.testing.assert_allclose(last, stacks[step], rtol=1e-6, atol=1e-6)
        expected = network.head(layer_inputs(plain, stacks[step])[-1])
        expect_close(action, expected, plain, stacks[step])


# What is refused


def make_env(space, frames=4, *, order=None, wrap=VecFrameStack):
    venv = DummyVecEnv([lambda: SpacesEnv(space, CONTINUOUS)])
    return venv if wrap is None else wrap(venv, frames, order)


class OwnStack(VecFrameStack):
    """May do anything."""


@pytest.mark.parametrize(
    ("env", "frames", "message"),
    [
        (make_env(VECTOR), 1, "frame_stack=1: give the number of frames"),
        (make_env(VECTOR), 4.0, "frame_stack=4.0: give the number of frames"),
        (make_env(VECTOR), True, "frame_stack=True: give the number of frames"),
        (make_env(VECTOR), 256, "frame_stack=256: give the number of frames"),
        (make_env(VECTOR), 5, r"observations of shape \(12,\) are not 5 frames"),
        (make_env(VECTOR), 2, "does not fit the model's environment, which stacks 4 frames"),
        (make_env(spaces.Box(-2, 2, (12,)), wrap=None), 4, "the model's environment has none"),
        (make_env(VECTOR, wrap=OwnStack), 4, "the model's environment has OwnStack"),
        (VecFrameStack(make_env(VECTOR, 2), 2), 4, "the model's environment has VecFrameStack and VecFrameStack"),
        (make_env(spaces.Box(-2, 2, (2, 4)), order="first"), 4, "along dimension 0, and .* would lie along dimension 1"),
        (make_env(spaces.Box(0, 255, (9, 8, 2), np.uint8), order="first"), 2, "which stacks 4 frames"),
        (make_env(spaces.Box(0, 255, (9, 8, 4), np.uint8), order="first"), 4, "along dimension 1, and .* along dimension 0"),
        # SB3 takes the height for the channels where there are more channels than rows.
        (make_env(spaces.Box(0, 255, (8, 9, 4), np.uint8)), 4, "along dimension 2, and .* would lie along dimension 0"),
    ],
)
def test_stacks_that_are_refused(env, frames, message):
    model = PPO("MlpPolicy", env, device="cpu", n_steps=2, batch_size=2)
    with pytest.raises(ValueError, match=message):
        compress(model, frame_stack=frames)


def test_a_dict_is_refused():
    space = spaces.Dict({"a": VECTOR, "b": VECTOR})
    model = PPO("MultiInputPolicy", make_env(space), device="cpu")
    with pytest.raises(ValueError, match="frame_stack=4 is for observations of one Box, not Dict"):
        compress(model, frame_stack=4)
    assert compress(model, bits=32).network.stack is None


def test_images_whose_frames_cannot_be_told_apart(tmp_path):
    """A zip does not say along which dimension small images with many channels were stacked."""
    for shape, answer in (((12, 12, 1), "along which dimension"), ((40, 36, 1), None)):
        model = PPO("MlpPolicy", make_env(spaces.Box(0, 255, shape, np.uint8), 4), device="cpu")
        model.save(tmp_path / "agent.zip")
        loaded = PPO.load(tmp_path / "agent.zip", device="cpu")
        assert compress(model, bits=32, frame_stack=4).network.frame_shape == (1, *shape[:2])
        if answer is None:
            assert compress(loaded, bits=32, frame_stack=4).network.frame_shape == (1, *shape[:2])
            continue
        with pytest.raises(ValueError, match=answer):
            compress(loaded, frame_stack=4)


def test_normalized_frames_need_their_stack():
    model, _, _ = make("normalized inside")
    with pytest.raises(ValueError, match=r"VecFrameStack around VecNormalize is exported with frame_stack=4 \(--one-frame"):
        compress(model)


def test_normalized_frames_of_integers_are_refused():
    """VecFrameStack rounds them to the integers of the environment."""
    venv = DummyVecEnv([lambda: SpacesEnv(spaces.Box(-9, 9, (3,), np.int32), CONTINUOUS)])
    model = PPO("MlpPolicy", VecFrameStack(VecNormalize(venv), 4), device="cpu")
    with pytest.raises(ValueError, match="cannot be exported for observations of int32, because it rounds"):
        compress(model, frame_stack=4)


def network_with(stack, shape=(4,), **kwargs):
    weight = np.ones((1, int(np.prod(shape))), np.float32)
    return Network(shape, False, None, (Layer(weight, weight[:, 0]),), Head("positive", (1,)), stack=stack, **kwargs)


def normalization(*shape):
    return Normalize(np.zeros(shape, np.float32), np.ones(shape, np.float32), 1.0)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (network_with(Stack(1)), "is not a stack of 1 frames"),
        (network_with(Stack(3)), r"an observation of shape \(4,\) is not a stack of 3 frames"),
        (network_with(Stack(2, normalization(4))), r"the normalization of a frame of shape \(2,\) does not fit it"),
        (network_with(Stack(2), parts=(Part("", (4,)),)), "not for observations of parts"),
    ],
)
def test_records_that_do_not_fit(network, message):
    for reader in (Policy, to_c, to_onnx):
        with pytest.raises(ValueError, match=message):
            reader(network)


def test_damaged_files_are_refused():
    """Every byte of the stack says something, and an older reader refuses the version."""
    limits = normalization(2)
    for stack in (Stack(2), Stack(2, limits), Stack(4, normalization(1)), Stack(2, replace(limits, limit=limits.scale))):
        network = network_with(stack)
        data = encode(network)
        found = decode(data).stack
        assert found.frames == stack.frames and (found.normalize is None) == (stack.normalize is None)
        payload = unpack(data)
        assert payload[5] == 32
        for position, byte, message in (
            (6, 0, "not a stack of 0 frames"),
            (6, 1, "not a stack of 1 frames"),
            (6, 3, "not a stack of 3 frames"),
            (7, 3, "normalization of its frames is of an unknown kind"),
            (5, 32 + 64, "unknown flags"),
        ):
            damaged = bytearray(payload)
            damaged[position] = byte
            with pytest.raises(ValueError, match=message):
                decode(pack(bytes(damaged), version=data[4]))
        with pytest.raises(ValueError, match="unknown flags"):
            decode(pack(payload, version=3))
