"""Residual networks through the whole export: every backend and every form acts as the model that was trained."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import DQN, PPO, SAC
from torch import nn

from sb3_sparse import OneShotPruningCallback, QATCallback, compress
from sb3_sparse.export.c.integer.constants import integer_layers
from sb3_sparse.export.onnx import WEIGHT_FORMS, to_onnx
from sb3_sparse.export.passes import order, round_biases, round_weights, shrink
from sb3_sparse.policies import MinAtarExtractor, ResNetExtractor, SparseDQNCnnPolicy, SparsePPOCnnPolicy
from sb3_sparse.policies.extractors import ResidualBlock
from sb3_sparse.runtime import Policy
from sb3_sparse.runtime.format.artifact import decode, encode
from sb3_sparse.runtime.network.records import Activation, Head, Layer, Network
from sb3_sparse.runtime.network.reference import layer_inputs
from tests.algorithms import CASES, Q_LEARNING
from tests.networks import (
    AVAILABLE,
    EXACT,
    draw_observations,
    draw_residual_network,
    expect_close,
    int8_actions,
)
from tests.test_export import (
    Spaces,
    disturb,
    expect_parity,
    expect_to_shrink,
    expect_training_grid,
    observe,
    torch_actions,
    train,
)
from tests.test_onnx import assert_agrees, session

#: Minutes of networks of many shapes; the stored files of the compatibility tests hold one of each kind for every run.
pytestmark = pytest.mark.slow

SEEDS = st.integers(0, 2**32)
PIXELS, TORQUE, THREE = spaces.Box(0, 255, (2, 24, 27), np.uint8), spaces.Box(-2, 2, (2,)), spaces.Discrete(3)


def make(algorithm, actions, policy="CnnPolicy", *, space=PIXELS, extractor=ResNetExtractor, steps=16, **kwargs):
    """A model that has learned for a few steps; ``kwargs`` are those of the extractor."""
    policy_kwargs = {
        "features_extractor_class": extractor,
        "features_extractor_kwargs": {"features_dim": 24, **kwargs},
        "net_arch": [],
        **({"sparsity": 0.6} if policy not in ("CnnPolicy", "MlpPolicy") else {}),
    }
    memory = {} if algorithm is PPO else {"buffer_size": 50}
    return train(algorithm, space, actions, policy, steps=steps, policy_kwargs=policy_kwargs, **memory)


MODELS = {
    "dqn, paper, wide": lambda: make(DQN, THREE, depth=1, width=2),
    "dqn, impala, deep": lambda: make(DQN, THREE, form="impala", depth=2),
    "dqn, no blocks": lambda: make(DQN, THREE, form="impala", depth=0),
    "dqn, sparse": lambda: make(DQN, THREE, SparseDQNCnnPolicy, form="impala", depth=2),
    "qrdqn, impala": lambda: make(CASES["qrdqn"].algorithm, THREE, form="impala", depth=1),
    "ppo, paper, deep": lambda: make(PPO, TORQUE, depth=2),
    "ppo, sparse, wide": lambda: make(PPO, TORQUE, SparsePPOCnnPolicy, form="impala", depth=1, width=2),
    "sac, impala": lambda: make(SAC, TORQUE, form="impala", depth=1),
    "dqn, minatar": lambda: make(DQN, THREE, space=spaces.Box(0, 255, (4, 10, 10), np.uint8), extractor=MinAtarExtractor),
    "ppo, minatar, floats": lambda: make_minatar_of_floats(),
}


def make_minatar_of_floats():
    env = Spaces(spaces.Box(0, 1, (6, 10, 10)), THREE)
    policy_kwargs = {
        "features_extractor_class": MinAtarExtractor,
        "features_extractor_kwargs": {"features_dim": 16, "normalized_image": True, "width": 2},
        "normalize_images": False,
        "net_arch": [8],
    }
    model = PPO("CnnPolicy", env, n_steps=8, batch_size=8, policy_kwargs=policy_kwargs, seed=0, device="cpu")
    return disturb(model.learn(8))


@cache
def model_of(name):
    return MODELS[name]()


@pytest.mark.parametrize("name", MODELS)
def test_floats(name):
    model = model_of(name)
    obs = observe(model, 8)
    network = expect_parity(model, obs, backends=EXACT)
    assert network.residual == ("no blocks" not in name and "minatar" not in name)
    for form in WEIGHT_FORMS:
        if network.image:
            expect_close(session(to_onnx(network, form=form))(obs), Policy(network, "numpy").predict(obs)[0], network, obs)


@pytest.mark.parametrize("name", MODELS)
def test_integers(name):
    """The backends and ONNX agree with the weights that the integers stand for, and eight bits are near to the model."""
    model = model_of(name)
    obs = observe(model, 8)
    for calibration in (None, obs):
        network = compress(model, calibration=calibration, backend="numpy").network
        assert all(layer.quantized for layer in network.layers) and (network.ranges is None) == (calibration is None)
        expected = torch_actions(network, obs)
        for backend in EXACT:
            expect_close(Policy(network, backend).predict(obs)[0], expected, network, obs)
        if "int8" in AVAILABLE and network.head.kind != "argmax":
            values, slack = int8_actions(network, obs)
            difference = np.abs(Policy(network, "int8").predict(obs)[0] - network.head(values))
            assert (difference <= 2 * slack + 1e-5).all()
    exact, ours = compress(model, bits=32, backend="numpy").network, network
    values, rounded = (layer_inputs(each, obs.astype(np.float32))[-1] for each in (exact, ours))
    if ours.head.kind == "argmax":
        # What all values have in common is left out before they are rounded.
        values, rounded = (each - each.mean(axis=1, keepdims=True) for each in (values, rounded))
    assert np.abs(rounded - values).max() < 0.05 * np.abs(values).max()
    assert len(encode(ours)) < 0.35 * len(encode(exact)), "one byte per weight instead of four, and its index"
    for form in WEIGHT_FORMS if ours.image else ():
        expect_close(session(to_onnx(ours, form=form))(obs), Policy(ours, "numpy").predict(obs)[0], ours, obs)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["paper", "impala"])
def test_images_of_atari(form):
    """Images of full size, through the bytes of the file."""
    model = make(DQN, spaces.Discrete(6), space=spaces.Box(0, 255, (4, 84, 84), np.uint8), form=form, depth=2, steps=4)
    obs = observe(model, 4)
    network = expect_parity(model, obs, backends=EXACT)
    small = decode(encode(compress(model, calibration=obs, backend="numpy").network))
    expected = torch_actions(small, obs)
    for backend in EXACT:
        expect_close(Policy(small, backend).predict(obs)[0], expected, small, obs)
    assert len(network.layers) == 3 * 5 + 2


def test_training_grid():
    """The integers that the convolutions of the blocks were trained with."""
    env = Spaces(PIXELS, THREE)
    policy_kwargs = {
        "features_extractor_class": ResNetExtractor,
        "features_extractor_kwargs": {"features_dim": 24, "form": "impala", "depth": 1},
        "net_arch": [],
    }
    model = DQN("CnnPolicy", env, policy_kwargs=policy_kwargs, seed=0, device="cpu", **{**Q_LEARNING, "buffer_size": 50})
    model.learn(26, callback=[OneShotPruningCallback("all", 0.4, at=10), QATCallback("all", start=0.5, bits=8)])
    network = expect_parity(model, observe(model, 8), bits=8, backends=EXACT)
    cnn = "q_net.features_extractor.cnn"
    names = [f"{cnn}.{stack}.{part}" for stack in range(3) for part in ("0", "2.conv1", "2.conv2")]
    for index, (ours, step) in enumerate(
        expect_training_grid(model, network, [*names, "q_net.features_extractor.linear.0", "q_net.q_net.0"])
    ):
        factor = 1 / 255 if index == 0 else 1
        assert np.isin(ours.astype(np.float32), (np.atleast_1d(step) * np.float32(factor)).astype(np.float32)).mean() > 0.9


def test_report():
    model = model_of("dqn, sparse")
    report = compress(model, calibration=observe(model, 8), backend="numpy").report()
    names = [layer.name.removeprefix("q_net.") for layer in report.layers]
    block = "features_extractor.cnn.1.3"
    assert names[:3] == [f"features_extractor.cnn.0.{part}" for part in ("0", "2.conv1", "2.conv2")]
    assert f"{block}.conv1" in names and f"{block}.conv2" in names and len(names) == 17
    assert "There is no integer-only C code for residual layers." in report.notes
    assert report.sparsity == pytest.approx(0.6, abs=0.01)


# The passes


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_shrinking_and_ordering(seed):
    rng = np.random.default_rng(seed)
    small = expect_to_shrink(rng, draw_residual_network(rng))
    assert [layer.outputs for layer in order(small).layers] == [layer.outputs for layer in small.layers]
    for layer, after, later in zip(small.layers, small.layers[1:], small.layers[2:], strict=False):
        # Inside a block, where the channels are the block's own.
        if later.residual is False and after.residual and layer.outputs > 1:
            read = after.weight.any(axis=(0, 2, 3))
            fed = layer.weight.any(axis=(1, 2, 3))
            constant = layer.activation(layer.biases) != 0
            assert read.all() and (fed | (constant & any(after.padding))).all()


def block_of(channels):
    """An image of one channel, a stream of ``channels`` with one residual block, and two outputs; all weights are 1."""

    def convolution(outputs, inputs, **kwargs):
        weight = np.ones((outputs, inputs, 3, 3), np.float32)
        return Layer(weight, np.zeros(outputs, np.float32), padding=(1, 1), **kwargs)

    layers = (
        convolution(channels, 1),
        convolution(channels, channels, rectify=True, activation=Activation("relu")),
        convolution(channels, channels, residual=True, activation=Activation("relu")),
        Layer(np.ones((2, channels * 9), np.float32), np.zeros(2, np.float32)),
    )
    return Network((1, 3, 3), True, None, layers, Head("positive", (2,)))


def without(network, *places):
    """The network without the weights at these places: pairs of a layer's number and an index of its weights."""
    layers = [replace(layer, weight=layer.weight.copy()) for layer in network.layers]
    for layer, index in places:
        layers[layer].weight[index] = 0
    return replace(network, layers=tuple(layers))


