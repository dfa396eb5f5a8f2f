"""Observations that are dicts or classes: every form of an exported policy acts as SB3's model does."""

import ctypes
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import gymnasium as gym
import numpy as np
import onnxruntime
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import CombinedExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from sb3_sparse import GradualPruningCallback, QATCallback, compress
from sb3_sparse.agents import load_agent, load_normalization
from sb3_sparse.export.c import ends
from sb3_sparse.export.c.integer.simulation import simulate_integers
from sb3_sparse.export.onnx import WEIGHT_FORMS, to_onnx
from sb3_sparse.export.onnx_graph import OnnxGraph
from sb3_sparse.offline import BC, OfflineDataset
from sb3_sparse.runtime import Policy, load
from sb3_sparse.runtime.backends import native
from sb3_sparse.runtime.backends.build import NATIVE
from sb3_sparse.runtime.backends.plan import Plan
from sb3_sparse.runtime.format.artifact import decode, encode
from sb3_sparse.runtime.network.assemble import assemble
from sb3_sparse.runtime.network.records import Head, Layer, Network
from sb3_sparse.runtime.network.reference import layer_inputs
from tests.networks import AVAILABLE, EXACT, FAMILY_NAMES, draw_arrays, draw_parted_network, expect_close

HUB = Path(__file__).parent.parent.parent / "shared/hub"
TWO = spaces.Box(np.array([-2, 0], np.float32), np.array([3, 1], np.float32))
GOAL = spaces.Dict(
    observation=spaces.Box(-5, 5, (6,)), achieved_goal=spaces.Box(-1, 1, (3,)), desired_goal=spaces.Box(-1, 1, (3,))
)
MIXED = spaces.Dict(
    {
        "phase": spaces.Discrete(5),
        "arm": spaces.Box(-300, 300, (2, 3), np.float64),
        "int": spaces.MultiDiscrete([3, 4]),
        "2 b": spaces.MultiBinary(4),
    }
)
IMAGE = spaces.Dict(cam=spaces.Box(0, 255, (36, 36, 3), np.uint8), arm=spaces.Box(-3, 3, (4,)), phase=spaces.Discrete(3))


class Samples(gym.Env):
    """Observations drawn from their space; an action brings the more reward the smaller it is."""

    def __init__(self, observations, actions):
        self.observation_space, self.action_space = observations, actions
        self.steps = 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample(), -float(np.sum(np.square(action))), self.steps == 5, False, {}


def make(algorithm, observations, actions=TWO, *, normalized=None, policy=None, **kwargs):
    """A model with weights that are not small; ``normalized`` are the keys that VecNormalize normalizes."""
    venv = DummyVecEnv([lambda: Samples(observations, actions)])
    if normalized is not None:
        venv = VecNormalize(venv, norm_obs_keys=normalized, clip_obs=1.5)
        venv.seed(0)
        for _ in range(30):
            venv.reset()
    policy = policy or ("MultiInputPolicy" if isinstance(observations, spaces.Dict) else "MlpPolicy")
    model = algorithm(policy, venv, seed=0, device="cpu", **kwargs)
    with th.no_grad():
        for weight in model.policy.parameters():
            weight.mul_(1.5) if weight.ndim > 1 else weight.normal_(0, 0.2)
    return model


CASES = {
    "goal": lambda: make(SAC, GOAL),
    "goal, normalized": lambda: make(SAC, GOAL, normalized=["observation", "achieved_goal", "desired_goal"]),
    "goal, one key normalized": lambda: make(SAC, GOAL, normalized=["achieved_goal"]),
    "mixed": lambda: make(PPO, MIXED, spaces.Discrete(4)),
    "mixed, normalized": lambda: make(A2C, MIXED, normalized=["arm"]),
    "class": lambda: make(DQN, spaces.Discrete(16), spaces.Discrete(4)),
    "classes": lambda: make(A2C, spaces.MultiDiscrete([3, 5, 2])),
    "binary": lambda: make(PPO, spaces.MultiBinary(7)),
    "image": lambda: make(PPO, IMAGE, normalized=["arm"]),
    "image alone": lambda: make(A2C, spaces.Dict(cam=IMAGE["cam"])),
    # By SB3's check these are not images: they are flattened, and not divided by 255.
    "flat image of bits": lambda: make(PPO, spaces.Dict(eye=spaces.Box(0, 1, (2, 5, 4), np.uint8), arm=IMAGE["arm"])),
    "flat image of floats": lambda: make(
        SAC, spaces.Dict(eye=spaces.Box(0, 255, (5, 4, 3)), arm=IMAGE["arm"]), normalized=["eye"]
    ),
    "signal": lambda: with_extractor(
        Towers,
        spaces.Dict(sound=spaces.Box(-2, 2, (2, 9)), arm=IMAGE["arm"]),
        modules={
            "sound": nn.Sequential(
                nn.Conv1d(2, 4, 3), nn.PReLU(4), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(12, 5), nn.ReLU()
            ),
            "arm": nn.Linear(4, 6),
        },
    ),
}
each = pytest.mark.parametrize("case", CASES)


