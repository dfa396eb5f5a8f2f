"""The compact file: what goes in comes out, the bytes stay what they are, and no file can do harm."""

import re
import struct
import time
import tracemalloc
import zlib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_sparse.runtime import Policy, load
from sb3_sparse.runtime.backends.plan import Plan
from sb3_sparse.runtime.format import artifact
from sb3_sparse.runtime.format.artifact import decode, encode, encode_as
from sb3_sparse.runtime.format.bytestream import Writer
from sb3_sparse.runtime.format.layer_bytes import write_layer
from sb3_sparse.runtime.format.limits import check_size
from sb3_sparse.runtime.format.network_bytes import oldest_version
from sb3_sparse.runtime.network import records
from sb3_sparse.runtime.network.records import (
    ACTIVATIONS,
    HEADS,
    Activation,
    Fixed,
    Grid,
    Head,
    Layer,
    Minifloats,
    Network,
    Norm,
    Normalize,
    Part,
    Pool,
)
from tests.networks import (
    HEADER,
    draw_arrays,
    draw_network,
    draw_observations,
    draw_parted_network,
    draw_recurrent_network,
    draw_residual_network,
    draw_rounded_network,
    draw_signal_network,
    draw_stacked_network,
    pack,
    seal,
    tampered,
    unpack,
)

SEEDS = st.integers(0, 2**32)

#: Two inputs, two outputs, int8.
TINY = Network(
    (2,),
    False,
    None,
    (
        Layer(
            np.array([[127, -3], [0, 64]], np.int8),
            Fixed(np.array([16384, -1], np.int16), 2.0**-15),
            Activation("tanh"),
            Minifloats(np.array([0x00, 0x18], np.uint8), 2.0**-12),
        ),
    ),
    Head("unscale", (2,), np.full(2, -2, np.float32), np.full(2, 2, np.float32)),
)
TINY_BYTES = bytes.fromhex("""
    53 42 33 53 01 00 00 00 38 00 00 00 cd ef 05 61
    01 02 00 00 00 00 01
    02 02 02 00 00 00 80 39 00 18 00 00 00 38 00 40 ff ff
    02 00 02 00 01 00 01 00 01 00 00 01 01 7f fd 40
    00 01 02 00 00 00 01 00 00 00 c0 00 00 00 40
""")
#: The first byte of its layer in the payload, and some of the others.
LAYER = 7
#: The same with weights of 4 bits: the example of docs/guide/format.md, where each byte is explained.
FOUR = replace(TINY, layers=(replace(TINY.layers[0], weight=np.array([[7, -3], [0, 4]], np.int8)),))
FOUR_BYTES = bytes.fromhex("""
    53 42 33 53 05 00 00 00 2b 00 00 00 93 25 76 e3
    01 02 00 00 00 00 01
    02 02 02 00 00 00 80 39 00 18 00 00 00 38 00 40 ff ff
    04 5f c8
    00 01 02 00 00 00 01 00 00 00 c0 00 00 00 40
""")