def outputs(network):
    return [layer.outputs for layer in shrink(network).layers]


EVERY = slice(None)


def test_a_channel_of_a_stream_goes_if_nothing_along_it_lives():
    network, linear = block_of(3), (EVERY, slice(9, 18))
    first, inner, second = (0, 1), (1, (EVERY, 1)), (2, 1)
    assert outputs(network) == [3, 3, 3, 2]
    assert outputs(without(network, first, second)) == [2, 3, 2, 2], "nothing writes it"
    assert outputs(without(network, inner, (3, linear))) == [2, 3, 2, 2], "nothing reads it"
    for places in ([first], [second], [inner], [(3, linear)], [first, inner], [second, (3, linear)]):
        assert outputs(without(network, *places)) == [3, 3, 3, 2], places
    assert outputs(without(network, (1, 2))) == outputs(without(network, (2, (EVERY, 2)))) == [3, 2, 3, 2], "inside"


@pytest.mark.parametrize(("bias", "left"), [(-1.0, 2), (0.0, 2), (1.0, 3)])
def test_constants_of_a_stream(bias, left):
    """A negative constant is rectified away; a positive one is not constant at the border, because of zero padding."""
    network = without(block_of(3), (0, 1), (2, 1))
    network.layers[0].bias[1] = bias
    assert outputs(network) == [left, 3, left, 2]
    x = draw_observations(np.random.default_rng(0), network, 5)
    np.testing.assert_allclose(layer_inputs(shrink(network), x)[-1], layer_inputs(network, x)[-1], rtol=1e-5, atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.booleans())