def observe(model, count):
    """Observations as the environment gives them, and the actions of the model."""
    space = (
        model.get_env().observation_space if model.get_vec_normalize_env() is None else model.get_env().venv.observation_space
    )
    if isinstance(space, spaces.Dict) and "cam" in space.spaces:
        space = spaces.Dict({key: IMAGE[key] for key in space.spaces})
    space.seed(1)
    drawn = [space.sample() for _ in range(count)]
    x = {key: np.stack([row[key] for row in drawn]) for key in drawn[0]} if isinstance(space, spaces.Dict) else np.stack(drawn)
    normalization = model.get_vec_normalize_env()
    normalized = x if normalization is None else normalization.normalize_obs(x)
    return drawn, x, model.predict(normalized, deterministic=True)[0]


def assert_same(actions, expected, tolerance=1e-5):
    assert actions.shape == expected.shape
    np.testing.assert_allclose(actions, expected, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def models():
    cache = {}
    return lambda case: cache.setdefault(case, CASES[case]())


@each
def test_backends_act_as_the_model(case, models, tmp_path):
    model = models(case)
    rows, x, expected = observe(model, 20)
    compress(model, bits=32).save(tmp_path / "a.sb3s")
    for backend in AVAILABLE:
        policy = load(tmp_path / "a.sb3s", backend)
        assert_same(policy.predict(x)[0], expected)
        assert_same(np.stack([policy.predict(row)[0] for row in rows[:5]]), expected[:5])


@each
def test_eight_bits_stay_close(case, models, tmp_path):
    """Within a hundredth of the range of continuous actions, and 19 of 20 discrete actions."""
    model = models(case)
    _, x, expected = observe(model, 200)
    for calibration in (None, x):
        compress(model, calibration=calibration).save(tmp_path / "a.sb3s")
        for backend in AVAILABLE:
            actions = load(tmp_path / "a.sb3s", backend).predict(x)[0]
            if actions.dtype == np.int64:
                assert (actions == expected).mean() >= 0.95
            else:
                assert np.abs((actions - expected) / (TWO.high - TWO.low)).max() < 0.02


@each
@pytest.mark.parametrize("form", WEIGHT_FORMS)
def test_onnx_acts_as_the_model(case, form, models):
    model = models(case)
    _, x, expected = observe(model, 20)
    kinds = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int64)": np.int64}
    for bits in (8, 32):
        policy = compress(model, bits=bits)
        session = onnxruntime.InferenceSession(to_onnx(policy.network, form=form), providers=["CPUExecutionProvider"])
        arrays = x if isinstance(x, dict) else {"observation": x}
        arrays = {key: np.moveaxis(array, -1, 1) if key == "cam" else array for key, array in arrays.items()}
        inputs = {each.name: arrays[each.name].astype(kinds[each.type]) for each in session.get_inputs()}
        assert set(inputs) == set(arrays)
        actions = session.run(["action"], inputs)[0]
        assert_same(actions, expected if bits == 32 else policy.predict(x)[0])


needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler (gcc)")
FLAGS = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wno-unused-function"]


