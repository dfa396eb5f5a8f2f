"""ONNX graphs against the runtime that they must agree with, run by ONNX Runtime."""

import sys
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
from gymnasium import spaces
from onnx.reference import ReferenceEvaluator
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.envs import FakeImageEnv, IdentityEnvBox
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import sb3_sparse
from sb3_sparse.export import compress
from sb3_sparse.export.onnx import WEIGHT_FORMS, to_onnx
from sb3_sparse.export.passes import round_biases, round_weights
from sb3_sparse.runtime import Policy
from sb3_sparse.runtime.network.records import ACTIVATIONS, Activation, Head, Layer, Network, Normalize
from tests.algorithms import CASES

INF, NAN = np.inf, np.nan
BOUNDS = np.array([[-1, -2, 0.5], [1, 0.5, 3]], np.float32)
HEADS = {
    "unscale": Head("unscale", (3,), *BOUNDS),
    "unit": Head("unscale", (3,), -np.ones(3, np.float32), np.ones(3, np.float32)),
    "matrix": Head("unscale", (3, 1), *BOUNDS),
    "clip": Head("clip", (3,), *BOUNDS),
    "half": Head("clip", (3,), np.array([-INF, -0.1, -INF], np.float32), np.array([INF, INF, 0.1], np.float32)),
    "unbounded": Head("clip", (3,), np.full(3, -INF, np.float32), np.full(3, INF, np.float32)),
    "nan": Head("clip", (3,), np.array([NAN, -0.1, -0.1], np.float32), np.array([0.1, NAN, 0.1], np.float32)),
    "discrete": Head("argmax", (), groups=(3,)),
    "multi_discrete": Head("argmax", (3,), groups=(3, 2, 5)),
    "multi_discrete_matrix": Head("argmax", (2, 2), groups=(3, 2, 5, 2)),
    "binary": Head("positive", (3,)),
    "binary_matrix": Head("positive", (3, 2)),
}


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def linear(rng, outputs, inputs, activation="identity", density=1.0):
    weight = normal(rng, outputs, inputs) * np.float32(inputs**-0.5) * (rng.random((outputs, inputs)) < density)
    low, high = {"clip": (-0.5, 0.75), "leaky_relu": (0.1, 0.0), "elu": (0.8, 0.0)}.get(activation, (0.0, 0.0))
    return Layer(weight, normal(rng, outputs), Activation(activation, low, high))


@cache
def perceptron(head, activation="tanh", bits=8, normalize=None, density=1.0, sizes=(8, 16)):
    """A network with random weights and a gain in its first layer if it is quantized; ``sizes`` are those before the head."""
    rng = np.random.default_rng(0)
    layers = [linear(rng, *pair, activation, density) for pair in zip(sizes[1:], sizes, strict=False)]
    layers.append(linear(rng, head.inputs, sizes[-1], "tanh" if head.kind == "unscale" else "identity", density))
    network = Network(sizes[:1], False, normalize, tuple(layers), head)
    return network if bits == 32 else round_biases(round_weights(network, bits))


def session(data):
    """A function from observations to actions."""
    onnx.checker.check_model(data)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    run = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run
    return lambda observations: run(["action"], {"observation": observations})[0]


def assert_agrees(network, observations, form):
    """The batch, its first observation alone, and no observation at all."""
    policy, run = Policy(network, backend="numpy"), session(to_onnx(network, form=form))
    for batch in (observations, observations[:1], observations[:0]):
        expected = policy.predict(batch)[0] if len(batch) else np.zeros((0, *network.head.shape), np.float32)
        actions = run(batch)
        assert actions.shape == expected.shape
        assert actions.dtype == (np.int64 if network.head.kind == "argmax" else np.float32)
        np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", WEIGHT_FORMS)
@pytest.mark.parametrize("head", HEADS)
def test_heads(head, form):
    assert_agrees(perceptron(HEADS[head]), normal(np.random.default_rng(1), 64, 8), form)


@pytest.mark.parametrize("form", WEIGHT_FORMS)
@pytest.mark.parametrize("bits", [4, 8, 32])
@pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS) - {"prelu"}))
def test_activations(activation, bits, form):
    assert_agrees(perceptron(HEADS["clip"], activation, bits), normal(np.random.default_rng(1), 64, 8), form)