def test_rounding(seed, calibrated):
    """Each layer is rounded for the inputs that it will get, and pruned weights stay pruned."""
    rng = np.random.default_rng(seed)
    network = draw_residual_network(rng, quantized=False)
    x = draw_observations(rng, network, 12)
    small = round_weights(network, 8, x if calibrated else None)
    assert not any(after.weight[before.weight == 0].any() for before, after in zip(network.layers, small.layers, strict=True))
    if calibrated:
        for inputs, most in zip(layer_inputs(small, x), small.ranges, strict=False):
            assert most == pytest.approx(np.abs(inputs).max(), rel=1e-5, abs=1e-6)
    expected = torch_actions(round_biases(small), x)
    expect_close(Policy(round_biases(small), "numpy").predict(x)[0], expected, small, x)


def test_calibration_fits_into_memory(monkeypatch):
    """Calibration in parts gives nearly the ranges and outputs of calibration as a whole."""
    model = model_of("dqn, impala, deep")
    obs = observe(model, 16)
    whole = compress(model, calibration=obs, backend="numpy").network
    monkeypatch.setattr("sb3_sparse.export.passes.quantize._MAX_NUMBERS", 1 << 17)
    parts = compress(model, calibration=obs, backend="numpy").network
    np.testing.assert_allclose(parts.ranges, whole.ranges, rtol=0.05)
    values, others = (layer_inputs(network, obs.astype(np.float32))[-1] for network in (whole, parts))
    assert np.abs(values - others).max() < 0.05 * np.abs(values).max()


