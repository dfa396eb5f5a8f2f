"""In which form the tables of a header hold the weights: dense or sparse, in bytes, floats or codes of 2, 3, 4 or 6 bits."""

import re
from itertools import pairwise
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_sparse.export.c.float_code import float_code
from sb3_sparse.export.c.header import to_c
from sb3_sparse.export.c.layers import Form, choose_forms
from sb3_sparse.runtime.network.records import Fixed, Head, Layer, Minifloats, Network

#: Packed widths, and the least of them that holds each number of bits.
PACKED = (2, 3, 4, 6)
HELD = {2: 2, 3: 3, 4: 4, 5: 6, 6: 6, 7: 8, 8: 8}


def make(bits, sizes=(17, 64, 64, 6), density=1.0, seed=0):
    """A network on the grid of so many bits, both ends included."""
    rng, layers = np.random.default_rng(seed), []
    for inputs, outputs in pairwise(sizes):
        top = 2 ** (bits - 1) - 1
        weight = (rng.integers(1, top + 1, (outputs, inputs)) * rng.choice([-1, 1], (outputs, inputs))).astype(np.int8)
        weight *= rng.random((outputs, inputs)) < density
        weight.flat[0], weight.flat[-1] = -top, top
        bias = Fixed(rng.integers(-99, 99, outputs).astype(np.int16), 2.0**-10)
        layers.append(Layer(weight, bias, scale=Minifloats(np.full(outputs, 16, np.uint8), 2.0**-10)))
    free = np.full(sizes[-1], np.inf, np.float32)
    return Network(sizes[:1], False, None, tuple(layers), Head("clip", free.shape, -free, free), ranges=(1.0,) * len(layers))


def tables(text):
    """Bytes of the tables of the integer code, and of the float code, by name."""
    code = text[text.index("_INTEGER)\n") :]
    integer, floats = code[: code.index("#else")], code[code.index("#else") : code.index("_SELF_TEST")]
    return table_bytes(integer), table_bytes(floats)


def table_bytes(code):
    sizes = {"uint8_t": 1, "int8_t": 1, "uint16_t": 2, "int16_t": 2, "float": 4}
    pattern = r"static const (\w+) SB3S_FLASH policy_(\w+)\[\] = \{([^}]*)\}"
    return {name: sizes[kind] * len(values.split(",")) for kind, name, values in re.findall(pattern, code)}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PACKED), st.lists(st.integers(-128, 127), max_size=60))
def test_pack(width, numbers):
    """Two's complement from the lowest bit on; three bytes hold a whole number of codes."""
    weights = np.array(numbers, np.int64) >> 8 - width
    packed = Form(dense=True, width=width).pack(weights.astype(np.int8))
    assert packed.dtype == np.uint8 and len(packed) == 3 * ceil(len(weights) * width / 24)
    bits = np.unpackbits(packed, bitorder="little")[: len(weights) * width].reshape(-1, width)
    codes = bits @ (1 << np.arange(width))
    assert np.array_equal(np.where(codes >> width - 1, codes - 2**width, codes), weights)
    assert not np.unpackbits(packed, bitorder="little")[len(weights) * width :].any()


def test_bytes():
    weights = np.array([-128, 127, 0, -1], np.int8)
    assert Form(dense=True, width=8).pack(weights).tolist()[:4] == [128, 127, 0, 255]


@pytest.mark.parametrize("bits", HELD)
def test_dense_layers(bits):
    """All weights in as few bits as there are, and nothing else: no columns, no runs."""
    network = make(bits)
    assert choose_forms(network) == [Form(dense=True, width=HELD[bits])] * 3
    integer, floats = tables(to_c(network))
    weights = [layer.weight.size for layer in network.layers]
    packed = [3 * ceil(count * HELD[bits] / 24) if HELD[bits] < 8 else count for count in weights]
    assert [floats[f"weights{index}"] for index in range(3)] == packed
    assert not any(name.startswith(("columns", "runs")) for name in floats)
    # A factor of two bytes and a shift for each layer; the last one has its scales and biases in a table of floats.
    assert integer["rows2"] == 8 * 6
    floating = 8 * 64 * 2
    assert integer == integer | {"layers": sum(packed) + 3 * 3} and integer["rows0"] + integer["rows1"] == floating


def test_the_issue_of_a_small_layer():
    """8 x 8 weights of 4 bits are 32 bytes, 33 in groups of three: worth their code in a larger network alone."""
    small, large = make(4, sizes=(8, 8)), make(4, sizes=(8, 8, 64, 8))
    assert choose_forms(small)[0].width == 8
    assert choose_forms(large)[0] == Form(dense=True, width=4)
    assert tables(to_c(large))[1]["weights0"] == 33


def test_sparse_layers():
    """Columns of a byte each, and weights that share bytes."""
    network = make(4, sizes=(200, 100, 90), density=0.1)
    assert choose_forms(network) == [Form(dense=False, width=4)] * 2
    floats = tables(to_c(network))[1]
    for index, layer in enumerate(network.layers):
        count = np.count_nonzero(layer.weight)
        assert floats[f"weights{index}"] == 3 * ceil(count * 4 / 24) and floats[f"columns{index}"] == count


def test_forms_that_share_code():
    """A layer takes a form that another needs anyway, if its own would not pay for its code."""
    few, many = make(3, sizes=(10, 40)).layers[0], make(4, sizes=(40, 60)).layers[0]
    free = np.full(60, np.inf, np.float32)
    network = Network((10,), False, None, (few, many), Head("clip", (60,), -free, free))
    assert choose_forms(network) == [Form(dense=True, width=4)] * 2
    assert choose_forms(make(3)) == [Form(dense=True, width=3)] * 3


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([0.02, 0.1, 0.3, 0.5, 1.0]), st.integers(0, 99))
def test_fewer_bits_are_no_larger_tables(density, seed):
    """Columns and weights, whatever the weights, but for the code that another form saves."""
    rng = np.random.default_rng(seed)
    sizes = tuple(map(int, rng.integers(1, 80, 4)))
    before = np.inf
    for bits in (8, 6, 4, 3, 2):
        network = make(bits, sizes, density, seed)
        floats = table_bytes(float_code(network, "policy"))
        size = sum(size for name, size in floats.items() if name.startswith(("weights", "columns")))
        entries = sum(2 * np.count_nonzero(layer.weight) for layer in network.layers)
        assert size <= entries + 200 and size <= before + 200
        assert all(form.width == 8 for form in choose_forms(network, pack=False))
        before = size
    assert size <= max(1000, 0.65 * entries)


def test_floats():
    layers = tuple(Layer(layer.dense(), layer.biases) for layer in make(8).layers)
    network = make(8)
    assert choose_forms(Network(network.shape, False, None, layers, network.head)) == [Form(dense=True, width=32)] * 3


def test_what_the_header_says():
    assert "4-bit weights, float activations" in to_c(make(4)) and "in integers: 4-bit weights, 16-bit" in to_c(make(4))
    assert "8-bit weights, float activations" in to_c(make(4), pack=False)


def test_convolutions_stay_in_bytes():
    rng = np.random.default_rng(0)
    weight = rng.integers(-1, 2, (8, 3, 3, 3)).astype(np.int8)
    layer = Layer(weight, Fixed(np.zeros(8, np.int16), 1.0), scale=Minifloats(np.full(8, 16, np.uint8), 2.0**-10))
    network = Network((3, 3, 3), True, None, (layer,), Head("argmax", (), groups=(8,)))
    assert choose_forms(network) == [Form(dense=False, width=8)]