@pytest.mark.parametrize("form", WEIGHT_FORMS)
@pytest.mark.parametrize("limit", [0.5, INF])
def test_normalization(limit, form):
    rng = np.random.default_rng(2)
    network = perceptron(HEADS["unscale"], normalize=Normalize(normal(rng, 8), rng.random(8).astype(np.float32) + 0.1, limit))
    assert_agrees(network, normal(rng, 64, 8) * 10, form)


@pytest.mark.parametrize("form", WEIGHT_FORMS)
@pytest.mark.parametrize("shape", [(), (2, 4), (2, 2, 2)])
def test_observations_of_any_shape_are_flattened(shape, form):
    size = int(np.prod(shape))
    network = perceptron(
        HEADS["clip"], sizes=(size, 16), normalize=Normalize(np.ones(shape, np.float32), np.ones(shape, np.float32), 2.0)
    )
    assert_agrees(replace(network, shape=shape), normal(np.random.default_rng(1), 16, *shape), form)


@pytest.mark.parametrize("form", WEIGHT_FORMS)
@pytest.mark.parametrize("bits", [4, 8, 32])
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_convolutions(activation, bits, form):
    rng = np.random.default_rng(3)
    first = Layer(normal(rng, 5, 3, 3, 2) / 255, normal(rng, 5), Activation(activation), stride=(2, 1), padding=(1, 2))
    second = Layer(normal(rng, 4, 5, 2, 2) / 4, normal(rng, 4), Activation(activation))
    network = Network((3, 9, 7), True, None, (first, second, linear(rng, 3, 4 * 4 * 9)), HEADS["half"])
    network = network if bits == 32 else round_biases(round_weights(network, bits))
    assert_agrees(network, rng.integers(0, 256, (5, 3, 9, 7), dtype=np.uint8), form)


@pytest.mark.parametrize("form", WEIGHT_FORMS)
def test_layers_without_weights_and_of_both_kinds(form):
    network = perceptron(HEADS["clip"], sizes=(8, 32, 16))
    mixed = perceptron(HEADS["clip"], bits=32, sizes=(8, 32, 16))
    empty = replace(mixed.layers[2], weight=np.zeros((3, 16), np.float32))
    network = replace(network, layers=(network.layers[0], mixed.layers[1], empty))
    assert_agrees(network, normal(np.random.default_rng(1), 16, 8), form)


@pytest.mark.parametrize("form", ["float", "qdq"])
def test_reference_evaluator_agrees(form):
    """A second implementation; it does not know sparse initializers."""
    network, observations = perceptron(HEADS["multi_discrete"], "elu"), normal(np.random.default_rng(1), 64, 8)
    model = onnx.load_from_string(to_onnx(network, form=form))
    # It has DequantizeLinear from opset 19 on only; for int8 to float32 the operator has not changed.
    model.opset_import[0].version, model.ir_version = 19, 9
    actions = ReferenceEvaluator(model).run(None, {"observation": observations})[0]
    np.testing.assert_array_equal(actions, Policy(network, backend="numpy").predict(observations)[0])


@pytest.fixture(scope="module", params=["sac", "dqn", "ppo", "crossq"])
def model(request):
    model = CASES[request.param].make()
    return model.learn(64)


@pytest.mark.parametrize("form", WEIGHT_FORMS)
@pytest.mark.parametrize("bits", [4, 8, 32])
def test_models(model, bits, form, tmp_path):
    observations = np.stack([model.observation_space.sample() for _ in range(32)])
    policy = compress(model, bits=bits, backend="numpy")
    assert_agrees(policy.network, observations, form)
    if bits == 32:
        policy.to_onnx(tmp_path / "policy.onnx", form=form)
        expected = model.predict(observations, deterministic=True)[0]
        actions = session((tmp_path / "policy.onnx").read_bytes())(observations)
        np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-5)


class IdentityEnv(IdentityEnvBox):
    """Its actions are what the test wants."""

    def __init__(self, action_space):
        super().__init__()
        self.action_space = action_space


