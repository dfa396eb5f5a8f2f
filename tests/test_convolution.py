"""Convolutions of bytes: the kernels against their model in numpy, and against each other, where their geometry changes."""

from dataclasses import replace

import numpy as np
import pytest

from sb3_sparse.runtime import Policy
from sb3_sparse.runtime.backends.families import FAMILIES
from sb3_sparse.runtime.backends.int8 import exact_in_bytes, in_bytes, simulate_int8
from sb3_sparse.runtime.backends.plan import Plan
from sb3_sparse.runtime.network.records import Activation, Head, Layer, Network
from sb3_sparse.runtime.network.reference import layer_inputs
from tests.networks import AVAILABLE, EXACT, FAMILY_NAMES, draw_minifloats

needs_int8 = pytest.mark.skipif("int8" not in AVAILABLE, reason="this processor has none of the families")

RELU, TANH = Activation("relu"), Activation("tanh")
#: Observation, then channels, kernel, stride and padding of each convolution.
GEOMETRIES = {
    "nature": ((4, 84, 84), [(32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0)]),
    "four pixels of a row, width no multiple": ((3, 21, 27), [(5, 8, 4, 0), (3, 2, 1, 0)]),
    "stride 4 without quads of a row": ((2, 24, 30), [(6, 6, 4, 0)]),
    "stride 4 and padding": ((1, 20, 20), [(3, 4, 4, 2), (3, 2, 2, 1)]),
    "stride 3": ((5, 31, 40), [(7, 3, 3, 1), (6, 3, 3, 1)]),
    "stride 2": ((3, 70, 75), [(9, 3, 2, 1), (6, 3, 2, 1), (2, 3, 2, 0)]),
    "wide": ((3, 6, 128), [(4, 3, 1, 1), (4, 3, 1, 1)]),
    "one place": ((6, 3, 3), [(17, 3, 1, 0), (3, 1, 1, 0)]),
    "wide steps": ((4, 40, 55), [(3, 5, 7, 1), (3, 5, 5, 1)]),
    "one row": ((2, 1, 33), [(3, 1, 2, 0), (5, 1, 1, 0)]),
}


def draw(geometry, *, density=0.3, activation=RELU):
    """A network of int8 with these convolutions and a linear layer of three outputs."""
    rng = np.random.default_rng(0)
    shape, convolutions = GEOMETRIES[geometry]
    layers, current = [], shape
    for outputs, kernel, stride, padding in [*convolutions, (3, None, 1, 0)]:
        size = (outputs, int(np.prod(current)))
        if kernel is not None:
            size = (outputs, current[0], min(kernel, current[1] + 2 * padding), kernel)
        weight = (rng.integers(-127, 128, size) * (rng.random(size) < density)).astype(np.int8)
        scale = draw_minifloats(rng, outputs, (0.0001 if not layers else 0.01) / np.sqrt(np.prod(size[1:])))
        bias = (rng.normal(size=outputs) * 0.3).astype(np.float32)
        last = Activation() if kernel is None else activation
        layers.append(Layer(weight, bias, last, scale, None, (stride,) * 2, (padding,) * 2))
        current = layers[-1].output_shape(current)
    infinite = np.full(3, np.inf, np.float32)
    return Network(shape, True, None, tuple(layers), Head("clip", (3,), -infinite, infinite))


@needs_int8
@pytest.mark.parametrize("activation", [RELU, TANH], ids=lambda activation: activation.name)
@pytest.mark.parametrize("density", [0.0, 0.03, 1.0])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_it_is_its_model_in_numpy(geometry, density, activation):
    network = draw(geometry, density=density, activation=activation)
    assert exact_in_bytes(network)
    x = np.random.default_rng(1).integers(0, 256, (4, *network.shape), dtype=np.uint8)
    expected = simulate_int8(network, x)
    policy = Policy(network, "int8")
    actions = np.array([policy.predict(observation)[0] for observation in x])
    # Where a number lies in the middle between two steps of 8 bits, rounding may take either.
    scale = np.abs(expected).max() + 1
    assert np.abs(actions - expected).max() < 0.01 * scale and np.median(np.abs(actions - expected)) < 1e-3 * scale
    np.testing.assert_array_equal(policy.predict(x)[0], actions, "a batch of bytes")
    np.testing.assert_allclose(policy.predict(x.astype(np.float32))[0], actions, atol=0.01 * scale)
    for family in FAMILY_NAMES:
        np.testing.assert_array_equal(Policy(network, family).predict(x)[0], actions, family)
    float_actions = layer_inputs(network, x)[-1]
    for backend in EXACT:
        np.testing.assert_allclose(Policy(network, backend).predict(x[0])[0], float_actions[0], rtol=1e-4, atol=1e-4 * scale)


@needs_int8
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_pixels_are_exact(geometry):
    """A first convolution rounds nothing: with a float layer behind it, all is as in floats."""
    network = draw(geometry)
    first, last = network.layers[0], network.layers[-1]
    size = int(np.prod(first.output_shape(network.shape)))
    weight = np.random.default_rng(2).normal(size=(3, size)).astype(np.float32) / np.sqrt(size).astype(np.float32)
    network = replace(network, layers=(first, Layer(weight, last.bias)))
    x = np.random.default_rng(1).integers(0, 256, (4, *network.shape), dtype=np.uint8)
    expected = layer_inputs(network, x)[-1]
    # Wherever they lie in memory.
    memory = np.zeros(x[0].size + 1, np.uint8)
    memory[1:] = x[0].reshape(-1)
    for family in FAMILY_NAMES:
        policy = Policy(network, family)
        np.testing.assert_allclose(policy.predict(x)[0], expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(policy.predict(memory[1:].reshape(network.shape))[0], expected[0], atol=1e-5)


def test_which_layers_are_in_bytes():
    """Padding needs inputs that are never negative: only then 0 is one of the 256 steps."""
    network = draw("stride 2")
    assert [in_bytes(network, index) for index in range(4)] == [False, True, True, True]
    network = draw("stride 2", activation=TANH)
    assert [in_bytes(network, index) for index in range(4)] == [False, False, True, True]
    layers = tuple(Layer(layer.dense(), layer.bias, layer.activation) for layer in draw("one place").layers)
    assert not any(in_bytes(replace(draw("one place"), layers=layers), index) for index in range(3))
    wide = draw("wide")
    shape = (3, 6, 129)
    head = Layer(np.zeros((3, 4 * 6 * 129), np.int8), wide.layers[-1].bias, Activation(), wide.layers[-1].scale)
    wide = replace(wide, shape=shape, layers=(*wide.layers[:-1], head))
    assert not exact_in_bytes(wide) and [in_bytes(wide, index) for index in range(3)] == [False, False, True]


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_plans_without_weights_are_small(family):
    """Quads that do not exist take no place."""
    sizes = [len(Plan(draw("nature", density=density), family).data) for density in (0.0, 0.05, 1.0)]
    assert sizes[0] < sizes[1] / 5 and sizes[1] < sizes[2] / 4