def same(a, b):
    """Whether two records are equal to the last bit, types included."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(same(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))
    if isinstance(a, tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


KINDS = (draw_network, draw_residual_network, draw_recurrent_network, draw_parted_network, draw_stacked_network)
KINDS += (draw_signal_network, draw_rounded_network)


@settings(max_examples=200, deadline=None)
@given(SEEDS, st.sampled_from(KINDS))
def test_round_trip(seed, draw):
    network = in_floats(draw(np.random.default_rng(seed)))
    data = encode(network)
    assert same(decode(data), network)
    assert encode(decode(data)) == data
    assert same(decode(pack(unpack(data), deflate=data[5] == 0, version=data[4])), network), "compressed or not"
    oldest = oldest_version(network)
    old, new = encode_as(network, oldest), encode_as(network, max(5, oldest))
    assert same(decode(old), network) and same(decode(new), network)
    assert data == (old if len(old) <= len(new) else new), "the oldest version, or the smallest"
    odd = any(layer.rectify or layer.residual or layer.pool for layer in network.layers)
    newer = any(list(ACTIVATIONS).index(layer.activation.name) > 7 for layer in network.layers)
    needed = 3 if newer or network.lstms or network.parts else 1 + odd
    rounded = any(layer.grid is not None for layer in network.layers)
    assert oldest == (6 if network.view or rounded else 4 if network.stack else needed), "no newer than it needs"


def in_floats(network):
    """The file holds floats of 32 bits."""
    layers = tuple(replace(layer, activation=rounded(layer.activation)) for layer in network.layers)
    parts = (replace(part, encoder=part.encoder and in_floats(part.encoder)) for part in network.parts)
    return replace(network, layers=layers, parts=tuple(parts))


def rounded(activation):
    return activation._replace(low=float(np.float32(activation.low)), high=float(np.float32(activation.high)))


def test_it_is_small():
    """Two bytes per weight before deflate, and little else."""
    rng = np.random.default_rng(0)
    network = draw_network(rng, image=False, quantized=True, width=200, density=0.05)
    weights = sum(np.count_nonzero(layer.weight) for layer in network.layers)
    numbers = 7 * sum(layer.outputs for layer in network.layers) + 9 * np.prod(network.shape)
    assert len(encode(network)) <= 2 * weights + numbers + 200


@pytest.mark.parametrize(
    ("network", "data", "first", "second"),
    [
        (TINY, TINY_BYTES, 16 / 4096 * (127 * 0.5 + 3 * 1.0) + 0.5, 48 / 4096 * (64 * -1.0) - 2**-15),
        (FOUR, FOUR_BYTES, 16 / 4096 * (7 * 0.5 + 3 * 1.0) + 0.5, 48 / 4096 * (4 * -1.0) - 2**-15),
    ],
)
def test_golden_bytes(network, data, first, second):
    """The format cannot change unnoticed: a change needs another version."""
    assert pack(unpack(encode_as(network, data[4])), deflate=False, version=data[4]) == data
    assert data[12:16] == struct.pack("<I", zlib.crc32(data[:12] + data[16:]))
    assert same(decode(data), network)
    # How well zlib deflates is its own business.
    assert encode_as(network, data[4])[:12] == data[:5] + b"\1" + data[6:12]
    actions, _ = Policy(decode(data), "numpy").predict(np.array([0.5, -1.0], np.float32))
    np.testing.assert_allclose(actions, 2 * np.tanh([first, second]), atol=1e-6)


def test_the_page_shows_the_same_bytes():
    page = (Path(__file__).parent.parent / "docs/guide/format.md").read_text()
    (block,) = re.findall(r"```text\n(.*?)```", page, flags=re.DOTALL)
    rows = [line.split() for line in block.splitlines()]
    assert bytes.fromhex("".join(byte for _, *row in rows for byte in row)) == FOUR_BYTES
    ends = np.cumsum([len(row) - 1 for row in rows])
    assert [int(row[0], 16) for row in rows] == [0, *ends[:-1]]


def test_order_of_names_is_part_of_the_format():
    assert list(ACTIVATIONS)[:8] == ["identity", "relu", "tanh", "clip", "leaky_relu", "elu", "sigmoid", "silu"]
    assert HEADS[:4] == ("unscale", "clip", "argmax", "positive")


def change(at, *values):
    """The tiny file with other bytes in its payload."""
    payload = bytearray(TINY_BYTES[16:])
    payload[at : at + len(values)] = bytes(values)
    return pack(bytes(payload), deflate=False)


def number(at, value):
    return change(at, *struct.pack("<f", value))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not begin with 'SB3S'"),
        (b"SB3", "does not begin with 'SB3S'"),
        (b"SB3S", "unpack_from requires"),
        (b"PK\3\4" + TINY_BYTES[4:], "does not begin with 'SB3S'"),
        (seal(b"SB3S\7" + TINY_BYTES[5:]), "format version 7, not 1 to 6: update sb3_sparse"),
        (seal(b"SB3S\0" + TINY_BYTES[5:]), "format version 0, not 1 to 6"),
        (TINY_BYTES[:15], "unpack_from requires"),
        (TINY_BYTES[:-1], "checksum"),
        (TINY_BYTES + b"\0", "checksum"),
        (seal(TINY_BYTES[:-1]), "its length is"),
        (seal(TINY_BYTES + b"\0"), "its length is"),
        (seal(TINY_BYTES[:6] + b"\1" + TINY_BYTES[7:]), "unknown flags"),
        (seal(TINY_BYTES[:5] + b"\2" + TINY_BYTES[6:]), "unknown flags"),
        (seal(TINY_BYTES[:5] + b"\1" + TINY_BYTES[6:]), "damaged"),
        (pack(TINY_BYTES[16:] + b"\0"), "bytes after its end"),
        (pack(TINY_BYTES[16:-1]), "ends too early"),
        (pack(TINY_BYTES[16:], length=10**9), "its length cannot be"),
        (pack(TINY_BYTES[16:], length=54), "does not end where it should"),
        (pack(TINY_BYTES[16:], length=57), "its length is"),
        (seal(pack(TINY_BYTES[16:])[:-1]), "does not end where it should"),
        (seal(pack(TINY_BYTES[16:]) + b"\0"), "does not end where it should"),
        (change(0, 0), "no shape"),
        (change(0, 9), "9 dimensions"),
        (change(1, 0), "a shape is"),
        (change(1, 0, 0, 0, 2), "a shape is"),
        (change(5, 8), "unknown flags"),
        (change(6, 0), "it has no layer"),
        (change(LAYER, 1 + 128), "that only a linear layer has"),
        (change(LAYER, 1 + 4), "that only a linear layer has"),
        (change(LAYER, 2 + 128), "an LSTM layer has an activation"),
        (change(LAYER, 2 + 16), "that only a convolution has"),
        (change(LAYER, 2 + 32), "that only a convolution has"),
        (change(LAYER, 2 + 64), "that only a convolution has"),
        (change(LAYER, 8), "scales without integers"),
        (change(LAYER, 3), "a convolution does not fit"),
        (change(LAYER + 1, 15), "unknown kind"),
        (change(LAYER + 1, 14), "a layer is of a kind that version 1 does not have"),
        (change(LAYER + 1, 8), "a layer is of a kind that version 1 does not have"),
        (change(LAYER + 2, 0, 0), "unknown kind"),
        (number(LAYER + 4, 0.0), "a number is 0.0"),
        (number(LAYER + 4, -1.0), "a number is -1.0"),
        (number(LAYER + 4, np.nan), "a number is nan"),
        (number(LAYER + 4, np.inf), "a number is inf"),
        (change(LAYER + 20, 3), "a row has more weights than columns"),
        (change(LAYER + 22, 2), "rows do not add up"),
        (change(LAYER + 30, 9), "outside its layer"),
        (change(LAYER + 29, 0), "stands twice"),
        (change(LAYER + 31, 0), "stands twice"),
        (change(LAYER + 34, 4), "its action is of an unknown kind"),
        (change(LAYER + 35, 9), "9 dimensions"),
        (change(LAYER + 36, 3), "its action of shape"),
        (change(LAYER + 40, 2), "bounds are of an unknown kind"),
        (number(LAYER + 41, 3.0), "lower bound above the upper"),
        (number(LAYER + 41, -np.inf), "not finite"),
    ],
)
def test_damaged_files(data, message):
    with pytest.raises(ValueError, match=message) as error:
        decode(data)
    assert "\n" not in str(error.value) and 30 < len(str(error.value)) < 250


#: Two channels of 3 x 3, a residual block with a pool, two outputs; LAYER is the first byte of its first layer here too.
def residual(*changes, version=2, inputs=8):
    """The block, with changes of its first and second layer, and inputs of the last one that fit them."""
    weight, bias = np.full((2, 2, 3, 3), 0.5, np.float32), np.ones(2, np.float32)
    block = [
        Layer(weight, bias, Activation("relu"), padding=(1, 1), rectify=True),
        Layer(weight, bias, padding=(1, 1), residual=True, pool=Pool((3, 3), (2, 2), (1, 1))),
    ]
    block = [replace(part, **change) for part, change in zip(block, changes or ({}, {}), strict=True)]
    head = Head("positive", (2,))
    network = Network((2, 3, 3), True, None, (*block, Layer(np.ones((2, inputs), np.float32), bias)), head)
    writer = Writer()
    writer.pack("B3IBB", 3, *network.shape, 1, 3)
    for part in network.layers:
        write_layer(writer, part, version)
    writer.pack("BBI", 3, 1, 2)
    return network, pack(b"".join(writer.parts), deflate=False, version=version)


def test_residual_block():
    network, data = residual()
    assert same(decode(data), network) and unpack(encode_as(network, 2)) == unpack(data)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({}, {"rectify": True}, "a residual layer rectifies"),
        ({"residual": True, "rectify": False}, {}, "does not fit the input of the layer before"),
        ({"stride": (2, 1)}, {}, "does not fit the input of the layer before"),
        ({}, {"padding": (0, 1)}, "does not fit the input of the layer before"),
        ({}, {"pool": Pool((0, 1), (1, 1))}, "a kernel or a stride is 0"),
        ({}, {"pool": Pool((1, 1), (1, 0))}, "a kernel or a stride is 0"),
        ({}, {"pool": Pool((3, 3), (2, 2), (1, 2))}, "more than half"),
        ({}, {"pool": Pool((1, 4), (1, 1))}, r"a kernel of \(1, 4\) does not fit an input of \(3, 3\)"),
    ],
)
def test_residual_blocks_that_cannot_be(first, second, message):
    # Where the block has other sides, so has its pool.
    _, data = residual(first, second, inputs=4 if "stride" in first or "padding" in second else 8)
    with pytest.raises(ValueError, match=message) as error:
        decode(data)
    assert "\n" not in str(error.value) and 30 < len(str(error.value)) < 250


#: Two numbers, two classes of three and two, and an encoder of one; PART is the first byte behind the number of parts.
def parted(*, keys=("goal", "class", "cam"), version=3, limits=False):
    """A network whose observation is a dict."""
    free = np.full(1, np.inf, np.float32)
    encoder = Network((2,), False, None, (layer(1, 2),), Head("clip", (1,), -free, free))
    parts = (Part(keys[0], (2,)), Part(keys[1], (2,), (3, 2)), Part(keys[2], (2,), encoder=encoder))
    limit = np.array([10, 10] + [np.inf] * 6, np.float32) if limits else 10.0
    normalize = Normalize(np.zeros(8, np.float32), np.ones(8, np.float32), limit)
    network = Network((8,), False, normalize, (layer(2, 8),), Head("positive", (2,)), parts=parts)
    return network, bytearray(unpack(encode_as(network, version))), version


PART = 7
SECOND = PART + 5 + 1 + 5
THIRD = SECOND + 6 + 1 + 5 + 8
ENCODER = THIRD + 5


def change_parts(at, *values, version=3, **kwargs):
    _, payload, _ = parted(**kwargs)
    payload[at : at + len(values)] = bytes(values)
    return pack(bytes(payload), deflate=False, version=version)


def test_parts():
    for limits in (False, True):
        network, payload, _ = parted(limits=limits)
        assert same(decode(encode(network)), network)
        assert payload[:PART] == b"\1\x08\0\0\0" + bytes([2 + 8 + 16 * limits, 3])
    assert payload[PART:SECOND] == b"\4goal\0\1\2\0\0\0"
    assert payload[SECOND:THIRD] == b"\5class\1\1\2\0\0\0\3\0\0\0\2\0\0\0"
    assert payload[THIRD:ENCODER] == b"\3cam\2" and payload[ENCODER : ENCODER + 6] == b"\1\2\0\0\0\0"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: change_parts(0, version=1), "unknown flags"),
        (lambda: change_parts(0, version=2), "unknown flags"),
        (lambda: change_parts(5, 2 + 8 + 32), "unknown flags"),
        (lambda: change_parts(5, 1 + 2 + 8), "an image has parts"),
        (lambda: change_parts(5, 8 + 16), "limits without a normalization"),
        (lambda: change_parts(6, 0), "it has no part"),
        (lambda: change_parts(6, 2), "do not add up"),
        (lambda: change_parts(1, 9), "do not add up"),
        (lambda: change_parts(PART + 1, 0xFF), "a key is not text"),
        (lambda: change_parts(0, keys=("goal", "goal", "cam")), "wrong keys"),
        (lambda: change_parts(0, keys=("", "class", "cam")), "wrong keys"),
        (lambda: change_parts(SECOND + 6, 3), "a part is of an unknown kind"),
        (lambda: change_parts(SECOND + 12, 0), "wrong number of classes"),
        (lambda: change_parts(SECOND + 12, 255, 255, 255, 255), "wrong number of classes"),
        (lambda: change_parts(SECOND + 12, 0, 0, 0, 1), "too many numbers"),
        (lambda: change_parts(ENCODER + 5, 8), "an encoder has parts"),
        (lambda: change_parts(ENCODER + 6, 0), "it has no layer"),
    ],
)
def test_damaged_parts(data, message, monkeypatch):
    # What cannot be written has to be refused all the same.
    monkeypatch.setattr(records, "_check_parts", lambda network: None)
    damaged = data()
    monkeypatch.undo()
    with pytest.raises(ValueError, match=message) as error:
        decode(damaged)
    assert "\n" not in str(error.value) and 30 < len(str(error.value)) < 250


#: Where the grid of its layer stands in the payload of a network of one layer.
GRID = 7


def with_grid(*values, at=GRID):
    """The tiny network with the inputs 0, 0.5, ... 7.5, or the bytes of another grid."""
    network = replace(TINY, layers=(replace(TINY.layers[0], grid=Grid(0.5, 0, 15)),))
    data = bytearray(unpack(encode_as(network, 6)))
    data[at : at + len(values)] = bytes(values)
    return pack(bytes(data), deflate=False, version=6)


def test_grids():
    network = decode(with_grid())
    assert network.layers[0].grid == Grid(0.5, 0, 15)
    assert decode(with_grid(3, 0, 1)).layers[0].grid == Grid(0.5, -3, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (with_grid(2, at=GRID + 2), "a grid is of an unknown kind"),
        (with_grid(0, 0, 0, 0, at=GRID + 3), "a number is 0.0"),
        (with_grid(1, 0, 0, 0, at=GRID + 3), "the unit of a grid is too small"),
        (with_grid(0, 0, 0x80, 0x7F, at=GRID + 3), "a number is inf"),
        (with_grid(4 + 2, at=GRID + 7), "a layer of this kind does not round its inputs|damaged"),
        (pack(unpack(with_grid()), deflate=False, version=5), "unknown flags"),
    ],
)
def test_damaged_grids(data, message):
    with pytest.raises(ValueError, match=message):
        decode(data)


def test_an_encoder_does_not_act():
    network, _, _ = parted()
    last = network.parts[2]
    for head in (Head("positive", (1,)), replace(last.encoder.head, high=np.ones(1, np.float32))):
        part = replace(last, encoder=replace(last.encoder, head=head))
        with pytest.raises(ValueError, match="the part 'cam' of shape \\(2,\\) does not fit its encoder"):
            encode(replace(network, parts=(*network.parts[:2], part)))


#: The tiny network with a slope for each output and a layer norm, and its layer; and a signal with a pool of means.
NORM = Norm(2.0**-10, np.array([1, 2], np.float32), np.array([0, -1], np.float32))
NORMED = replace(
    TINY,
    layers=(replace(TINY.layers[0], activation=Activation("prelu", slopes=np.array([0.5, -1], np.float32)), norm=NORM),),
)
NORMED_LAYER = bytes.fromhex("""
    02 0e 02 00 01 00 00 00 3f 00 00 80 bf
    00 00 80 3a 00 00 80 3f 00 00 00 40 00 00 00 00 00 00 80 bf
    00 00 80 39 00 18
