"""
Features extractors of modules that need a shape, such as signals, layer norms and average pools: every form of an exported
policy acts as SB3's model does, dense and pruned.
"""

import ctypes
import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn
from torch.nn import functional as F

from sb3_sparse import OneShotPruningCallback, QATCallback, compress
from sb3_sparse.export.c.header import to_c
from sb3_sparse.export.c.integer.constants import integer_layers, without_integers
from sb3_sparse.export.trace.modules import records
from sb3_sparse.export.trace.record import At
from sb3_sparse.runtime import Policy, load
from sb3_sparse.runtime.format.artifact import decode, encode
from sb3_sparse.runtime.network.elements import Grid
from sb3_sparse.runtime.network.reference import layer_inputs
from tests.chains import folded
from tests.networks import AVAILABLE, EXACT, draw_observations, draw_signal_network, expect_close
from tests.test_export import expect_to_shrink, torch_actions

VECTOR = spaces.Box(-2, 2, (6,), np.float32)
SIGNAL = spaces.Box(-2, 2, (3, 16), np.float32)
IMAGE = spaces.Box(0, 255, (3, 16, 12), np.uint8)


class Spaces(gym.Env):
    """Only the spaces count."""

    def __init__(self, observations, actions):
        self.observation_space, self.action_space = observations, actions

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


class Chain(BaseFeaturesExtractor):
    """Modules one after the other."""

    def __init__(self, space, modules, width):
        super().__init__(space, width)
        self.net = nn.Sequential(*modules())

    def forward(self, observations):
        return self.net(observations)


class Functions(BaseFeaturesExtractor):
    """The same as functions: a vector becomes a signal of one channel."""

    def __init__(self, space):
        super().__init__(space, 4)
        self.first, self.second = nn.Conv1d(1, 4, 3, padding=1), nn.Conv1d(4, 4, 2)
        self.norm = nn.LayerNorm((4, 6))

    def forward(self, observations):
        x = F.avg_pool1d(F.gelu(self.norm(self.first(observations.unsqueeze(1)))), 3, stride=1)
        return th.flatten(F.adaptive_avg_pool1d(F.relu(self.second(x)), 1), 1)


class Reshaped(BaseFeaturesExtractor):
    """A vector as an image, and the mean of its places."""

    def __init__(self, space):
        super().__init__(space, 8)
        self.first, self.second = nn.Conv2d(1, 4, 2), nn.Conv2d(4, 8, 1)

    def forward(self, observations):
        x = self.first(observations.view(-1, 1, 2, 3)).mean(dim=(2, 3), keepdim=True)
        return th.relu(self.second(x)).reshape(x.size(0), -1)


class Signals(BaseFeaturesExtractor):
    """The mean of a signal."""

    def __init__(self, space):
        super().__init__(space, 8)
        self.net = nn.Conv1d(3, 8, 3, 2)

    def forward(self, observations):
        return th.relu(self.net(observations.reshape(observations.shape[0], 3, 16))).mean(-1)


class Images(BaseFeaturesExtractor):
    """The mean of an image, as a function."""

    def __init__(self, space):
        super().__init__(space, 8)
        self.net = nn.Conv2d(3, 8, 3, 2)

    def forward(self, observations):
        return th.relu(self.net(observations)).mean((-2, -1))