@needs_gcc
@each
def test_the_header_acts_as_the_model(case, models, tmp_path):
    model = models(case)
    _, x, expected = observe(model, 20)
    policy = compress(model, bits=32)
    given = ends.arguments(policy.network, "p")
    policy.to_c(tmp_path / "p.h", name="p")
    call = f"void run({ends.declare(given, 'p')}, p_action *y) {{ p_act({', '.join(each.name for each in given)}, y); }}"
    (tmp_path / "p.c").write_text(f'#include "p.h"\n{call}\n')
    subprocess.run(["gcc", *FLAGS, "-fPIC", "-shared", str(tmp_path / "p.c"), "-o", str(tmp_path / "p.so")], check=True)
    run = ctypes.CDLL(str(tmp_path / "p.so")).run
    kinds = {"float": np.float32, "uint8_t": np.uint8, "int32_t": np.int32}
    arrays = x if isinstance(x, dict) else {"": x}
    arrays = {key: np.moveaxis(array, -1, 1) if key == "cam" else array for key, array in arrays.items()}
    actions = np.zeros(expected.shape, np.int32 if expected.dtype == np.int64 else np.float32)
    for index in range(len(actions)):
        row = [arrays["" if each.part is None else each.part.key][index].astype(kinds[each.kind], order="C") for each in given]
        action = actions[index : index + 1]
        run(*(ctypes.c_void_p(np.asarray(array).ctypes.data) for array in (*row, action)))
    assert_same(actions, expected)