""")
SIGNAL = Network(
    (2, 4),
    False,
    None,
    (
        Layer(np.ones((1, 2, 1, 2), np.float32), np.ones(1, np.float32), pool=Pool((1, 2), (1, 1), mean=True)),
        Layer(np.ones((1, 2), np.float32), np.ones(1, np.float32)),
    ),
    Head("positive", (1,)),
    view=(2, 1, 4),
)
SIGNAL_START = bytes.fromhex("02 02 00 00 00 04 00 00 00 40 03 02 00 00 00 01 00 00 00 04 00 00 00 02")
SIGNAL_LAYER = bytes.fromhex("41 00 01 00 02 01 02 01 01 00 00 01 02 01 01 00 00")


def change_sixth(network, at, *values, version=6):
    payload = bytearray(unpack(encode(network)))
    payload[at : at + len(values)] = bytes(values)
    return pack(bytes(payload), deflate=False, version=version)


def test_the_sixth_version():
    payload = unpack(encode(NORMED))
    assert encode(NORMED)[4] == encode(SIGNAL)[4] == 6
    assert payload[:LAYER] == TINY_BYTES[16 : 16 + LAYER] and payload[LAYER:].startswith(NORMED_LAYER)
    # The rest is that of the tiny network, behind its scales.
    assert payload[LAYER + len(NORMED_LAYER) :] == unpack(encode_as(TINY, 5))[LAYER + 10 :]
    assert unpack(encode(SIGNAL)).startswith(SIGNAL_START + SIGNAL_LAYER)
    assert same(decode(encode(NORMED)), NORMED) and same(decode(encode(SIGNAL)), SIGNAL)


def test_older_readers_refuse_it(monkeypatch):
    monkeypatch.setattr(artifact, "VERSION", 5)
    for each in (NORMED, SIGNAL):
        with pytest.raises(ValueError, match="has format version 6, not 1 to 5: update sb3_sparse to read it"):
            decode(encode(each))


END = len(SIGNAL_START)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (change_sixth(NORMED, 0, version=5), "a layer is of a kind that version 5 does not have"),
        (change_sixth(NORMED, LAYER + 1, 15), "unknown kind"),
        (change_sixth(NORMED, LAYER + 4, 5), "a layer has unknown parts"),
        (change_sixth(NORMED, LAYER + 4, 3), "the mean of a pool without a pool"),
        (change_sixth(NORMED, LAYER, 2 + 128, 0), "an LSTM layer has a norm"),
        (change_sixth(NORMED, LAYER + 5, *struct.pack("<f", np.nan)), "a number is not finite"),
        (change_sixth(NORMED, LAYER + 13, *struct.pack("<f", 0)), "a number is 0.0"),
        (change_sixth(NORMED, LAYER + 13, *struct.pack("<f", -1)), "a number is -1.0"),
        (change_sixth(NORMED, LAYER + 17, *struct.pack("<f", np.inf)), "a number is not finite"),
        (change_sixth(SIGNAL, 0, version=5), "unknown flags"),
        (change_sixth(SIGNAL, 9, 65), r"it is read as \(2, 1, 4\)"),
        (change_sixth(SIGNAL, 11, 3), r"it is read as \(3, 1, 4\)"),
        (change_sixth(SIGNAL, 10, 2), r"it is read as \(2, 1\)"),
        (change_sixth(SIGNAL, END + 4, 1), "it ends too early"),
        (residual({}, {"norm": Norm(1.0, *np.ones((2, 2, 3, 3), np.float32))}, version=6)[1], "a residual layer has a norm"),
    ],
)
def test_damaged_files_of_the_sixth_version(data, message):
    with pytest.raises(ValueError, match=message) as error:
        decode(data)
    assert "\n" not in str(error.value) and 30 < len(str(error.value)) < 250


def test_a_view_before_a_linear_layer():
    with pytest.raises(ValueError, match=r"an observation of shape \(2,\) cannot be read in the shape \(1, 1, 2\)"):
        encode(replace(TINY, view=(1, 1, 2)))


def test_what_the_first_version_does_not_have():
    with pytest.raises(ValueError, match="of a kind that version 1 does not have"):
        decode(residual(version=1)[1])


@pytest.mark.parametrize(
    ("shape", "stride", "pool"),
    [
        ((1, 3000, 3000), (1, 1), Pool((255, 255), (1, 1))),
        ((1 << 22, 2, 2), (1, 1), Pool((2, 2), (1, 1), (1, 1))),
        ((1 << 20, 4, 4), (2, 2), Pool((2, 2), (255, 255), (1, 1))),
    ],
    ids=["windows", "padding", "stride"],
)
def test_pools_that_would_take_forever(shape, stride, pool):
    weight = np.zeros((shape[0], 1, 1, 1), np.int8)
    convolution = Layer(weight, np.zeros(shape[0], np.float32), stride=stride, pool=pool)
    given = (1, *shape[1:])
    linear = Layer(np.zeros((1, int(np.prod(convolution.output_shape(given)))), np.int8), np.zeros(1, np.float32))
    with pytest.raises(ValueError, match=r"a convolution from .* is too large"):
        check_size(Network(given, True, None, (convolution, linear), Head("positive", (1,))), 1 << 30)


def test_file_that_is_none(tmp_path):
    (tmp_path / "a.sb3s").write_bytes(b"hello")
    with pytest.raises(ValueError, match="this is not a compressed policy of sb3_sparse"):
        load(tmp_path / "a.sb3s")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "b.sb3s")


def layer(outputs, inputs, **kwargs):
    return Layer(np.zeros((outputs, inputs), np.float32), np.zeros(outputs, np.float32), **kwargs)


def network(*layers, shape=None, head=None, **kwargs):
    shape = shape or (layers[0].weight.shape[1],)
    head = head or Head("positive", (layers[-1].outputs,))
    return Network(shape, False, kwargs.pop("normalize", None), layers, head, **kwargs)


@pytest.mark.parametrize(
    "make",
    [
        lambda: network(layer(70_000, 1)),
        lambda: network(*[layer(1, 1)] * 256),
        lambda: network(layer(1, 1), shape=(1,) * 9),
        lambda: network(layer(1500, 3000)),
        lambda: network(layer(70_000, 1), head=Head("argmax", (), groups=(70_000,))),
        lambda: network(Layer(np.zeros((1, 1, 300, 1), np.float32), np.zeros(1, np.float32)), layer(1, 1), shape=(1, 300, 1)),
    ],
    ids=["units", "layers", "dimensions", "zeros", "actions", "kernel"],
)
def test_what_has_no_room(make):
    """It is said when writing, not when reading."""
    with pytest.raises(ValueError, match=r"room|too many"):
        encode(make())


@pytest.mark.parametrize(
    ("shape", "weight", "stride", "padding"),
    [
        ((64, 64, 64), (64, 64, 11, 11), (1, 1), (0, 0)),
        ((1, 4096, 4096), (1, 1, 1, 1), (1, 1), (1, 1)),
        ((1 << 20, 2, 2), (1, 1 << 20, 1, 1), (1, 1), (255, 255)),
        ((1 << 18, 2, 2), (1, 1 << 18, 1, 1), (255, 255), (0, 0)),
        ((64, 256, 256), (1100, 64, 1, 1), (1, 1), (0, 0)),
    ],
    ids=["windows", "border", "padding", "stride", "products"],
)
def test_convolutions_that_would_take_forever(shape, weight, stride, padding):
    convolution = Layer(np.zeros(weight, np.int8), np.zeros(weight[0], np.float32), stride=stride, padding=padding)
    linear = Layer(np.zeros((1, int(np.prod(convolution.output_shape(shape)))), np.int8), np.zeros(1, np.float32))
    with pytest.raises(ValueError, match=r"a convolution from .* is too large"):
        check_size(Network(shape, True, None, (convolution, linear), Head("positive", (1,))), 1 << 30)


def test_sizes_of_atari_fit():
    rng = np.random.default_rng(0)
    convolutions = [((32, 4, 8, 8), 4), ((64, 32, 4, 4), 2), ((64, 64, 3, 3), 1)]
    layers = [
        Layer((rng.random(shape) < 0.05).astype(np.int8), np.zeros(shape[0], np.float32), stride=(stride, stride))
        for shape, stride in convolutions
    ]
    layers += [
        Layer((rng.random(shape) < 0.05).astype(np.int8), np.zeros(shape[0], np.float32)) for shape in [(512, 3136), (6, 512)]
    ]
    layers = [
        replace(part, scale=np.ones(part.outputs, np.float32), bias=Fixed(np.zeros(part.outputs, np.int16), 1.0))
        for part in layers
    ]
    atari = Network((4, 84, 84), True, None, tuple(layers), Head("argmax", (), groups=(6,)))
    assert same(decode(encode(atari)), atari)


def peak(function, *args):
    """What a function raises or returns, and the most memory that it held."""
    tracemalloc.start()
    try:
        result = function(*args)
    except ValueError as error:
        result = error
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return result, most


SHAPE = struct.pack("<BIBB", 1, 1, 0, 255)
#: Wide layers without weights, which cost nothing once deflated.
WIDE = struct.pack("<BBH", 0, 0, 65535) + bytes(4 * 65535) + struct.pack("<HHH", 1, 0, 65535)
NARROW = struct.pack("<BBH", 0, 0, 1) + bytes(4) + struct.pack("<HHH", 1, 0, 1)
ROW = struct.pack("<BBH", 0, 0, 1) + bytes(4) + struct.pack("<HHH", 1, 65535, 1)
BOMBS = {
    "zeros": lambda: pack(bytes(64 << 20)),
    "zeros, stored": lambda: pack(bytes(1 << 20), deflate=False),
    "length": lambda: pack(b"", length=0xFFFFFFFF),
    "observation": lambda: pack(struct.pack("<B3I", 3, 0xFFFFFFFF, 1, 1) + bytes(20), deflate=False),
    "action": lambda: pack(SHAPE[:-1] + b"\1" + NARROW + struct.pack("<BBIBff", 0, 1, 1 << 24, 1, 0.0, 1.0), deflate=False),
    "normalization": lambda: pack(struct.pack("<BIBf", 1, 1 << 24, 2, 1.0) + bytes(20), deflate=False),
    "wide and narrow": lambda: pack(SHAPE + (WIDE + NARROW) * 32 + WIDE * 2, deflate=False),
    "square": lambda: pack(SHAPE + WIDE * 3, deflate=False),
    "convolution": lambda: pack(
        struct.pack("<B3IBB", 3, 65535, 1, 1, 0, 2) + struct.pack("<BBH6B", 1, 0, 65535, 255, 255, 1, 1, 255, 255),
        deflate=False,
    ),
    "entries": lambda: pack(SHAPE + ROW + b"\1" * (1 << 20), deflate=False),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name):
    data = BOMBS[name]()
    start = time.process_time()
    result, most = peak(decode, data)
    assert isinstance(result, ValueError) and time.process_time() - start < 1
    assert most < (64 << 20) + 2048 * len(data)


def test_what_deflates_too_well_is_stored():
    data = encode(network(layer(2000, 2)))
    assert data[5] == 0 and HEADER.unpack_from(data)[4] == len(data) - 16
    assert decode(data).layers[0].outputs == 2000


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_tampered_files(seed):
    """Each is refused with one sentence, or is a network that works; neither takes long or much memory."""
    works, rng = 0, np.random.default_rng(seed)
    tracemalloc.start()
    try:
        for data in tampered(seed, 1250):
            tracemalloc.reset_peak()
            start = time.process_time()
            try:
                decoded = decode(data)
            except ValueError as error:
                assert re.fullmatch(r"[^\n]{20,250}", str(error)), error
            else:
                works += 1
                expect_to_work(decoded, rng, thoroughly=works % 8 == 0)
            assert time.process_time() - start < 1
            # Two observations of as many window elements as the format allows.
            assert tracemalloc.get_traced_memory()[1] < (128 << 20) + 2048 * len(data)
    finally:
        tracemalloc.stop()
    assert works > 50


def expect_to_work(decoded, rng, *, thoroughly):
    policy = Policy(decoded, "numpy")
    x = draw_arrays(rng, decoded, 2) if decoded.parts else draw_observations(rng, decoded, 2)
    first = {key: array[0] for key, array in x.items()} if decoded.parts else x[0]
    if [part.key for part in decoded.parts] == [""]:
        first, x = first[""], x[""]
    with np.errstate(all="ignore"):
        action, actions = policy.predict(first)[0], policy.predict(x)[0]
        if thoroughly:
            assert same(decode(encode(decoded)), decoded)
            Plan(replace(decoded, stack=None))
    assert action.shape == decoded.head.shape and actions.shape == (2, *decoded.head.shape)
    assert action.dtype == actions.dtype == (np.int64 if decoded.head.kind == "argmax" else np.float32)


def test_normalization_keeps_its_shape():
    normalize = Normalize(np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 3), np.float32), float("inf"))
    assert same(decode(encode(network(layer(1, 6), shape=(2, 3), normalize=normalize))).normalize, normalize)