@pytest.mark.parametrize("form", WEIGHT_FORMS)
@pytest.mark.parametrize("seed", range(8))
def test_onnx_of_odd_networks(seed, form):
    rng = np.random.default_rng(seed)
    network = draw_residual_network(rng, head="clip")
    first = network.layers[0]
    # The observation is bytes.
    gentle = replace(first, scale=first.scales / 100) if first.quantized else replace(first, weight=first.weight / 100)
    network = replace(network, layers=(gentle, *network.layers[1:]))
    assert_agrees(network, rng.integers(0, 256, (5, *network.shape), dtype=np.uint8), form)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_backends_agree(seed):
    rng = np.random.default_rng(seed)
    network = draw_residual_network(rng)
    x = draw_observations(rng, network, 3)
    expected = torch_actions(network, x)
    for backend in EXACT:
        policy = Policy(network, backend)
        expect_close(policy.predict(x)[0], expected, network, x)
        expect_close(policy.predict(x[0])[0][None], expected[:1], network, x[:1])


def test_integer_arithmetic_is_refused():
    model = model_of("dqn, impala, deep")
    network = compress(model, calibration=observe(model, 4), backend="numpy").network
    with pytest.raises(ValueError, match="has residual=True, which the integer code"):
        integer_layers(network)


# What cannot be exported


class Halved(ResidualBlock):
    def forward(self, x):
        return super().forward(x) / 2


def changed(change):
    model = make(DQN, THREE, depth=1, steps=0)
    change(model.q_net.features_extractor.cnn)
    return model


def replaced(index, module):
    return lambda cnn: cnn[0].__setitem__(index, module)


REFUSED = {
    "subclass of a block": (replaced(2, Halved(32)), r"cnn.0.2' \(Halved"),
    "block with a forward": (lambda cnn: setattr(cnn[0][2], "forward", lambda x: x), r"a forward\(\) of its own"),
    "block of something": (lambda cnn: setattr(cnn[0][2], "conv1", nn.Tanh()), r"the residual block '.*cnn.0.2'"),
    "ceil_mode": (replaced(1, nn.MaxPool2d(3, 2, 1, ceil_mode=True)), r"cnn.0.1' \(MaxPool2d.*with dilation, ceil_mode"),
    "dilation": (replaced(1, nn.MaxPool2d(3, 2, 1, dilation=2)), r"cnn.0.1' \(MaxPool2d.*with dilation"),
    "return_indices": (replaced(1, nn.MaxPool2d(3, 2, 1, return_indices=True)), r"MaxPool2d.*or return_indices"),
    "batch norm before a block": (lambda cnn: cnn[0].insert(2, nn.BatchNorm2d(32)), "a batch norm before a residual block"),
    "strides in a block": (lambda cnn: setattr(cnn[0][2].conv2, "stride", (2, 2)), "a residual layer .*does not fit"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported(name):
    change, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        compress(changed(change))


#: Modules in a network of blocks.
CHANGED = {
    "two pools": lambda cnn: cnn[0].insert(1, nn.MaxPool2d(2, 1)),
    "pool first": lambda cnn: cnn[0].insert(0, nn.MaxPool2d(2, 1)),
    "SiLU behind a pool": lambda cnn: cnn[0].insert(2, nn.SiLU()),
    "average pool": replaced(1, nn.AvgPool2d(3, 2, 1)),
    # Its shift is 0, so it goes into the convolution behind it.
    "batch norm behind a block": lambda cnn: cnn.insert(1, nn.BatchNorm2d(32)),
}


@pytest.mark.parametrize("name", CHANGED)
def test_modules_around_blocks(name):
    model = changed(CHANGED[name])
    with th.no_grad():
        for module in model.q_net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.fill_(4)
    expect_parity(model, observe(model, 6), backends=EXACT)