#: Observations, the modules of the features extractor, and how many features they give; or a class without them.
EXTRACTORS = {
    "norm, activation": (VECTOR, lambda: [nn.Linear(6, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 8), nn.Tanh()], 8),
    "activation, norm": (VECTOR, lambda: [nn.Linear(6, 16), nn.ReLU(), nn.LayerNorm(16), nn.Linear(16, 8), nn.Tanh()], 8),
    "norm first": (VECTOR, lambda: [nn.LayerNorm(6), nn.Linear(6, 16), nn.SiLU()], 16),
    "norms in a row": (
        VECTOR,
        lambda: [
            nn.BatchNorm1d(6),
            nn.LayerNorm(6, elementwise_affine=False),
            nn.LayerNorm(6, bias=False),
            nn.LayerNorm(6, 0.1),
        ],
        6,
    ),
    "norm, batch norm": (VECTOR, lambda: [nn.Linear(6, 9), nn.LayerNorm(9), nn.BatchNorm1d(9), nn.ELU(), nn.Linear(9, 9)], 9),
    "batch norm, norm": (VECTOR, lambda: [nn.Linear(6, 9), nn.ReLU(), nn.BatchNorm1d(9), nn.LayerNorm(9), nn.SELU()], 9),
    "signal": (
        SIGNAL,
        lambda: [
            *(nn.BatchNorm1d(3), nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2)),
            *(nn.Conv1d(8, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(24, 8)),
        ],
        8,
    ),
    "signal of one number": (SIGNAL, lambda: [nn.Conv1d(3, 8, 16), nn.LeakyReLU(), nn.Flatten(), nn.PReLU(8)], 8),
    "signal, norms, means": (
        SIGNAL,
        lambda: [
            *(nn.LayerNorm((3, 16)), nn.Conv1d(3, 4, 5), nn.LayerNorm((4, 12)), nn.GELU(), nn.AvgPool1d(3, 2, 1)),
            *(nn.Conv1d(4, 6, 2), nn.PReLU(6, 0.4), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
        ],
        6,
    ),
    "vector as a signal": (
        VECTOR,
        lambda: [nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 8, 2), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 8)],
        8,
    ),
    "pool of a signal first": (SIGNAL, lambda: [nn.AvgPool1d(4), nn.Conv1d(3, 4, 2), nn.Tanh(), nn.Flatten()], 12),
    "means": (
        IMAGE,
        lambda: [
            *(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(5, 6, 3, padding=1), nn.AvgPool2d((3, 2), 2, (1, 0))),
            *(nn.ReLU(), nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten(), nn.Linear(12, 8), nn.ReLU()),
        ],
        8,
    ),
    "mean of all": (
        IMAGE,
        lambda: [
            *(nn.AvgPool2d(2), nn.Conv2d(3, 8, 3), nn.PReLU(8, 0.1), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)),
            *(nn.ReLU(), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        ],
        8,
    ),
    "norms of images": (
        IMAGE,
        lambda: [
            *(nn.LayerNorm((3, 16, 12)), nn.Conv2d(3, 5, 4, 2), nn.LayerNorm((5, 7, 5)), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.LayerNorm((5, 3, 2)), nn.Conv2d(5, 4, 2), nn.Flatten(), nn.LayerNorm(8), nn.Tanh()),
        ],
        8,
    ),
    "functions": (VECTOR, Functions, None),
    "vector as an image": (VECTOR, Reshaped, None),
    "vector as a signal, mean": (spaces.Box(-2, 2, (48,), np.float32), Signals, None),
    "mean of an image": (IMAGE, Images, None),
    "slopes": (
        VECTOR,
        lambda: [nn.Linear(6, 16), nn.PReLU(16), nn.BatchNorm1d(16), nn.Linear(16, 8), nn.Tanh(), nn.PReLU(8)],
        8,
    ),
}


def disturb(module, generator):
    """Weights large enough for everything to show, and running statistics."""
    for part in module.modules():
        for name, tensor in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)):
            if name == "running_var" or (
                name == "weight" and isinstance(part, nn.LayerNorm | nn.BatchNorm1d | nn.BatchNorm2d)
            ):
                tensor.data.uniform_(0.5, 1.5, generator=generator)
            elif name == "weight" and isinstance(part, nn.PReLU):
                tensor.data.uniform_(-0.5, 1.2, generator=generator)
            elif tensor.is_floating_point():
                spread = 1.5 / tensor[0].numel() ** 0.5 if tensor.ndim > 1 else 0.2
                tensor.data.normal_(0, spread, generator=generator)


