"""How the compact file stores weights: dense, with a mask or with deltas, in codes of 1 to 8 bits, whichever is smallest."""

import re
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_sparse.runtime import Policy
from sb3_sparse.runtime.format.artifact import decode, encode, encode_as
from sb3_sparse.runtime.format.bytestream import Reader, Writer
from sb3_sparse.runtime.format.codes import code_width, pack_codes, unpack_codes
from sb3_sparse.runtime.format.deflate import deflate, deflated_size
from sb3_sparse.runtime.format.delta import delta_decode, delta_encode, to_runs
from sb3_sparse.runtime.format.weight_bytes import read_weights, write_weights
from sb3_sparse.runtime.network.records import Fixed, Head, Layer, Minifloats, Network
from tests.networks import EXACT, pack, unpack

SEEDS = st.integers(0, 2**32)
OLD, NEW = 4, 5
DENSE, MASK, DELTAS = range(3)
#: The largest distance of a weight by version.
LARGEST = {OLD: 255, NEW: 254}


def draw_grid(rng, rows, columns, bits, density):
    """Weights on the grid of a number of bits; both ends of it exist."""
    top = 2 ** (bits - 1) - 1
    values = rng.integers(1, top + 1, (rows, columns)) * rng.choice([-1, 1], (rows, columns))
    matrix = values * (rng.random((rows, columns)) < density)
    matrix.flat[0], matrix.flat[-1] = -top, top
    return matrix.astype(np.int8)


def written(matrix, version=NEW):
    writer = Writer()
    write_weights(writer, matrix, version)
    return b"".join(writer.parts)


def read(data, rows, columns, version=NEW, *, integers=True):
    reader = Reader(bytes(data))
    matrix = read_weights(reader, version, rows, columns, integers=integers)
    reader.end()
    return matrix


def of(*layers):
    head = Head("positive", (layers[-1].outputs,))
    return Network((layers[0].weight.shape[1],), False, None, layers, head)