@needs_gcc
@pytest.mark.parametrize(
    "case", ["goal, one key normalized", "mixed, normalized", pytest.param("image", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("mode", ["", "INTEGER", "SIMD"])
def test_self_test(case, mode, models, tmp_path):
    if mode == "SIMD" and not FAMILY_NAMES:
        pytest.skip("this processor has no family of kernels")
    model = models(case)
    policy = compress(model, calibration=observe(model, 200)[1])
    policy.to_c(tmp_path / "a.h", name="a")
    chosen = [f"-DA_{mode}"] * bool(mode) + ["-march=native"] * (mode == "SIMD")
    command = ["gcc", *FLAGS, *chosen, "-x", "c", "-DA_MAIN", str(tmp_path / "a.h"), "-o", str(tmp_path / "a")]
    subprocess.run(command, check=True)
    done = subprocess.run([str(tmp_path / "a")], capture_output=True, text=True, check=False)
    assert done.stdout == "0 of 8 test vectors fail\n"


def test_integers_stay_close_to_floats(models):
    model = models("image")
    _, x, expected = observe(model, 200)
    network = compress(model, calibration=x).network
    encoders = {
        key: lambda array, encoder=encoder: simulate_integers(encoder, array) for key, encoder in network.encoders.items()
    }
    arrays = {**x, "cam": np.moveaxis(x["cam"], -1, 1)}
    actions = network.head(simulate_integers(network, assemble(network, arrays, encoders)))
    assert np.abs((actions - expected) / (TWO.high - TWO.low)).max() < 0.02


@needs_gcc
def test_keys_become_identifiers(models, tmp_path):
    network = compress(models("mixed"), bits=32).network
    header = {each.part.key: each.name for each in ends.arguments(network, "p")}
    assert header == {"phase": "phase", "arm": "arm", "int": "int_", "2 b": "observation_2_b"}
    names = ("x", "action", "while", "p_action", "int32_t", "*/", "ä", "a b", "a_b", "p_part1_act")
    space = spaces.Dict({name: spaces.Box(-1, 1, (1,)) for name in names})
    policy = compress(make(PPO, space))
    found = [each.name for each in ends.arguments(policy.network, "p")]
    assert len(set(found)) == len(names) and not set(found) & {"x", "action", "while", "p_action", "int32_t", "p_part1_act"}
    policy.to_c(tmp_path / "p.h", name="p")
    for language in ("c", "c++"):
        command = ["gcc", "-x", language, "-fsyntax-only", "-Wall", "-Werror", "-Wno-unused-function", str(tmp_path / "p.h")]
        subprocess.run(command, check=True)


def test_the_page_has_the_arguments_of_the_header(tmp_path):
    keys = ("observation", "achieved_goal", "desired_goal")
    space = spaces.Dict({key: spaces.Box(-1, 1, (3,)) for key in keys})
    compress(make(PPO, space)).to_c(tmp_path / "reach.h")
    page = (Path(__file__).parent.parent / "docs/guide/export.md").read_text()
    (call,) = re.findall(r"`(policy_act\(const float .*\))`", page)
    assert f"void {call};" in (tmp_path / "reach.h").read_text()


def test_random_networks():
    """Encoders of every kind, and limits of any size."""
    for seed in range(16):
        rng = np.random.default_rng(seed)
        network = decode(encode(draw_parted_network(rng)))
        arrays = draw_arrays(rng, network, 20)
        expected = network.head(layer_inputs(network, assemble(network, arrays))[-1])
        x = arrays[""] if "" in arrays else arrays
        for backend in EXACT:
            expect_close(Policy(network, backend).predict(x)[0], expected, network, arrays)
        session = onnxruntime.InferenceSession(to_onnx(network), providers=["CPUExecutionProvider"])
        kinds = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int64)": np.int64}
        inputs = {each.name: arrays.get(each.name, arrays.get("")).astype(kinds[each.type]) for each in session.get_inputs()}
        expect_close(session.run(["action"], inputs)[0], expected, network, arrays)


# Ways to call predict


def without(x, key):
    return {name: array for name, array in x.items() if name != key}


@pytest.mark.parametrize("backend", AVAILABLE)
def test_observations_that_do_not_fit(backend, models):
    policy = compress(models("mixed"), backend=backend)
    rows, x, _ = observe(models("mixed"), 3)
    row = rows[0]
    keys = r"\['2 b', 'arm', 'int', 'phase'\]"
    for wrong, message in [
        (without(row, "arm"), rf"the observation lacks 'arm': this policy takes the keys {keys}"),
        ({**row, "leg": 1}, rf"the observation has the unknown 'leg': this policy takes the keys {keys}"),
        (
            {**row, "arm": np.ones(6)},
            r"'arm' of the observation of shape \(6,\) does not fit .* needs \(2, 3\), or \('n', 2, 3\)",
        ),
        ({**row, "arm": "no"}, "'arm' of the observation must be an array of numbers"),
        ({**row, "phase": 5}, "'phase' of the observation has the class 5, and there are only 0 to 4"),
        ({**row, "phase": -1}, "has the class -1"),
        ({**row, "phase": 1.5}, "has the class 1.5"),
        ({**row, "phase": np.nan}, "has the class nan"),
        ({**row, "int": [2, 4]}, "'int' of the observation has the class 4, and there are only 0 to 3"),
        ({**x, "arm": x["arm"][0]}, "must be as many: '2 b' 3, 'arm' one, 'int' 3, 'phase' 3"),
        ({**x, "arm": x["arm"][:2]}, "must be as many: '2 b' 3, 'arm' 2"),
        (np.ones(22, np.float32), rf"takes a dict of arrays with the keys {keys}, not a ndarray"),
        ((row, {}), "pass the first alone"),
        (None, "not a NoneType"),
    ]:
        with pytest.raises(ValueError, match=message):
            policy.predict(wrong)


@pytest.mark.parametrize("backend", AVAILABLE)
def test_kinds_of_arrays(backend, models):
    policy = compress(models("mixed, normalized"), backend=backend)
    rows, x, _ = observe(models("mixed, normalized"), 3)
    row = rows[0]
    expected = policy.predict(row)[0]
    strided = np.zeros((3, 2), np.float32)
    strided[:] = row["arm"].T
    for other in [
        {key: row[key] for key in reversed(row)},
        {**row, "phase": int(row["phase"])},
        {**row, "phase": np.array(row["phase"], np.int32)},
        {**row, "phase": float(row["phase"])},
        {**row, "arm": row["arm"].tolist()},
        {**row, "arm": row["arm"].astype(np.float32)},
        {**row, "arm": strided.T},
        {**row, "2 b": row["2 b"].astype(bool)},
        {**row, "int": tuple(row["int"])},
    ]:
        np.testing.assert_allclose(policy.predict(other)[0], expected, rtol=0, atol=1e-6)
    again = policy.predict(rows[1])[0]
    assert not np.allclose(again, expected) and np.array_equal(
        policy.predict(row)[0], expected
    ), "an action is not overwritten"
    for size in (0, 1, 3):
        batch = {key: array[:size] for key, array in x.items()}
        assert policy.predict(batch)[0].shape == (size, 2)
    with pytest.raises(ValueError, match="only its deterministic action"):
        policy.predict(row, deterministic=False)


@pytest.mark.parametrize("backend", AVAILABLE)
def test_classes_alone(backend, models):
    policy = compress(models("class"), backend=backend)
    expected = policy.predict(np.arange(16))[0]
    for other in (7, np.int64(7), np.array(7), 7.0):
        action = policy.predict(other)[0]
        assert action.shape == () and action.dtype == np.int64 and action == expected[7]
    assert policy.predict([7, 8])[0].tolist() == expected[7:9].tolist()
    with pytest.raises(ValueError, match="an observation has the class 16, and there are only 0 to 15"):
        policy.predict(16)
    with pytest.raises(ValueError, match=r"of shape \(2, 1\) does not fit this policy: it needs \(\), or \('n',\)"):
        policy.predict([[1], [2]])


@pytest.mark.parametrize("backend", AVAILABLE)
def test_images_with_channels_first_or_last(backend, models):
    policy = compress(models("image"), backend=backend)
    rows, x, _ = observe(models("image"), 3)
    first = {**x, "cam": np.moveaxis(x["cam"], -1, 1)}
    np.testing.assert_allclose(policy.predict(first)[0], policy.predict(x)[0], rtol=0, atol=1e-6)
    single = {key: array[0] for key, array in first.items()}
    np.testing.assert_allclose(policy.predict(single)[0], policy.predict(rows[0])[0], rtol=0, atol=1e-6)


def test_evaluate_policy_of_sb3(models):
    policy, env = compress(models("goal"), bits=32), Monitor(Samples(GOAL, TWO))
    returns = []
    for actor in (models("goal"), policy):
        env.reset(seed=3)
        returns.append(evaluate_policy(actor, env, n_eval_episodes=3, return_episode_rewards=True)[0])
    np.testing.assert_allclose(*returns, rtol=1e-4)


# What is refused


def test_statistics_that_do_not_fit(models):
    other = make(SAC, spaces.Box(-1, 1, (3,)), normalized=None)
    env = VecNormalize(other.get_env())
    with pytest.raises(ValueError, match="statistics of VecNormalize have no names, and those of the model have some"):
        compress(models("goal"), normalization=env)
    dicts = models("goal, normalized").get_vec_normalize_env()
    with pytest.raises(ValueError, match="statistics of VecNormalize have names, and those of the model have none"):
        compress(other, normalization=dicts)
    wide = spaces.Dict({**GOAL.spaces, "observation": spaces.Box(-5, 5, (8,))})
    with pytest.raises(ValueError, match=r"of 'observation' of observations of shape \(6,\), .* have shape \(8,\)"):
        compress(make(SAC, wide), normalization=dicts)
    with pytest.raises(ValueError, match="of 'observation' of observations, which the model has not as a Box: None"):
        compress(make(SAC, spaces.Dict({"a": TWO})), normalization=dicts)


class Towers(CombinedExtractor):
    """Each observation passes modules of its own, and all are concatenated as SB3 does."""

    def __init__(self, space, modules):
        super().__init__(space)
        self.extractors = nn.ModuleDict(modules)
        # What a module gives one observation of its key.
        widths = [module(th.zeros(1, *space[key].shape)).shape[1] for key, module in modules.items()]
        self._features_dim = sum(widths)


class Doubled(CombinedExtractor):
    def forward(self, observations):
        return 2 * super().forward(observations)


def with_extractor(extractor, space=GOAL, **kwargs):
    return make(SAC, space, policy_kwargs={"features_extractor_class": extractor, "features_extractor_kwargs": kwargs})


def test_modules_before_the_concatenation():
    """A vector may pass modules of its own, as an image does."""
    tower = nn.Linear(6, 4)
    model = with_extractor(Towers, modules={"desired_goal": nn.Flatten(), "observation": tower, "achieved_goal": nn.Flatten()})
    _, x, expected = observe(model, 20)
    policy = compress(model, bits=32)
    assert [part.key for part in policy.network.parts] == ["desired_goal", "observation", "achieved_goal"]
    assert list(policy.network.encoders) == ["observation"]
    assert_same(policy.predict(x)[0], expected)
    assert "features_extractor.extractors.observation" in str(policy.report())


def test_features_of_the_shape_of_the_observation_are_not_normalized():
    space = spaces.Dict(arm=spaces.Box(-3, 3, (4,)), phase=spaces.Box(-1, 1, (3,)))
    towers = {"arm": nn.Linear(4, 4), "phase": nn.Flatten()}
    kwargs = {"features_extractor_class": Towers, "features_extractor_kwargs": {"modules": towers}}
    model = make(PPO, space, normalized=["arm", "phase"], policy_kwargs=kwargs)
    _, x, expected = observe(model, 20)
    assert_same(compress(model, bits=32).predict(x)[0], expected)


def test_weights_that_were_pruned_and_quantized_in_training():
    model = SAC(
        "MultiInputPolicy", Samples(GOAL, TWO), seed=0, device="cpu", learning_starts=20, policy_kwargs={"net_arch": [16]}
    )
    model.learn(60, callback=[GradualPruningCallback("actor", 0.8, update_freq=10), QATCallback("actor", start=0.2)])
    _, x, expected = observe(model, 20)
    policy = compress(model)
    assert all(layer.quantized for layer in policy.network.layers) and 0.75 < policy.report().sparsity < 0.85
    assert_same(policy.predict(x)[0], expected)


def test_offline():
    rng, count = np.random.default_rng(0), 100
    space = spaces.Dict({"phase": spaces.Discrete(5), "arm": spaces.Box(-3, 3, (2, 3))})
    x = {"phase": rng.integers(0, 5, count), "arm": rng.normal(size=(count, 2, 3)).astype(np.float32)}
    data = OfflineDataset.from_arrays(
        observations=x,
        actions=rng.uniform(TWO.low, TWO.high, (count, 2)).astype(np.float32),
        rewards=np.zeros(count, np.float32),
        next_observations=x,
        terminations=np.arange(count) == count - 1,
        truncations=np.zeros(count, bool),
        observation_space=space,
        action_space=TWO,
    )
    model = BC("MultiInputPolicy", data, env=None, seed=0, device="cpu").learn(10)
    assert_same(compress(model, bits=32).predict(x)[0], model.predict(x, deterministic=True)[0])


@pytest.mark.parametrize("bits", [8, 32])
def test_features_that_nobody_reads_are_removed(bits):
    """With what leads to them, across the border of the two networks; constant ones become part of the biases."""
    model = make(PPO, IMAGE)
    image = model.policy.features_extractor.extractors["cam"]
    with th.no_grad():
        policy_net = model.policy.mlp_extractor.policy_net
        columns = policy_net[0].weight[:, :256]
        columns[:, 30:] = 0
        image.linear[0].weight[:10] = 0
    _, x, expected = observe(model, 20)
    policy = compress(model, bits=bits, calibration=x)
    (encoder,) = policy.network.encoders.values()
    assert encoder.head.inputs == encoder.layers[-1].outputs == 20 and policy.network.shape == (20 + 4 + 3,)
    assert_same(policy.predict(x)[0], expected, 1e-5 if bits == 32 else 0.02)
    with th.no_grad():
        columns[:] = 0
    _, x, expected = observe(model, 20)
    policy = compress(model, bits=bits, calibration=x)
    (encoder,) = policy.network.encoders.values()
    assert encoder.head.inputs == 1 and all(layer.outputs == 1 for layer in encoder.layers)
    assert_same(policy.predict(x)[0], expected, 1e-5 if bits == 32 else 0.02)


@pytest.mark.parametrize(
    ("make_model", "message"),
    [
        (lambda: with_extractor(Doubled), r"the layer 'features_extractor' \(Doubled\)"),
        (
            lambda: with_extractor(Towers, spaces.Dict(a=IMAGE["cam"]), modules={"a": nn.Flatten()}),
            "'a', which flattens an image, cannot be exported.* In its place, convolutions in front of the Flatten can be",
        ),
    ],
)
def test_extractors_that_cannot_be_exported(make_model, message):
    with pytest.raises(ValueError, match=message):
        compress(make_model())


def test_a_key_that_onnx_has_already():
    policy = compress(make(PPO, spaces.Dict(action=spaces.Box(-1, 1, (2,)))))
    with pytest.raises(ValueError, match=r"cannot have an input named 'action'.*: rename this key"):
        to_onnx(policy.network)


def test_keys_that_are_names_of_other_parts_of_the_graph():
    model = make(PPO, spaces.Dict(head=spaces.Box(-1, 1, (2, 2))), spaces.Box(-1, 1, (2, 2)))
    _, x, expected = observe(model, 20)
    session = onnxruntime.InferenceSession(to_onnx(compress(model, bits=32).network), providers=["CPUExecutionProvider"])
    assert_same(session.run(["action"], x)[0], expected)


def test_a_tensor_keeps_its_values():
    graph = OnnxGraph()
    assert graph.tensor("one", [1.0]) == graph.tensor("one", [1.0]) == "one"
    for other in ([2.0], [[1.0]], 1.0):
        with pytest.raises(ValueError, match="two tensors of the graph are named 'one'"):
            graph.tensor("one", other)
    with pytest.raises(ValueError, match="named 'one'"):
        graph.tensor("one", [1], np.int64)


# Agents of HER


@pytest.mark.parametrize("algorithm", ["her", "tqc"])
def test_goal_agents_of_the_collection(algorithm):
    zipped = HUB / algorithm / "PandaReach-v1_1/PandaReach-v1.zip"
    if not zipped.exists():
        pytest.skip(f"the agents of the collection are not here ({HUB})")
    model = load_agent(zipped)
    _, normalization = load_normalization(zipped, "PandaReach-v1")
    rng, statistics = np.random.default_rng(0), normalization.obs_rms
    x = {key: rng.normal(each.mean, np.sqrt(each.var), (200, *each.mean.shape)) for key, each in statistics.items()}
    expected = model.predict(normalization.normalize_obs(x), deterministic=True)[0]
    for backend in AVAILABLE:
        policy = compress(model, bits=32, normalization=normalization, backend=backend)
        assert_same(policy.predict(x)[0], expected)
        actions = compress(model, calibration=x, normalization=normalization, backend=backend).predict(x)[0]
        # Actions lie between -1 and 1.
        assert np.abs(actions - expected).mean() < 0.004 and np.abs(actions - expected).max() < 0.05


# Recurrent policies


#: RecurrentPPO of SB3 does not take MultiDiscrete: the number of its features is not a Python number.
WITHOUT_CLASSES = spaces.Dict({key: MIXED[key] for key in ("phase", "arm", "2 b")})


@pytest.mark.parametrize("space", [WITHOUT_CLASSES, spaces.Discrete(6)], ids=["dict", "class"])
def test_recurrent_policies(space, tmp_path):
    """The state is that of the policy, and the observation that of its space."""
    policy = "MultiInputLstmPolicy" if isinstance(space, spaces.Dict) else "MlpLstmPolicy"
    model = make(RecurrentPPO, space, policy=policy, policy_kwargs={"lstm_hidden_size": 12, "net_arch": [10]})
    rows, x, _ = observe(model, 12)
    exported = compress(model, bits=32)
    exported.save(tmp_path / "a.sb3s")
    steps = []
    for backend in EXACT:
        policy, ours, theirs = load(tmp_path / "a.sb3s", backend), None, None
        for step, row in enumerate(rows):
            start = np.array([step in (0, 7)])
            action, ours = policy.predict(row, state=ours, episode_start=start)
            expected, theirs = model.predict(row, state=theirs, episode_start=start, deterministic=True)
            assert_same(action, expected)
            steps.append(expected)
    session = onnxruntime.InferenceSession(to_onnx(exported.network), providers=["CPUExecutionProvider"])
    arrays = x if isinstance(x, dict) else {"observation": x}
    kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    _, lstms, units = exported.network.state_shape
    h = c = np.zeros((lstms, 1, units), np.float32)
    for step in range(7):
        inputs = {each.name: arrays[each.name][step : step + 1].astype(kinds[each.type]) for each in session.get_inputs()[:-2]}
        action, h, c = session.run(["action", "next_h", "next_c"], {**inputs, "h": h, "c": c})
        assert_same(action[0], steps[step])
    exported.to_c(tmp_path / "a.h", name="a")
    if shutil.which("gcc") is not None:
        command = ["gcc", *FLAGS, "-x", "c", "-DA_MAIN", str(tmp_path / "a.h"), "-o", str(tmp_path / "a")]
        subprocess.run(command, check=True)
        done = subprocess.run([str(tmp_path / "a")], capture_output=True, text=True, check=False)
        assert done.stdout == "0 of 8 test vectors fail\n"


def test_masks_of_actions(tmp_path):
    """Actions of a dict that have to be among those that are allowed."""

    class Masked(Samples):
        def action_masks(self):
            return np.ones(4, bool)

    model = MaskablePPO("MultiInputPolicy", Masked(MIXED, spaces.Discrete(4)), seed=0, device="cpu")
    _, x, _ = observe(model, 20)
    masks = np.random.default_rng(0).random((20, 4)) < 0.5
    masks[:, 2] = True
    expected = model.predict(x, deterministic=True, action_masks=masks)[0]
    compress(model, bits=32).save(tmp_path / "a.sb3s")
    for backend in EXACT:
        policy = load(tmp_path / "a.sb3s", backend)
        assert np.array_equal(policy.predict(x, action_masks=masks)[0], expected)
        rows = [policy.predict({key: array[i] for key, array in x.items()}, action_masks=masks[i])[0] for i in range(5)]
        assert np.array_equal(rows, expected[:5])


def test_a_key_that_is_the_name_of_the_masks():
    space = spaces.Dict(action_masks=spaces.MultiBinary(4))
    policy = compress(make(PPO, space, spaces.Discrete(4)))
    with pytest.raises(ValueError, match="cannot have an input named 'action_masks'"):
        to_onnx(policy.network, masks=True)
    to_onnx(policy.network)


# What the compiled kernel reads by itself


class Asked(Exception):
    """The kernel has left an observation to Python."""


def leave(*args, **kwargs):
    raise Asked


def kernel_of(seed):
    """A kernel that cannot ask Python, its network, and observations of it."""
    rng = np.random.default_rng(seed)
    network = draw_parted_network(rng)
    while network.encoders:
        network = draw_parted_network(rng)
    return native.kernel(network, "compiled", leave), network, draw_arrays(rng, network, 6)


def rows_of(arrays):
    for index in range(6):
        # A class alone is a number, as environments give it.
        row = {key: array[index] if array.dtype == np.int64 else array[index, ...] for key, array in arrays.items()}
        yield row[""] if "" in row else row


@pytest.mark.skipif("compiled" not in AVAILABLE, reason="there is no C compiler")
def test_the_kernel_reads_dicts():
    for seed in range(20):
        kernel, network, arrays = kernel_of(seed)
        policy = Policy(network, "numpy")
        for row in rows_of(arrays):
            action, state = kernel.predict(row, deterministic=True)
            assert state is None
            expected = policy.predict(row)[0]
            np.testing.assert_allclose(action, expected, rtol=1e-4, atol=1e-4)
            if not isinstance(row, dict):
                continue
            turned = dict(reversed(row.items()))
            assert np.array_equal(kernel.predict(turned)[0], action)
            wide = {key: array.astype(np.float64) if array.dtype == np.float32 else array for key, array in row.items()}
            narrow = {key: np.asarray(array, np.int32) if array.dtype == np.int64 else array for key, array in row.items()}
            whole = {key: array.astype(np.int8) if array.dtype == np.float32 else array for key, array in row.items()}
            for other in (wide, narrow, whole):
                np.testing.assert_allclose(kernel.predict(other)[0], policy.predict(other)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.skipif("compiled" not in AVAILABLE, reason="there is no C compiler")
def test_the_kernel_leaves_the_rest_to_python():
    for seed in range(20):
        kernel, network, arrays = kernel_of(seed)
        part, row = network.parts[0], next(rows_of(arrays))
        key, value = part.key, arrays[part.key][0]
        wrong = [
            value.tolist() if part.shape or not part.sizes else float(value),
            np.zeros((*part.shape, 2), np.float32),
            np.zeros(part.shape, "U1"),
            None,
            arrays[key],
        ]
        if part.sizes:
            wrong += [np.full(part.shape, size, np.int64) for size in (max(part.sizes), -1, 2**40)]
            wrong += [10**30, -(10**30), -1] * (not part.shape)
        for each in wrong:
            with pytest.raises(Asked):
                kernel.predict({**row, key: each} if key else each)
        for other in (() if not key else (without(row, key), {**row, "more": 1}, MappingProxyType(row), [row], None, value)):
            with pytest.raises(Asked):
                kernel.predict(other)
        for kwargs in ({"deterministic": False}, {"state": None, "mask": 1}):
            with pytest.raises(Asked):
                kernel.predict(row, **kwargs)


@pytest.mark.skipif("compiled" not in AVAILABLE, reason="there is no C compiler")
def test_the_kernel_keeps_no_reference():
    kernel, _, arrays = kernel_of(3)
    row = next(rows_of(arrays))
    values = list(row.values()) if isinstance(row, dict) else [row]
    before = [sys.getrefcount(value) for value in (row, *values)]
    for _ in range(100):
        kernel.predict(row)
        with pytest.raises(Asked):
            kernel.predict({"no": row})
    assert [sys.getrefcount(value) for value in (row, *values)] == before


@pytest.mark.skipif("compiled" not in AVAILABLE, reason="there is no C compiler")
@pytest.mark.parametrize(
    "parts", [(), (1,), ((None, (2,)),), ((None, (3,), ()),), (("a", (1,) * 9, ()),), (("a", (2,), "x"),)]
)
def test_a_kernel_with_wrong_parts(parts):
    layer = Layer(np.ones((1, 2), np.float32), np.zeros(1, np.float32))
    network = Network((2,), False, None, (layer,), Head("positive", (1,)))
    plan = Plan(network)
    with pytest.raises((ValueError, TypeError)):
        native._module(NATIVE).Kernel(plan.data, plan.scratch, parts, (1,), False, leave)