def make(name, algorithm=PPO, *, sparsity=0.0):
    """An untrained model, of whose weights some are 0."""
    space, modules, width = EXTRACTORS[name]
    actions = spaces.Discrete(4) if algorithm is DQN else spaces.Box(-4, 4, (2,), np.float32)
    policy_kwargs = {"features_extractor_class": Chain, "features_extractor_kwargs": {"modules": modules, "width": width}}
    if width is None:
        policy_kwargs = {"features_extractor_class": modules}
    policy_kwargs["net_arch"] = [8]
    model = algorithm("MlpPolicy", Spaces(space, actions), policy_kwargs=policy_kwargs, seed=0, device="cpu")
    generator = th.Generator().manual_seed(0)
    with th.no_grad():
        disturb(model.policy, generator)
        for module in model.policy.modules():
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) and sparsity:
                keep = th.rand(module.weight.shape, generator=generator) > sparsity
                module.weight.copy_(th.where(keep, module.weight / (1 - sparsity) ** 0.5, 0.0))
    return model


def observe(model, count=40):
    model.observation_space.seed(0)
    return np.stack([model.observation_space.sample() for _ in range(count)])


def expect_same(network, x, expected, tolerance=1e-5):
    """The actions on every backend: of one observation, a few and many."""
    for backend in EXACT:
        policy = Policy(network, backend)
        for part in (x[:1], x[:3], x):
            np.testing.assert_allclose(policy.predict(part)[0], expected[: len(part)], rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(policy.predict(x[0])[0], expected[0], rtol=tolerance, atol=tolerance)


@cache
def exported(name, sparsity, bits):
    """A network, observations, and the model's actions."""
    model = make(name, sparsity=sparsity)
    x = observe(model)
    expected = model.predict(x, deterministic=True)[0]
    assert np.unique(expected, axis=0).shape[0] > 36 or sparsity
    return compress(model, bits, x, backend="numpy").network, x, expected


each = pytest.mark.parametrize("name", EXTRACTORS)


@each
@pytest.mark.parametrize("sparsity", [0.0, 0.8])
def test_floats(name, sparsity):
    network, x, expected = exported(name, sparsity, 32)
    expect_same(network, x, expected, 2e-5)


@each
@pytest.mark.parametrize("sparsity", [0.0, 0.8])
def test_integers(name, sparsity):
    """The backends agree, and 8 bits are near to the model; the layers that only carry something are not rounded at all."""
    network, x, expected = exported(name, sparsity, 8)
    ours = network.head(layer_inputs(network, x)[-1])
    assert all(layer.quantized for layer in network.layers)
    assert np.abs(ours - expected).max() < 0.1 and np.abs(ours - expected).mean() < 0.02
    expect_same(network, x, ours)
    if "int8" in AVAILABLE and not any(layer.norm for layer in network.layers):
        assert np.abs(Policy(network, "int8").predict(x)[0] - ours).max() < 0.1


@each
def test_the_file(name, tmp_path):
    for bits in (32, 8):
        network, x, _ = exported(name, 0.8, bits)
        data = encode(network)
        assert data[4] == 6
        assert encode(decode(data)) == data
        (tmp_path / "policy.sb3s").write_bytes(data)
        expect_same(load(tmp_path / "policy.sb3s").network, x, network.head(layer_inputs(network, x)[-1]))


@each
def test_onnx(name):
    onnxruntime = pytest.importorskip("onnxruntime")
    from sb3_sparse.export.onnx import WEIGHT_FORMS, to_onnx

    for bits in (32, 8):
        network, x, _ = exported(name, 0.8, bits)
        expected = network.head(layer_inputs(network, x)[-1])
        for form in WEIGHT_FORMS:
            session = onnxruntime.InferenceSession(to_onnx(network, form=form), providers=["CPUExecutionProvider"])
            for part in (x[:1], x):
                (actions,) = session.run(["action"], {"observation": part})
                np.testing.assert_allclose(actions, expected[: len(part)], rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler (gcc)")
@pytest.mark.parametrize("arithmetic", ["float", "integer"])
def test_c(arithmetic, tmp_path):
    """All headers in one library, each with its self test."""
    found = {f"n{index}_{bits}": exported(name, 0.8, bits) for index, name in enumerate(EXTRACTORS) for bits in (8, 32)}
    if arithmetic == "integer":
        found = {name: each for name, each in found.items() if without_integers(each[0]) is None}
        assert len(found) == 10
    lines = ["#include <stdint.h>"]
    for name, (network, _, _) in found.items():
        (tmp_path / f"{name}.h").write_text(to_c(network, name=name))
        lines += [f"#define {name.upper()}_INTEGER"] * (arithmetic == "integer")
        lines += [
            f"#define {name.upper()}_SELF_TEST",
            f'#include "{name}.h"',
            f"int test_{name}(void) {{ return {name}_self_test(); }}",
        ]
        call = f"void run_{name}(const {name}_observation *x, {name}_action *y) {{ {name}_act(x, y); }}"
        lines.append(call)
    source, library = tmp_path / "all.c", tmp_path / "all.so"
    source.write_text("\n".join(lines))
    command = ["gcc", "-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    functions = ctypes.CDLL(str(library))
    for name, (network, x, _) in found.items():
        assert functions[f"test_{name}"]() == 0, name
        actions = np.zeros((len(x), 2), np.float32)
        for row, action in zip(np.ascontiguousarray(x), actions, strict=True):
            functions[f"run_{name}"](ctypes.c_void_p(row.ctypes.data), ctypes.c_void_p(action.ctypes.data))
        expected = network.head(layer_inputs(network, x)[-1])
        tolerance = 2e-5 if arithmetic == "float" else 5e-3
        np.testing.assert_allclose(actions, expected, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("algorithm", [SAC, DQN])
@pytest.mark.parametrize("name", ["norm, activation", "signal", "mean of all"])
def test_algorithms(name, algorithm):
    model = make(name, algorithm)
    x = observe(model)
    expected = model.predict(x, deterministic=True)[0]
    network = compress(model, bits=32, backend="numpy").network
    for backend in EXACT:
        expect_close(Policy(network, backend).predict(x)[0], expected, network, x, slack=2e-5)


@pytest.mark.parametrize("name", ["signal", "vector as a signal", "norm, batch norm", "mean of all"])
def test_pruned_and_quantized_in_training(name):
    """The masks of an nn.Conv1d and its integers, which stay what training has made of them."""
    model = make(name, SAC)
    model.learning_starts = 10
    callbacks = [OneShotPruningCallback("actor", 0.8, at=0), QATCallback("actor", start=0.5)]
    model.learn(30, callback=callbacks)
    x = observe(model)
    expected = model.predict(x, deterministic=True)[0]
    # Biases of integers have 16 bits.
    expect_same(compress(model, bits=32).network, x, expected, 1e-3)
    policy = compress(model, calibration=x)
    # Where every number of a flattened convolution has its own batch norm, the layer behind it is rounded anew.
    expect_same(policy.network, x, expected, 0.1 if name == "vector as a signal" else 1e-3)
    report = policy.report()
    assert [layer.nonzero for layer in report.layers] != [layer.total for layer in report.layers]
    assert report.sparsity == pytest.approx(0.8, abs=0.02)
    for layer in policy.network.layers:
        assert layer.quantized and np.count_nonzero(layer.weight) < 0.75 * layer.weight.size


def test_dead_units():
    """Units without weights go; those that a norm sees stay, for its mean is over all of them."""
    model = make("norm, activation")
    first, norm, _, second, _ = model.policy.features_extractor.net
    with th.no_grad():
        first.weight[:5] = 0
        second.weight[:, 5:9] = 0
        second.weight[:3] = 0
    x = observe(model)
    network = compress(model, bits=32).network
    expect_same(network, x, model.predict(x, deterministic=True)[0])
    assert [layer.outputs for layer in network.layers] == [16, 5, 8, 2]
    # Sorted by their weights; the scale and the shift of each go with it.
    assert not np.array_equal(network.layers[0].norm.scale, norm.weight.detach())


def test_the_report_counts_the_weights_of_the_model():
    """Not those of unit layers, which carry a norm or a pool."""
    report = compress(make("norm first"), calibration=observe(make("norm first"))).report()
    names = [layer.name.removeprefix("features_extractor.net.") for layer in report.layers]
    assert names[:2] == ["0", "1"] and [layer.total for layer in report.layers[:3]] == [0, 6 * 16, 16 * 8]
    weights, rows = 6 * 16 + 16 * 8 + 8 * 2, 16 + 8 + 2
    assert report.nbytes["dense float32"] == 4 * (weights + rows)
    assert report.sparsity == 0
    assert "There is no integer-only C code for layer norms." in report.notes


def test_unit_layers_are_not_rounded():
    """Whatever stands in front of them."""
    model = make("batch norm, norm")
    x = observe(model)
    exact, rounded = (compress(model, bits, x).network.layers[1] for bits in (32, 2))
    assert exact.norm is not None and np.count_nonzero(exact.dense()) == 9
    np.testing.assert_array_equal(np.sort(rounded.dense().max(axis=1)), np.sort(exact.dense().max(axis=1)))


def test_arithmetics_without_norms():
    model = make("norm, activation")
    policy = compress(model, calibration=observe(model))
    sentence = r"layer 0 has norm=Norm\(\.\.\.\), which {} does not support: {}"
    with pytest.raises(RuntimeError, match=sentence.format("the int8 backend", "use backend='auto'")):
        Policy(policy.network, "int8")
    header = to_c(policy.network)
    for name, instead in (
        ("the code for SIMD registers", "leave the macro out"),
        ("the integer code of a C header", "use its float code"),
    ):
        assert re.search(f'#error "{sentence.format(name, instead)}', header)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_random_networks(seed):
    """Shrunk and sorted, in the file, on every backend."""
    rng = np.random.default_rng(seed)
    network = draw_signal_network(rng)
    expect_to_shrink(rng, network)
    network = decode(encode(network))
    x = draw_observations(rng, network, 20)
    expected = torch_actions(network, x)
    # A norm of outputs that are nearly equal makes more of how they were rounded.
    slack = 1e-4 if any(layer.norm is not None for layer in network.layers) else 0.0
    for backend in EXACT:
        expect_close(Policy(network, backend).predict(x)[0], expected, network, x, slack)
        expect_close(Policy(network, backend).predict(x[0])[0][None], expected[:1], network, x[:1], slack)


def test_means_in_front_of_a_grid():
    """The numbers that the mean is taken of are not on the grid of the layer behind it, whose steps are coarse."""
    network, x, _ = exported("vector as a signal, mean", 0.8, 8)
    first, second, *rest = network.layers
    network = replace(network, layers=(first, replace(second, grid=Grid(0.01, 0, 255)), *rest))
    sentence = (
        "layer 0 has a pool of means in front of inputs that training has rounded, which the integer code of a C header does"
    )
    with pytest.raises(ValueError, match=sentence):
        integer_layers(network)
    assert f'#error "{sentence} not support: use its float code' in to_c(network)
    # A number between two steps may be rounded to either of them.
    expect_same(network, x, network.head(layer_inputs(network, x)[-1]), 0.05)


def layers(*modules):
    return [nn.Conv2d(3, 4, 3), nn.ReLU(), *modules, nn.Flatten(), nn.LazyLinear(2)]


#: Shape of the input, modules, and what the error says.
REFUSED = {
    "norm of rows": (
        (3, 16, 12),
        layers(nn.LayerNorm(10)),
        r"\(LayerNorm.* over a part of its input of shape \(4, 14, 10\).* one over the whole input, or a batch norm, can be",
    ),
    "norm without eps": ((6,), [nn.LayerNorm(6, eps=0.0), nn.Linear(6, 2)], "whose eps is not positive"),
    "wide norm": (
        (1025,),
        [nn.LayerNorm(1025), nn.Linear(1025, 2)],
        r"'0' \(LayerNorm.*which reads an input of shape \(1025,\) that no layer gives, .* one directly behind a linear layer",
    ),
    "ceil_mode": (
        (3, 16, 12),
        layers(nn.AvgPool2d(3, ceil_mode=True)),
        "with ceil_mode or divisor_override, .*, one without them can be",
    ),
    "divisor": ((3, 16, 12), layers(nn.AvgPool2d(2, divisor_override=3)), "with ceil_mode or divisor_override"),
    "padding that does not count": (
        (3, 16, 12),
        layers(nn.AvgPool2d(3, 1, 1, count_include_pad=False)),
        "whose padding does not count, .* one with count_include_pad=True, or without padding, can",
    ),
    "max pool with dilation": (
        (3, 16),
        [nn.MaxPool1d(2, dilation=2), nn.Flatten(), nn.LazyLinear(2)],
        "with dilation, ceil_mode or return_indices",
    ),
    "indices": (
        (3, 16),
        [nn.AdaptiveMaxPool1d(4, return_indices=True), nn.Flatten(), nn.Linear(12, 2)],
        "with return_indices",
    ),
    "uneven windows": (
        (3, 16, 12),
        layers(nn.AdaptiveAvgPool2d((4, 5))),
        r"whose windows of an input of shape \(4, 14, 10\) differ in size or distance, .* one whose output divides its input",
    ),
    "pool of a vector": (
        (6,),
        [nn.AvgPool1d(2), nn.Linear(3, 2)],
        r"the pool '0' \(AvgPool1d.*\), which does not follow a convolution",
    ),
    "groups": (
        (3, 16),
        [nn.Conv1d(3, 3, 2, groups=3), nn.Flatten(), nn.LazyLinear(2)],
        r"\(Conv1d.*, with groups or dilation, cannot",
    ),
    "named padding": (
        (3, 16),
        [nn.Conv1d(3, 3, 2, padding="same"), nn.Flatten(), nn.LazyLinear(2)],
        "with a padding other than numbers of zeros",
    ),
    "convolution of a vector": (
        (6,),
        [nn.Conv1d(1, 3, 2), nn.Flatten(), nn.Linear(15, 2)],
        r"which reads a vector, .* an nn.Unflatten\(1, \(1, ...\)\) in front of it can be exported",
    ),
    "shape behind a layer": (
        (6,),
        [nn.Linear(6, 8), nn.Unflatten(1, (2, 4)), nn.Flatten(), nn.Linear(8, 2)],
        r"the layer '1' \(Unflatten.*which is behind a layer and does not flatten",
    ),
    "shape that does not fit": (
        (6,),
        [nn.Unflatten(1, (4, -1)), nn.Flatten(), nn.Linear(6, 2)],
        r"which does not fit an input of shape \(6,\)",
    ),
    "the batch in a shape": ((6,), [nn.Unflatten(0, (2, -1)), nn.Flatten(), nn.Linear(6, 2)], "with names, or of the batch"),
    "batch norm before a view": (
        (6,),
        [nn.BatchNorm1d(6), nn.BatchNorm1d(6), nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 2, 2), nn.Flatten(), nn.Linear(4, 2)],
        "a batch norm of 6 numbers before a convolution of 2 channels cannot be exported: put it behind nn.Unflatten",
    ),
    "group norm": (
        (3, 16, 12),
        layers(nn.GroupNorm(2, 4)),
        r"\(GroupNorm.*, a LayerNorm over channels, height and width, or a BatchNorm2d, can be exported",
    ),
    "gru": ((6,), [nn.GRU(6, 4), nn.Linear(4, 2)], r"\(GRU.* In its place, the LSTM of RecurrentPPO can be exported"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    shape, modules, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as error:
        folded(modules, shape, 2)
    assert "\n" not in str(error.value)


def test_the_sentence_of_a_model():
    model = make("signal")
    model.policy.features_extractor.net[1] = nn.Conv1d(3, 8, 3, dilation=1, groups=1, padding_mode="circular", padding=0)
    with pytest.raises(
        ValueError, match=r"^the layer 'features_extractor.net.1' \(Conv1d\(3, 8, .*\), with a padding other than"
    ):
        compress(model)


@pytest.mark.parametrize(("size", "outputs"), [(7, 3), (12, 4), (12, 12), (5, 1), (9, 2), (13, 6)])
def test_adaptive_pools(size, outputs):
    """Where the windows are those of an ordinary pool, even if they overlap."""
    pool = nn.AdaptiveAvgPool1d(outputs)
    x = th.randn(2, 3, size, generator=th.Generator().manual_seed(0))
    try:
        ((_, found),) = records(pool, At("own", {}, (3, size)))
    except ValueError as error:
        assert "differ in size or distance" in str(error) and (size, outputs) == (13, 6)
        return
    th.testing.assert_close(F.avg_pool1d(x, found.kernel[1], found.stride[1]), pool(x))