def quantized(weight):
    codes = Minifloats(np.full(len(weight), 16, np.uint8), 2.0**-8)
    return Layer(weight, Fixed(np.zeros(len(weight), np.int16), 1.0), scale=codes)


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.integers(1, 8), st.booleans())
def test_codes(seed, width, zeros):
    """All numbers that fit, in as many bits, and no more bits than they need."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 50))
    low, high = -(2 ** (width - 1)), min(127, 2 ** (width - 1) - zeros)
    values = rng.integers(low, high + 1, count).astype(np.int8)
    values = values if zeros else values[values != 0]
    data = pack_codes(values, width, zeros=zeros)
    assert len(data) == -(-len(values) * width // 8)
    assert np.array_equal(unpack_codes(data, len(values), width, zeros=zeros), values)
    assert 1 <= code_width(values, zeros=zeros) <= width
    assert code_width(np.append(values, np.int8(low)), zeros=zeros) == width
    assert code_width(np.append(values, np.int8(high)), zeros=zeros) == (1 if width == zeros == 1 else width)


def test_a_sign_is_one_bit():
    assert pack_codes(np.array([1, -1, -1, 1, 1], np.int8), 1, zeros=False).tolist() == [0b11001]
    assert pack_codes(np.array([7, -3, 0, 4], np.int8), 4, zeros=True).tolist() == [0x5F, 0xC8]
    assert pack_codes(np.array([-2, -1, 1, 2], np.int8), 2, zeros=False).tolist() == [0b11100100]


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.integers(2, 8), st.integers(1, 12), st.integers(1, 600), st.sampled_from([0.005, 0.05, 0.3, 0.7, 1.0]))
def test_round_trip(seed, bits, rows, columns, density):
    """Every width, dense and sparse, in every version."""
    matrix = draw_grid(np.random.default_rng(seed), rows, columns, bits, density)
    for version in (OLD, NEW):
        assert np.array_equal(read(written(matrix, version), rows, columns, version), matrix)
    floats = matrix.astype(np.float32) / 8
    assert np.array_equal(read(written(floats), rows, columns, integers=False), floats)


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.integers(2, 8), st.sampled_from([0.05, 0.3, 0.7, 1.0]))
def test_every_layout_can_be_read(seed, bits, density):
    """Also those that were not the smallest, in more bits than they need."""
    rng = np.random.default_rng(seed)
    rows, columns = int(rng.integers(1, 9)), int(rng.integers(1, 300))
    matrix = draw_grid(rng, rows, columns, bits, density)
    values, exists = matrix[matrix != 0], matrix != 0
    counts, deltas, _ = delta_encode(exists, 254)
    runs = to_runs(counts)
    indices = {
        DENSE: b"",
        MASK: np.packbits(exists, bitorder="little").tobytes(),
        DELTAS: struct.pack("<H", len(runs)) + runs.astype("<u2").tobytes() + deltas.tobytes(),
    }
    for kind, index in indices.items():
        numbers, zeros = (matrix.reshape(-1), True) if kind == DENSE else (values, False)
        for width in range(code_width(numbers, zeros=zeros), 9):
            data = bytes([16 * kind + width]) + index + pack_codes(numbers, width, zeros=zeros).tobytes()
            assert np.array_equal(read(data, rows, columns), matrix)
            with pytest.raises(ValueError, match="unknown layout"):
                read(data, rows, columns, integers=False)
        numbers = numbers.astype("<f4")
        assert np.array_equal(read(bytes([16 * kind]) + index + numbers.tobytes(), rows, columns, integers=False), matrix)


@pytest.mark.parametrize(("bits", "codes"), [(8, 64), (6, 48), (4, 32), (3, 24)])
def test_size_of_a_dense_layer(bits, codes):
    """8 x 8 weights of 4 bits are 32 bytes and one for the layout; the layer adds 12 bytes, and 3 per row."""
    rng = np.random.default_rng(0)
    matrix = draw_grid(rng, 8, 8, bits, 1.0)
    assert len(written(matrix)) == 1 + codes
    layer = 4 + 8 + 3 * 8
    network = 5 + 1 + 1
    head = 1 + 5
    assert len(unpack(encode_as(of(quantized(matrix)), NEW))) == network + layer + 1 + codes + head
    # An incompressible payload has a header of 16 bytes in front, and a block of deflate never adds more than 5.
    assert len(encode(of(quantized(matrix)))) <= 16 + network + layer + 1 + codes + head


def test_size_of_signs():
    """Weights of 2 bits are a bit for each and one more for each that exists, unless two bits for each deflate better."""
    for density in (0.3, 0.5, 2 / 3, 0.9):
        matrix = draw_grid(np.random.default_rng(0), 64, 64, 2, density)
        assert deflated_size(written(matrix)) <= 1 + 64 * 64 // 8 + -(-np.count_nonzero(matrix) // 8) + 5
    assert written(draw_grid(np.random.default_rng(0), 64, 64, 2, 0.5))[0] == 16 * MASK + 1


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(2, 8), st.sampled_from([0.02, 0.1, 0.5, 1.0]))
def test_no_file_is_larger_than_the_old_version(seed, bits, density):
    rng = np.random.default_rng(seed)
    shapes = [(int(rng.integers(1, 64)), int(rng.integers(1, 64))) for _ in range(2)]
    layers = [quantized(draw_grid(rng, rows, columns, bits, density)) for rows, columns in shapes]
    layers[1] = quantized(draw_grid(rng, shapes[1][0], layers[0].outputs, bits, density))
    network = of(*layers)
    sizes = {version: len(encode_as(network, version)) for version in (1, NEW)}
    assert len(encode(network)) == min(sizes.values())
    # The dense layout of the narrowest codes is a bound for each layer that has them all.
    dense = sum(-(-layer.weight.size * code_width(layer.weight.reshape(-1), zeros=True) // 8) for layer in layers)
    if density == 1.0:
        assert sizes[NEW] <= dense + sum(13 + 3 * layer.outputs for layer in layers) + 40


def test_fewer_bits_are_fewer_bytes():
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((64, 17)), rng.standard_normal((64, 64)), rng.standard_normal((6, 64))]
    for density, share in ((1.0, {6: 0.79, 4: 0.56, 3: 0.44, 2: 0.29}), (0.05, {6: 0.93, 4: 0.86, 3: 0.84, 2: 0.71})):
        sizes = {}
        for bits in (8, 6, 4, 3, 2):
            top = 2 ** (bits - 1) - 1
            masks = [rng.random(weight.shape) < density for weight in weights]
            grids = [
                np.clip(np.rint(weight / 2.5 * top), -top, top) * mask for weight, mask in zip(weights, masks, strict=True)
            ]
            sizes[bits] = len(encode(of(*(quantized(grid.astype(np.int8)) for grid in grids))))
        assert list(sizes.values()) == sorted(sizes.values(), reverse=True)
        for bits, most in share.items():
            assert sizes[bits] <= most * sizes[8], (density, bits, sizes)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), st.integers(1, 2000), st.floats(0, 0.2), st.sampled_from([254, 255]), SEEDS)
def test_gaps(rows, columns, density, largest, seed):
    exists = np.random.default_rng(seed).random((rows, columns)) < density
    counts, gaps, weights = delta_encode(exists, largest)
    assert len(gaps) == counts.sum() <= np.count_nonzero(exists) + rows * (columns // 255)
    flags = np.isin(np.arange(len(gaps)), weights)
    assert largest == 255 or np.array_equal(flags, gaps < 255)
    found = np.zeros_like(exists)
    found[delta_decode(counts, gaps, flags, columns, largest)] = True
    assert np.array_equal(found, exists)
    runs = to_runs(counts)
    assert np.array_equal(np.repeat(runs[:, 0], runs[:, 1]), counts) and np.diff(runs[:, 0]).all()


@pytest.mark.parametrize(
    ("column", "old", "new"),
    [
        (0, [0], [0]),
        (254, [254], [254]),
        (255, [255], [255, 0]),
        (256, [255, 1], [255, 1]),
        (510, [255, 255], [255, 255, 0]),
        (511, [255, 255, 1], [255, 255, 1]),
        (1000, [255] * 3 + [235], [255] * 3 + [235]),
    ],
)
def test_escapes(column, old, new):
    weight = np.zeros((1, 1001), np.int8)
    weight[0, column] = 5
    assert delta_encode(weight != 0, 255)[1].tolist() == old and delta_encode(weight != 0, 254)[1].tolist() == new
    weight[0, 3] = 7
    for version in (OLD, NEW):
        assert np.array_equal(read(written(weight, version), 1, 1001, version), weight)


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_backends_agree(bits, density, backend):
    """They run what the file holds, to float rounding as the network that was written does in float64."""
    rng = np.random.default_rng(bits)
    layers = [quantized(draw_grid(rng, rows, columns, bits, density)) for rows, columns in ((32, 17), (24, 32), (6, 24))]
    free = np.full(6, np.inf, np.float32)
    data = encode(replace(of(*layers), head=Head("clip", (6,), -free, free)))
    assert data[4] == NEW
    x = rng.standard_normal((64, 17)).astype(np.float32)
    expected = x.astype(np.float64)
    for layer in layers:
        expected = expected @ (layer.weight * layer.scales[:, None].astype(np.float64)).T + layer.biases
    actions, _ = Policy(decode(data), backend).predict(x)
    np.testing.assert_allclose(actions, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_long_row():
    """Without deltas a row is not limited to the entries that two bytes count."""
    network = of(Layer(np.ones((1, 70_000), np.float32), np.zeros(1, np.float32)))
    data = encode(network)
    assert data[4] == NEW and np.array_equal(decode(data).layers[0].weight, network.layers[0].weight)


EIGHT = bytes([16 * DENSE + 4]) + bytes(range(4))
MASKED = bytes([16 * MASK + 8, 0b11110000]) + bytes([0, 1, 254, 200])
GAPS = bytes([16 * DELTAS + 2]) + struct.pack("<5H", 2, 2, 1, 1, 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends too early"),
        (EIGHT[:-1], "ends too early"),
        (EIGHT + b"\0", "bytes after its end"),
        (bytes([16 * DENSE + 9]) + bytes(9), "unknown layout"),
        (bytes([16 * 3 + 4]) + bytes(9), "unknown layout"),
        (bytes([16 * 15 + 15]) + bytes(9), "unknown layout"),
        (bytes([16 * DENSE]) + bytes(32), "unknown layout"),
        (MASKED[:1], "ends too early"),
        (MASKED[:-1], "ends too early"),
        (MASKED[:-1] + b"\xff", "a weight is too large"),
        (GAPS + bytes([0, 1, 0, 0b11000000]), "there are bits behind its last weight"),
        (GAPS + bytes([0, 0, 0, 0]), "a weight stands twice"),
        (GAPS + bytes([0, 4, 0, 0]), "a weight lies outside its layer"),
        (GAPS + bytes([255, 0, 0, 0]), "a weight lies outside its layer"),
        (GAPS[:1] + struct.pack("<5H", 2, 5, 1, 1, 1), "a row has more weights than columns"),
        (GAPS[:1] + struct.pack("<5H", 2, 2, 1, 1, 2), "its rows do not add up"),
        (GAPS[:1] + struct.pack("<H", 60000), "ends too early"),
    ],
)
def test_damaged_weights(data, message):
    """Of a layer with 2 rows and 4 columns."""
    with pytest.raises(ValueError, match=message) as error:
        read(data, 2, 4)
    assert re.fullmatch(r"[^\n]{30,250}", str(error.value))


def test_bits_behind_the_end():
    for data in (bytes([16 * MASK + 1, 1, 0b10]), bytes([16 * DENSE + 2, 0b100]), bytes([16 * MASK + 1, 0b11, 1])):
        with pytest.raises(ValueError, match="there are bits behind its"):
            read(data, 1, 1)


def test_floats():
    for data in (struct.pack("<Bf", 0, np.nan), struct.pack("<Bf", 0, np.inf)):
        with pytest.raises(ValueError, match="a number is not finite"):
            read(data, 1, 1, integers=False)
    with pytest.raises(ValueError, match="a weight is zero"):
        read(struct.pack("<BBf", 16 * MASK, 1, 0), 1, 1, integers=False)
    assert not np.signbit(read(struct.pack("<Bf", 0, -0.0), 1, 1, integers=False)).any()


def test_older_versions_do_not_have_layouts():
    """What version 5 has in its bytes means something else before: it is refused."""
    data = bytearray(encode_as(of(quantized(draw_grid(np.random.default_rng(0), 8, 8, 4, 1.0))), NEW))
    with pytest.raises(ValueError, match="this compressed policy is damaged"):
        decode(pack(unpack(bytes(data)), version=OLD))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=400), max_size=12), SEEDS)
def test_blocks(parts, seed):
    """Wherever the blocks end, inflating gives the parts."""
    rng = np.random.default_rng(seed)
    parts = [
        *parts,
        rng.integers(0, 3, 5000).astype(np.uint8).tobytes(),
        rng.integers(100, 200, 5000).astype(np.uint8).tobytes(),
    ]
    data = deflate(parts)
    assert zlib.decompress(data, -15) == b"".join(parts)
    one = zlib.compressobj(9, zlib.DEFLATED, -15)
    assert len(data) < len(one.compress(b"".join(parts)) + one.flush())


def test_large_weights_are_written_quickly():
    """A wide layer that is nearly empty is not tried as a dense one."""
    matrix = np.zeros((2000, 4000), np.int8)
    matrix[::50, ::50] = 1
    assert len(written(matrix)) < 4 * np.count_nonzero(matrix) + 4000
    assert np.array_equal(read(written(matrix), 2000, 4000), matrix)