@pytest.mark.parametrize("form", WEIGHT_FORMS)
@pytest.mark.parametrize(
    "action_space", [spaces.MultiDiscrete([2, 5, 3]), spaces.MultiBinary(4), spaces.Box(-0.5, 0.5, (2,))], ids=str
)
def test_action_spaces_with_vec_normalize(action_space, form):
    env = VecNormalize(DummyVecEnv([lambda: IdentityEnv(action_space)]))
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=8, seed=0, device="cpu", policy_kwargs={"net_arch": [16]})
    rng = np.random.default_rng(0)
    env.obs_rms.mean, env.obs_rms.var = rng.random(1), rng.random(1)
    for parameter in model.policy.action_net.parameters():
        # The last layer starts so small that every action is the same.
        parameter.data *= 100
    observations = rng.uniform(-1, 1, (64, 1)).astype(np.float32)
    policy = compress(model, bits=32, backend="numpy")
    assert policy.network.normalize is not None
    assert_agrees(policy.network, observations, form)
    expected = model.predict(env.normalize_obs(observations).astype(np.float32), deterministic=True)[0]
    actions = session(to_onnx(policy.network, form=form))(observations)
    np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def atari():
    env = FakeImageEnv(action_dim=6, screen_height=84, screen_width=84, n_channels=4)
    return compress(DQN("CnnPolicy", env, buffer_size=1, seed=0, device="cpu"), backend="numpy").network


@pytest.mark.parametrize("form", WEIGHT_FORMS)
def test_nature_cnn(atari, form):
    images = np.random.default_rng(0).integers(0, 256, (4, 4, 84, 84), dtype=np.uint8)
    assert_agrees(atari, images, form)
    # The values of actions say more than the best one.
    free = Head("clip", (6,), np.full(6, -INF, np.float32), np.full(6, INF, np.float32))
    assert_agrees(replace(atari, head=free), images, form)


def test_int8_weights_take_a_quarter():
    network = perceptron(HEADS["clip"], sizes=(64, 256, 128))
    sizes = {form: len(to_onnx(network, form=form)) for form in WEIGHT_FORMS}
    assert 3.6 < sizes["float"] / sizes["qdq"] < 4
    # Nothing is zero, so nothing is sparse.
    assert sizes["sparse"] == sizes["qdq"]


@pytest.mark.parametrize(("density", "least"), [(0.05, 10), (0.01, 20)])
@pytest.mark.parametrize("bits", [8, 32])
def test_sparse_weights_take_fewer_bytes(bits, density, least):
    network = perceptron(HEADS["clip"], bits=bits, density=density, sizes=(64, 256, 256))
    sizes = {form: len(to_onnx(network, form=form)) for form in WEIGHT_FORMS}
    assert sizes["float"] > least * sizes["sparse"]
    assert sizes["sparse"] < sizes["qdq"] <= sizes["float"]
    assert_agrees(network, normal(np.random.default_rng(1), 16, 64), "sparse")


def test_only_weights_are_quantized():
    model = onnx.load_from_string(to_onnx(perceptron(HEADS["clip"], sizes=(64, 256)), form="qdq"))
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert {name for name, kind in types.items() if kind == onnx.TensorProto.INT8} == {"layers.0.weight", "layers.1.weight"}
    assert [node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"] == [
        "layers.0.weight",
        "layers.1.weight",
    ]
    assert not any(node.op_type.startswith(("Quantize", "QLinear", "Dynamic")) for node in model.graph.node)


@pytest.mark.parametrize("form", WEIGHT_FORMS)
def test_header(atari, form):
    data = to_onnx(atari, form=form)
    assert data == to_onnx(atari, form=form)
    model = onnx.load_from_string(data)
    assert (model.producer_name, model.producer_version) == ("sb3_sparse", sb3_sparse.__version__)
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    (observation,), (action,) = model.graph.input, model.graph.output
    assert (observation.name, observation.type.tensor_type.elem_type) == ("observation", onnx.TensorProto.UINT8)
    assert [dim.dim_param or dim.dim_value for dim in observation.type.tensor_type.shape.dim] == ["n", 4, 84, 84]
    assert [dim.dim_param for dim in action.type.tensor_type.shape.dim] == ["n"]
    assert "channels first" in observation.doc_string and "counted from 0" in action.doc_string and model.doc_string


def test_unknown_form():
    with pytest.raises(ValueError, match="unknown form 'int4': use one of float, qdq, sparse"):
        to_onnx(perceptron(HEADS["clip"]), form="int4")


def test_layers_that_do_not_fit():
    with pytest.raises(ValueError, match="the last layer gives"):
        to_onnx(replace(perceptron(HEADS["clip"]), head=HEADS["multi_discrete"]))


def test_onnx_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install sb3_sparse\[export\]"):
        to_onnx(perceptron(HEADS["clip"]))
