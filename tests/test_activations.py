"""Activations on every backend against their definitions, and modules that are activations with something around them."""

import math

import numpy as np
import pytest
import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_sparse.export.c.header import to_c
from sb3_sparse.runtime import Policy
from sb3_sparse.runtime.format.artifact import decode, encode_as
from sb3_sparse.runtime.format.network_bytes import oldest_version
from sb3_sparse.runtime.network.records import Activation, Head, Layer, Network
from tests.chains import folded
from tests.networks import EXACT, pack, unpack

#: The exact functions, in doubles.
EXACTLY = {
    "gelu": lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2)),
    "gelu_tanh": lambda x: x / (1 + math.exp(-math.sqrt(8 / math.pi) * (x + 0.044715 * x**3))) if x > -12 else 0.0,
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "softplus": lambda x: math.log1p(math.exp(x)),
    "softsign": lambda x: x / (1 + abs(x)),
    "hardswish": lambda x: x * min(max(x + 3, 0), 6) / 6,
}
#: From -20 to 20, and close to 0.
POINTS = np.concatenate([np.linspace(-20, 20, 1601), np.geomspace(1e-6, 1, 40), -np.geomspace(1e-6, 1, 40)]).astype(np.float32)


def only(activation, size):
    """A network that is an activation: each output is that of one input."""
    layer = Layer(np.eye(size, dtype=np.float32), np.zeros(size, np.float32), activation)
    bound = np.full(size, np.inf, np.float32)
    return Network((size,), False, None, (layer,), Head("clip", (size,), -bound, bound))


def expect_exact(name, y):
    expected = np.array([EXACTLY[name](float(x)) for x in POINTS])
    assert (np.abs(y - expected) <= 1e-6 * np.maximum(1, np.abs(expected))).all()
    # Close to 0 the digits count, not the size.
    small = np.abs(POINTS) < 1
    np.testing.assert_allclose(y[small], expected[small], rtol=2e-6)


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("name", EXACTLY)
def test_every_backend_is_exact(name, backend):
    y, _ = Policy(only(Activation(name), len(POINTS)), backend).predict(POINTS)
    expect_exact(name, y)
    alone = Policy(only(Activation(name), 1), backend)
    outside = np.array([-3e38, -1000.0, 1000.0, 3e38, np.nan], np.float32)
    ends = np.array([alone.predict(x)[0][0] for x in outside.reshape(-1, 1)])
    top = {"softsign": [1000 / 1001, 1.0]}.get(name, [1000.0, np.float32(3e38)])
    bottom = [-1.0, -1.0] if name == "softsign" else [0.0, 0.0]
    np.testing.assert_allclose(ends[:2], bottom, atol=2e-3, rtol=0)
    np.testing.assert_allclose(ends[2:4], top, rtol=1e-6)
    assert np.isnan(ends[4])


@pytest.mark.parametrize("name", EXACTLY)
def test_onnx_is_exact(name):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from sb3_sparse.export.onnx import to_onnx

    data = to_onnx(only(Activation(name), len(POINTS)))
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (y,) = session.run(["action"], {"observation": POINTS[None]})
    expected = np.array([EXACTLY[name](float(x)) for x in POINTS])
    assert (np.abs(y[0] - expected) <= 1e-6 * np.maximum(1, np.abs(expected))).all()


def test_version_of_the_file():
    """A new activation needs version 3, and a file of an older version that has one is refused."""
    assert oldest_version(only(Activation("silu"), 2)) == 1
    for name in EXACTLY:
        network = only(Activation(name), 2)
        assert oldest_version(network) == 3
        data = encode_as(network, 3)
        assert decode(data).layers[0].activation == Activation(name)
        with pytest.raises(ValueError, match="a layer is of a kind that version 2 does not have"):
            decode(pack(unpack(data), version=2))


def test_a_header_brings_what_it_uses():
    assert "sb3s_mish" in to_c(only(Activation("mish"), 2))
    for name in ("identity", "silu", "sigmoid"):
        assert "sb3s_mish" not in to_c(only(Activation(name), 2))


#: Modules that are an activation with a scale in front of it or behind it.
SCALED = {
    "SELU": nn.SELU(),
    "CELU": nn.CELU(0.3),
    "CELU, large": nn.CELU(4.0),
    "Softplus": nn.Softplus(0.4),
    "Softplus, steep": nn.Softplus(7.0, threshold=16),
    "PReLU": nn.PReLU(init=-0.3),
    "GELU, tanh": nn.GELU(approximate="tanh"),
}


@pytest.mark.parametrize("name", SCALED)
def test_scales_fold_into_layers(name):
    th.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), SCALED[name], nn.Linear(8, 8), SCALED[name], nn.Linear(8, 3))
    network = folded(model, (5,), 3)
    assert len(network.layers) == 3
    x = 3 * th.randn(50, 5)
    for backend in EXACT:
        np.testing.assert_allclose(Policy(network, backend).predict(x.numpy())[0], model(x).detach(), rtol=1e-5, atol=1e-5)


def test_a_pool_behind_a_scaled_activation():
    th.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.SELU(), nn.MaxPool2d(2, 2, 1), nn.Flatten(), nn.Linear(27, 3))
    network = folded(model, (2, 7, 7), 3)
    x = th.randn(20, 2, 7, 7)
    for backend in EXACT:
        np.testing.assert_allclose(Policy(network, backend).predict(x.numpy())[0], model(x).detach(), rtol=1e-5, atol=1e-5)


REFUSED = {
    "negative alpha": (nn.CELU(-1.0), "whose alpha is not positive, cannot be exported"),
    "low threshold": (nn.Softplus(threshold=2), "whose threshold is below 15, cannot be exported"),
    "negative beta": (nn.Softplus(-1.0), "whose beta is not positive"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    module, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        folded([nn.Linear(5, 8), module, nn.Linear(8, 3)], (5,), 3)


def test_a_scaled_activation_at_the_end():
    with pytest.raises(
        ValueError, match=r"SELU, CELU, Softplus with a beta.* at the end cannot be exported: end in a linear layer"
    ):
        folded([nn.Linear(5, 3), nn.SELU()], (5,), 3)


def test_the_threshold_of_softplus():
    """From the smallest threshold that is accepted on, softplus is x in float32."""
    x = th.linspace(14.9, 15.1, 100)
    th.testing.assert_close(F.softplus(x, threshold=15), F.softplus(x, threshold=40), rtol=1e-7, atol=1e-6)
