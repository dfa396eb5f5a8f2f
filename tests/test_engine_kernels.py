"""The kernels of the training engine against float64 references, for each instruction set that this machine has."""

import configparser
import ctypes
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_sparse.callbacks.rewiring.topk import keep_largest
from sb3_sparse.engine.kernels import library, structs
from sb3_sparse.engine.kernels.structs import LANES, PANEL, ElementType, Flag, Instruction, Kind, Layer, Op, Operand, Source
from sb3_sparse.nn import WeightGrid, fake_quantize
from sb3_sparse.nn.fake_quantize import BITS
from sb3_sparse.runtime.backends.build import BuildError

C = Path(library.__file__).parent / "c"

try:
    SETS = library.available()
except BuildError as error:
    pytest.skip(f"no compiled kernels: {error}", allow_module_level=True)


@pytest.fixture(params=SETS, scope="module")
def isa(request):
    return request.param


# Memory


def aligned(shape, dtype=np.float32, fill=0):
    """An array that begins at a multiple of 64 bytes, with as little behind its end as can be had: a sanitizer looks there."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    tries = []
    for pad in (0, 16, 32, 48, 64):
        tries.append(np.zeros(size + pad, np.uint8))
        start = -tries[-1].ctypes.data % 64
        if start <= pad:
            break
    array = tries[-1][start:][:size].view(dtype).reshape(shape)
    array[...] = fill
    return array


def flat(values, multiple=16):
    """Floats in a row, padded with zeros."""
    values = np.ravel(values)
    array = aligned(-(-max(len(values), 1) // multiple) * multiple)
    array[: len(values)] = values
    return array


class Panels:
    """A batch [samples, features] in panels; what no sample or feature holds is junk."""

    def __init__(self, samples, features, pad=8):
        self.samples, self.features = samples, features
        self.count = -(-samples // LANES)
        self.array = aligned((self.count, -(-features // pad) * pad, LANES), fill=np.nan)

    @classmethod
    def of(cls, values, fill=0.0):
        values = np.asarray(values, np.float32)
        panels = cls(*values.shape)
        padded = np.full((panels.count * LANES, values.shape[1]), fill, np.float32)
        padded[: len(values)] = values
        panels.array[:, : panels.features] = padded.reshape(panels.count, LANES, -1).swapaxes(1, 2)
        return panels

    def values(self):
        return self.array[:, : self.features].swapaxes(1, 2).reshape(-1, self.features)[: self.samples]

    def operand(self, row=None, feature=LANES):
        base = self.array.ctypes.data + (row or 0) * LANES * 4
        return Operand(base, self.array.shape[1] * LANES, feature, -1)


def instruction(op, *, flags=0, n=0, k=0, layer=None, data=None, x=(), **operands):
    made = Instruction(op, flags, n, k)
    for name, operand in operands.items():
        setattr(made, name, operand.operand() if isinstance(operand, Panels) else operand)
    made.layer = layer and ctypes.addressof(layer)
    made.data = data.ctypes.data if isinstance(data, np.ndarray) else data and ctypes.addressof(data)
    made.x[: len(x)] = x
    made.keep = operands, data
    return made


def run(isa, *instructions, panels=1, team=None):
    program = (Instruction * len(instructions))(*instructions)
    kernels = library.load(isa)
    if team is None:
        return kernels.engine_run(program, len(instructions), panels)
    return kernels.engine_run_by_two(program, len(instructions), panels, team)


def vector(array):
    operand = Operand(array.ctypes.data, 0, 0, -1)
    operand.keep = array
    return operand


def close(actual, expected, scale, bound=2e-6):
    """Within a bound relative to the sum of magnitudes, which rounding is relative to."""
    error = np.abs(actual - expected)
    assert (error <= bound * scale + 1e-30).all(), f"{np.nanmax(error / (scale + 1e-30)):.2e}"


# Layers


def bfloat16(values):
    """Rounded to the nearest."""
    return th.tensor(values).bfloat16().float().numpy()


class Linear:
    """A layer in the kernels' storage, from a matrix and a mask of the weights that exist (None: dense)."""

    def __init__(self, weight, bias, mask=None, first=0, half=False):
        self.weight, self.bias, self.first = np.asarray(weight, np.float32), np.asarray(bias, np.float32), first
        self.mask, self.half = mask, half
        self.outputs, self.inputs = self.weight.shape
        self.arrays = {}
        getattr(self, "_dense" if mask is None else "_sparse")()
        self.arrays["bias"] = flat(self.bias, 8 if mask is None else 16)
        # Room for that of a second thread, with junk in it.
        self.second = len(self.arrays["values"]) + len(self.arrays["bias"])
        both = aligned(2 * self.second)
        both[self.second :] = np.nan
        self.arrays["gradient"], self.arrays["bias_gradient"] = both, both[len(self.arrays["values"]) :]
        if half:
            self.arrays["pairs"] = aligned(-(-self.outputs // 8) * -(-self.inputs // 2) * 8, np.uint32, fill=2**32 - 1)
        kind = Kind.HALF if half else Kind.DENSE if mask is None else Kind.SPARSE
        self.struct = Layer(kind, self.outputs, self.inputs, first)
        self.struct.second = self.second
        for name, array in self.arrays.items():
            setattr(self.struct, name, array.ctypes.data)

    def _dense(self):
        packed = np.zeros((-(-self.outputs // 8) * 8, self.inputs), np.float32)
        packed[: self.outputs] = self.weight
        self.arrays["values"] = flat(packed.reshape(-1, 8, self.inputs).swapaxes(1, 2))
        self.arrays["transposed"] = aligned(-(-(self.inputs - self.first) // 8) * 8 * self.outputs + 16, fill=np.nan)

    def _sparse(self):
        index = np.full(self.mask.shape, -1)
        names = "row", "start", "offset"
        self.order = self._view(self.mask, names)
        index[self.order] = np.arange(len(self.order[0]))
        names = "t_row", "t_start", "t_offset"
        order = self._view(self.mask.T[self.first :], names)
        self.arrays["t_index"] = self._ints(index.T[self.first :][order])
        self.arrays["values"] = flat(self.weight[self.order])
        self.arrays["transposed"] = aligned(len(order[0]) + 16, fill=np.nan)

    def _view(self, mask, names):
        rows = np.argsort(mask.sum(1), kind="stable")
        columns = [np.flatnonzero(mask[row]) for row in rows]
        start = np.cumsum([0, *map(len, columns)])
        column = np.concatenate([*columns, []]).astype(int)
        for name, values in zip(names, (rows, start, column * LANES * 4), strict=True):
            self.arrays[name] = self._ints(values)
        return np.repeat(rows, [len(column) for column in columns]), column

    @staticmethod
    def _ints(values):
        return np.append(np.asarray(values, np.int32), np.int32(0))

    def effective(self):
        return np.float64(self.weight if self.mask is None else self.weight * self.mask)

    def gradient(self):
        if self.mask is not None:
            dense = np.zeros(self.weight.shape)
            dense[self.order] = self.arrays["gradient"][: len(self.order[0])]
            return dense
        packed = self.arrays["gradient"][: -(-self.outputs // 8) * 8 * self.inputs].reshape(-1, self.inputs, 8)
        rows = packed.swapaxes(1, 2).reshape(-1, self.inputs)
        assert not rows[self.outputs :].any()
        return rows[: self.outputs]


@st.composite
def layers(draw):
    """A layer, the number of its samples, and a generator of what goes through it."""
    outputs, inputs = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    samples = draw(st.one_of(st.integers(1, 130), st.sampled_from([256, 1000, 1024])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask = None
    if draw(st.booleans()):
        mask = rng.random((outputs, inputs)) < draw(st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.9]))
        mask[rng.random(outputs) < 0.1] = True
        mask[rng.random(outputs) < 0.1] = False
        mask[:, rng.random(inputs) < 0.1] = False
    first = draw(st.sampled_from([0, inputs // 2, inputs - 1]))
    half = mask is None and draw(st.booleans())
    return Linear(rng.normal(size=(outputs, inputs)), rng.normal(size=outputs), mask, first, half), samples, rng


def check_layer(isa, layer, samples, rng, team=None):
    weight, bias, first = layer.effective(), np.float64(layer.bias), layer.first
    x = rng.normal(size=(samples, layer.inputs)).astype(np.float32)
    dy = rng.normal(size=(samples, layer.outputs)).astype(np.float32)
    below = np.maximum(x[:, first:], 0)
    inputs, gradients = Panels.of(x, fill=1.0), Panels.of(dy)
    y, relu, one = (Panels(samples, layer.outputs) for _ in range(3))
    # Each panel with one sample.
    same = Panels.of(np.repeat(x[::LANES], LANES, axis=0)[:samples], fill=1.0)
    same.array[...] = same.array[:, :, :1]
    dx, masked = Panels(*below.shape), Panels(*below.shape)
    scratch = aligned(2 * structs.BLOCK * LANES * LANES, fill=np.nan)
    back = {"layer": layer.struct, "a": gradients}
    assert not run(
        isa,
        instruction(Op.REFRESH, layer=layer.struct),
        instruction(Op.LINEAR, layer=layer.struct, dst=y, a=inputs),
        instruction(Op.LINEAR, layer=layer.struct, dst=relu, a=inputs, flags=Flag.RELU_OUTPUT),
        instruction(Op.LINEAR, layer=layer.struct, dst=one, a=same, flags=Flag.RELU_OUTPUT | Flag.SAME_LANES),
        instruction(Op.LINEAR_INPUT_GRADIENT, dst=dx, **back),
        instruction(Op.LINEAR_INPUT_GRADIENT, dst=masked, c=Panels.of(below), flags=Flag.MASK_BY_INPUT, **back),
        instruction(Op.LINEAR_WEIGHT_GRADIENT, b=inputs, data=scratch, **back),
        panels=inputs.count,
        team=team,
    )
    # What lies behind the last feature belongs to somebody else.
    assert all(np.isnan(panels.array[:, panels.features :]).all() for panels in (y, relu, one, dx, masked))
    for panel in range(inputs.count):
        sample = x[LANES * panel]
        expected, scale = weight @ sample + bias, np.abs(weight) @ np.abs(sample) + np.abs(bias)
        close(one.array[panel, : layer.outputs].T, np.maximum(expected, 0), scale)
    bias_gradients = [np.float64(dy).sum(0), np.abs(np.float64(dy)).sum(0)]
    if layer.half:
        weight, x, dy = np.float64(bfloat16(layer.weight)), bfloat16(x), bfloat16(dy)
    expected, scale = x @ weight.T + bias, np.abs(x) @ np.abs(weight.T) + np.abs(bias)
    close(y.values(), expected, scale)
    close(relu.values(), np.maximum(expected, 0), scale)
    expected, scale = dy @ weight[:, first:], np.abs(dy) @ np.abs(weight[:, first:])
    close(dx.values(), expected, scale)
    close(masked.values(), np.where(below > 0, expected, 0), scale)
    dy, x = np.float64(dy), np.float64(x)
    exists = 1.0 if layer.mask is None else layer.mask
    for times in (1, 2):
        close(layer.gradient(), times * exists * (dy.T @ x), exists * (np.abs(dy).T @ np.abs(x)) * times)
        bias_gradient = layer.arrays["bias_gradient"]
        close(bias_gradient[: layer.outputs], *(times * sums for sums in bias_gradients))
        assert not bias_gradient[layer.outputs : len(layer.arrays["bias"])].any()
        again = instruction(Op.LINEAR_WEIGHT_GRADIENT, b=inputs, data=scratch, flags=Flag.ADD, **back)
        assert not run(isa, again, panels=inputs.count, team=team)


@settings(max_examples=100, deadline=None)
@given(drawn=layers())
def test_layers(isa, drawn):
    check_layer(isa, *drawn)


@pytest.fixture(scope="module")
def team(isa):
    kernels = library.load(isa)
    address = kernels.engine_team()
    yield address
    kernels.engine_disband(address)


@settings(max_examples=50, deadline=None)
@given(drawn=layers())
def test_layers_on_two_threads(isa, team, drawn):
    check_layer(isa, *drawn, team)


def test_a_layer_twice_in_a_run(isa, team):
    """Its gradient is the sum of both, whoever computes it, and what was there before if it is to be added to that."""
    rng = np.random.default_rng(3)
    found = []
    layers = [Linear(np.ones((8, 11)), np.zeros(8), None if dense else np.ones((8, 11), bool)) for dense in (True, False)]
    x, dy = (Panels.of(rng.normal(size=(700, n))) for n in (11, 8))
    for layer in layers:
        for each in (None, team):
            layer.arrays["gradient"][: layer.second] = 1.0
            scratch = aligned(2 * structs.BLOCK * LANES * LANES)
            add = instruction(Op.LINEAR_WEIGHT_GRADIENT, layer=layer.struct, a=dy, b=x, data=scratch, flags=Flag.ADD)
            assert not run(isa, add, add, panels=x.count, team=each)
            found.append(layer.gradient().copy())
    for gradient in found:
        np.testing.assert_allclose(gradient, 1.0 + 2.0 * np.float64(dy.values()).T @ x.values(), atol=1e-3)


def test_what_two_threads_would_both_write_is_refused(isa, team):
    layer = Linear(np.eye(8), np.zeros(8))
    a, data = Panels.of(np.zeros((32, 8))), aligned(2 * structs.BLOCK * LANES * LANES)
    gradient = instruction(Op.LINEAR_WEIGHT_GRADIENT, layer=layer.struct, a=a, b=a, data=data)
    local = a.operand()
    local.mask = structs.BLOCK - 1
    assert run(isa, gradient, team=team) == 0
    assert run(isa, instruction(Op.EXP, n=8, dst=local, a=a), team=team) == 1
    layer.struct.second = 0
    assert run(isa, gradient, team=team) == 1
    assert run(isa, gradient) == 0


@pytest.mark.parametrize("density", [None, "half", 0.01, 0.1, 1.0])
def test_wide_layers(isa, density):
    rng = np.random.default_rng(0)
    half = density == "half"
    mask = None if half or density is None else rng.random((256, 256)) < density
    check_layer(isa, Linear(rng.normal(size=(256, 256)), rng.normal(size=256), mask, half=half), 256, rng)


def test_rounding_to_bfloat16(isa):
    """Ties to even, infinity, and NaN with all bits set."""
    values = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x7F800000, 0x7F7FFFFF, 0x7FFFFFFF], np.uint32)
    values = np.append(values, values | np.uint32(2**31)).view(np.float32)
    layer = Linear(values[:, None], np.zeros(len(values)), half=True)
    y = Panels(1, len(values))
    given = {"layer": layer.struct, "dst": y, "a": Panels.of([[1.0]], fill=1.0)}
    assert not run(isa, instruction(Op.REFRESH, layer=layer.struct), instruction(Op.LINEAR, **given))
    np.testing.assert_array_equal(y.values()[0], bfloat16(values))


# Functions of lanes

UNARY = {
    Op.COPY: lambda a: a,
    Op.EXP: np.exp,
    Op.LOG: np.log,
    Op.TANH: np.tanh,
    Op.RELU: lambda a: np.maximum(a, 0),
    Op.SQUARE: lambda a: a * a,
    Op.ABS: np.abs,
    Op.SIGN: np.sign,
    Op.SIGMOID: lambda a: 1 / (1 + np.exp(-a)),
}
BINARY = {
    Op.ADD: np.add,
    Op.SUB: np.subtract,
    Op.MUL: np.multiply,
    Op.DIV: np.divide,
    Op.MIN: np.minimum,
    Op.MAX: np.maximum,
    Op.GREATER_EQUAL: np.greater_equal,
    Op.LESS: np.less,
}
#: Where they are used.
RANGES = {Op.LOG: (1e-30, 50.0), Op.EXP: (-87.0, 88.7), Op.SIGMOID: (-87.0, 88.7)}


@pytest.mark.parametrize("op", UNARY)
@pytest.mark.parametrize("broadcast", [False, True])
def test_unary(isa, op, broadcast):
    low, high = RANGES.get(op, (-50.0, 50.0))
    rng = np.random.default_rng(0)
    a = rng.uniform(low, high, (70, 13)) * rng.choice([1.0, 1e-2, 1e-5], (70, 13))
    a = np.where(a < low, low, a).astype(np.float32)
    panels, dst = Panels.of(a, fill=1.0), Panels(70, 13)
    given = panels.operand(row=2, feature=0) if broadcast else panels
    assert not run(isa, instruction(op, n=13, dst=dst, a=given), panels=3)
    expected = UNARY[op](np.float64(a[:, [2] * 13] if broadcast else a))
    close(dst.values(), expected, np.abs(expected))
    if not broadcast:
        assert not run(isa, instruction(op, n=13, dst=panels, a=panels), panels=3)
        np.testing.assert_array_equal(panels.values(), dst.values())


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("broadcast", ["", "a", "b", "ab"])
def test_binary(isa, op, broadcast):
    rng = np.random.default_rng(1)
    values = {name: rng.choice(rng.normal(size=40).astype(np.float32), (70, 13)) for name in "ab"}
    panels = {name: Panels.of(array, fill=1.0) for name, array in values.items()}
    given = {name: panels[name].operand(row=5, feature=0) if name in broadcast else panels[name] for name in "ab"}
    used = [np.float64(array[:, [5] * 13] if name in broadcast else array) for name, array in values.items()]
    dst = Panels(70, 13)
    assert not run(isa, instruction(op, n=13, dst=dst, **given), panels=3)
    close(dst.values(), BINARY[op](*used).astype(float), np.abs(used[0]) + np.abs(used[1]) + np.abs(BINARY[op](*used)))
    assert "b" in broadcast or not run(isa, instruction(op, n=13, **given | {"dst": panels["b"]}), panels=3)
    assert "b" in broadcast or np.array_equal(panels["b"].values(), dst.values())


TERNARY = {
    Op.SELECT: lambda a, b, c: np.where(a != 0, b, c),
    Op.AFFINE: lambda a, b, c: a * -1.5 + 0.25,
    Op.CLAMP: lambda a, b, c: np.minimum(np.maximum(a, -1.5), 0.25),
    Op.RELU_GRADIENT: lambda a, b, c: np.where(c > 0, a, 0),
    Op.TANH_GRADIENT: lambda a, b, c: a * (1 - c * c),
}


@pytest.mark.parametrize("op", TERNARY)
@pytest.mark.parametrize("broadcast", ["", "a", "b", "c"])
def test_ternary(isa, op, broadcast):
    rng = np.random.default_rng(2)
    values = {name: np.float32(rng.normal(size=(40, 9)) * (rng.random((40, 9)) < 0.7)) for name in "abc"}
    panels = {name: Panels.of(array) for name, array in values.items()}
    given = {name: panels[name].operand(row=3, feature=0) if name in broadcast else panels[name] for name in "abc"}
    used = [np.float64(array[:, [3] * 9] if name in broadcast else array) for name, array in values.items()]
    dst = Panels(40, 9)
    assert not run(isa, instruction(op, n=9, dst=dst, x=(-1.5, 0.25), **given), panels=2)
    close(dst.values(), TERNARY[op](*used), sum(np.abs(array) + array**2 for array in used) + 1)


def test_rows_and_zero(isa):
    dst, zero, rows = Panels(40, 5), Panels(40, 5), flat([1, -2, 3, 4, 5])
    assert not run(isa, instruction(Op.ROWS, n=5, dst=dst, data=rows), instruction(Op.ZERO, n=5, dst=zero), panels=2)
    np.testing.assert_array_equal(dst.values(), np.tile(rows[:5], (40, 1)))
    assert not zero.values().any()


# Functions across features


def test_sum_maximum_argmax(isa):
    rng = np.random.default_rng(3)
    a = rng.integers(-3, 4, (50, 12)).astype(np.float32)
    panels, total, largest, index = Panels.of(a), Panels(50, 3), Panels(50, 1), Panels(50, 1)
    assert not run(
        isa,
        instruction(Op.SUM, n=4, k=3, dst=total, a=panels),
        instruction(Op.REDUCE_MAX, n=12, dst=largest, a=panels),
        instruction(Op.ARGMAX, n=12, dst=index, a=panels),
        panels=2,
    )
    np.testing.assert_array_equal(total.values(), a.reshape(50, 4, 3).sum(1))
    np.testing.assert_array_equal(largest.values()[:, 0], a.max(1))
    np.testing.assert_array_equal(index.values()[:, 0], a.argmax(1))


@pytest.mark.parametrize("n, k", [(1, 1), (1, 6), (5, 3), (25, 2)])
def test_take_and_put(isa, n, k):
    rng = np.random.default_rng(4)
    a, index = rng.normal(size=(50, n * k)).astype(np.float32), rng.integers(-1, k + 1, (50, 1)).astype(np.float32)
    taken, put, b = Panels(50, n), Panels(50, n * k), Panels.of(index)
    assert not run(
        isa,
        instruction(Op.TAKE, n=n, k=k, dst=taken, a=Panels.of(a), b=b),
        instruction(Op.PUT, n=n, k=k, dst=put, a=taken, b=b),
        panels=2,
    )
    chosen = np.arange(k) == np.clip(index, 0, k - 1)
    expected = np.where(chosen[:, None], a.reshape(50, n, k), 0)
    np.testing.assert_array_equal(taken.values(), expected.sum(2))
    np.testing.assert_array_equal(put.values().reshape(50, n, k), expected)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 31, 46, 125, 200, 1024])
def test_sort(isa, n):
    a = np.random.default_rng(n).choice(np.linspace(-2, 2, 3 * n, dtype=np.float32), (40, n))
    panels, dst = Panels.of(a), Panels(40, n)
    assert not run(isa, instruction(Op.SORT, n=n, dst=dst, a=panels), panels=2)
    np.testing.assert_array_equal(dst.values(), np.sort(a, axis=1))
    assert not run(isa, instruction(Op.SORT, n=n, dst=panels, a=panels), panels=2)
    np.testing.assert_array_equal(panels.values(), dst.values())


@pytest.mark.parametrize("n, k", [(1, 1), (25, 46), (7, 3), (200, 200)])
def test_quantile_huber(isa, n, k):
    rng = np.random.default_rng(5)
    a, b = th.tensor(rng.normal(size=(40, n)), requires_grad=True), th.tensor(rng.normal(size=(40, k)))
    delta = b.float().double()[:, None] - a.float().double()[..., None]
    huber = th.where(delta.abs() > 1, delta.abs() - 0.5, delta**2 * 0.5)
    tau = (th.arange(n) + 0.5) / n
    loss = ((tau[:, None] - (delta < 0).double()).abs() * huber).sum((1, 2))
    loss.sum().backward()
    dst, c = Panels(40, n), Panels(40, 1)
    given = {"a": Panels.of(a.detach()), "b": Panels.of(b)}
    assert not run(isa, instruction(Op.QUANTILE_HUBER, n=n, k=k, dst=dst, c=c, **given), panels=2)
    close(c.values()[:, 0], loss.detach().numpy(), loss.detach().numpy())
    close(dst.values(), a.grad.numpy(), float(k))


# Gathering


@pytest.mark.parametrize("kind", ElementType)
@pytest.mark.parametrize("n, samples", [(1, 1), (8, 32), (17, 70), (40, 100)])
def test_load(isa, kind, n, samples):
    rng = np.random.default_rng(6)
    dtype = ("float32", "float64", "uint8", "int64", "int32", "int8")[kind]
    replay = (rng.normal(size=(500, n + 3)) * 100).astype(dtype)
    view, rows = replay[:, 2 : 2 + n], rng.integers(0, 500, samples)
    rows[-1] = 499
    for index in (rows, None):
        source = Source(view.ctypes.data, None if index is None else index.ctypes.data, samples, replay.strides[0], kind)
        dst = Panels(samples, n)
        assert not run(isa, instruction(Op.LOAD, n=n, dst=dst, data=source), panels=dst.count)
        expected = view[:samples] if index is None else view[index]
        lanes = np.append(expected, np.repeat(expected[-1:], -samples % LANES, axis=0), axis=0)
        dst.samples = len(lanes)
        np.testing.assert_array_equal(dst.values(), lanes.astype(np.float32))


# The batch


def test_sum_batch(isa):
    a = np.random.default_rng(7).normal(size=(1000, 5)).astype(np.float32) + 1
    sums = flat(np.zeros(5))
    given = {"n": 5, "a": Panels.of(a), "data": sums}
    assert not run(isa, instruction(Op.SUM_BATCH, **given), panels=32)
    close(sums[:5], np.float64(a).sum(0), np.float64(np.abs(a)).sum(0), 1e-7)
    assert not run(isa, instruction(Op.SUM_BATCH, flags=Flag.ADD, **given), panels=32)
    close(sums[:5], 2 * np.float64(a).sum(0), 2 * np.float64(np.abs(a)).sum(0), 1e-7)


@pytest.mark.parametrize(
    "decoupled, options",
    [(False, {}), (False, {"weight_decay": 0.1}), (True, {"weight_decay": 0.1}), (False, {"betas": (0.3, 0.9), "eps": 1e-5})],
)
def test_adam(isa, decoupled, options):
    rng = np.random.default_rng(8)
    start = rng.normal(size=1000).astype(np.float32)
    p, m, v, g = flat(start), flat(np.zeros(1000)), flat(np.zeros(1000)), flat(np.zeros(1000))
    parameter = th.nn.Parameter(th.tensor(start))
    optimizer = (th.optim.AdamW if decoupled else th.optim.Adam)([parameter], lr=1e-3, **{"weight_decay": 0.0} | options)
    group = optimizer.param_groups[0]
    state = np.array([0.0, group["lr"], *group["betas"], group["eps"], group["weight_decay"], decoupled, 0.0])
    step = instruction(Op.ADAM, n=len(p), dst=vector(p), a=vector(m), b=vector(v), c=vector(g), data=state)
    for _ in range(50):
        gradient = rng.normal(size=1000).astype(np.float32) * rng.choice([1.0, 1e-6], 1000).astype(np.float32)
        gradient[:10] = 0.0
        g[:1000] = gradient
        parameter.grad = th.tensor(gradient)
        optimizer.step()
        assert not run(isa, step)
    moments = optimizer.state[parameter]
    assert state[0] == 50 and not any(array[1000:].any() for array in (p, m, v))
    close(m[:1000], moments["exp_avg"].numpy(), np.abs(m[:1000]) + np.sqrt(v[:1000]))
    close(v[:1000], moments["exp_avg_sq"].numpy(), v[:1000])
    close(p[:1000], parameter.detach().numpy(), np.abs(start) + 0.05)


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1, "alpha": 0.9, "eps": 1e-5}])
def test_rmsprop(isa, options):
    rng = np.random.default_rng(15)
    start = rng.normal(size=1000).astype(np.float32)
    p, v, g = flat(start), flat(np.zeros(1000)), flat(np.zeros(1000))
    parameter = th.nn.Parameter(th.tensor(start))
    optimizer = th.optim.RMSprop([parameter], lr=1e-3, **options)
    group = optimizer.param_groups[0]
    state = np.array([0.0, group["lr"], group["alpha"], 0.0, group["eps"], group["weight_decay"], 0.0, 0.0])
    step = instruction(Op.RMSPROP, n=len(p), dst=vector(p), a=vector(v), b=vector(g), data=state)
    for _ in range(50):
        gradient = rng.normal(size=1000).astype(np.float32) * rng.choice([1.0, 1e-3], 1000).astype(np.float32)
        gradient[:10] = 0.0
        g[:1000] = gradient
        parameter.grad = th.tensor(gradient)
        optimizer.step()
        assert not run(isa, step)
    assert state[0] == 50 and not any(array[1000:].any() for array in (p, v))
    close(v[:1000], optimizer.state[parameter]["square_avg"].numpy(), v[:1000])
    close(p[:1000], parameter.detach().numpy(), np.abs(start) + 0.05)


def test_polyak(isa):
    rng = np.random.default_rng(9)
    target, source = flat(rng.normal(size=83), 1), flat(rng.normal(size=83), 1)
    expected = th.tensor(target)
    for _ in range(50):
        expected.mul_(1 - 0.005)
        th.add(expected, th.tensor(source), alpha=0.005, out=expected)
        assert not run(isa, instruction(Op.POLYAK, n=83, dst=vector(target), a=vector(source), x=(0.005,)))
    close(target, expected.numpy(), np.abs(expected.numpy()) + np.abs(source))
    target[3] = np.nan
    assert not run(isa, instruction(Op.POLYAK, n=83, dst=vector(target), a=vector(source), x=(1.0,)))
    np.testing.assert_array_equal(target, source)


@pytest.mark.parametrize("tau", [0.005, 1.0])
def test_polyak_of_another_layout(isa, tau):
    rng = np.random.default_rng(14)
    target, source = flat(rng.normal(size=83)), flat(rng.normal(size=50))
    index = rng.integers(-10, 50, 83).astype(np.int32)
    now = np.where(index < 0, 0.0, source[np.maximum(index, 0)])
    expected = target[:83] * np.float32(1 - tau) + now * np.float32(tau)
    assert not run(isa, instruction(Op.POLYAK_INDEXED, n=83, dst=vector(target), a=vector(source), data=index, x=(tau,)))
    close(target[:83], expected, np.abs(expected) + np.abs(now))
    # What is no longer followed ends at zero, and not among numbers that take the processor a hundred times as long.
    index[:] = -1
    step = instruction(Op.POLYAK_INDEXED, n=83, dst=vector(target), a=vector(source), data=index, x=(0.5,))
    for _ in range(140):
        assert not run(isa, step)
    assert not target.any()


def test_outside(isa):
    a, count = np.float32(np.random.default_rng(17).random(90) < 0.5), np.float32([1.0])
    index = np.flatnonzero(np.arange(90) % 3).astype(np.int32)
    given = {"n": 90, "k": 64, "dst": vector(count), "a": vector(a), "data": np.append(index, np.full(4, -1, np.int32))}
    assert not run(isa, instruction(Op.OUTSIDE, **given))
    assert count[0] == 1 + np.count_nonzero(a[::3])


@pytest.mark.parametrize("ties", [False, True])
def test_keep_largest(isa, ties):
    """Exactly what the hooks of a target network do, again and again, and with weights that appear and go."""
    rng = np.random.default_rng(15 + ties)
    n, k = 700, 400
    order = rng.permutation(n).astype(np.int32)
    weights, like, memory = flat(np.zeros(n)), flat(np.zeros(k)), aligned(16 + 2 * n)
    step = instruction(Op.KEEP_LARGEST, n=n, k=k, dst=vector(weights), a=vector(like), b=vector(memory), data=order)
    online, target = rng.normal(size=n), np.zeros(n, np.float32)
    for i in range(60):
        if i % 20 == 0:
            online *= rng.random(n) < 0.5
            online[rng.random(n) < 0.1] = rng.normal()
        count = int(rng.integers(0, k)) if i % 7 == 6 else 300
        target = target * np.float32(0.9) + np.float32(0.1 * online)
        if ties:
            target = np.round(target * 8) / np.float32(8)
        like[:] = 0.0
        like[rng.permutation(k)[:count]] = 1.0
        # The kernels have the weights in another order than the matrix.
        weights[:n] = target[order]
        expected = th.tensor(target)
        keep_largest(expected, th.tensor(like))
        assert not run(isa, step)
        target[order] = weights[:n]
        np.testing.assert_array_equal(target, expected.numpy())


def test_keep_largest_of_what_is_no_number(isa):
    weights, like, memory = flat([np.nan, 1.0, np.inf, 2.0]), flat([1.0]), aligned(16 + 32)
    index = np.arange(16, dtype=np.int32)
    given = {"n": 16, "k": 16, "dst": vector(weights), "a": vector(like), "b": vector(memory), "data": index}
    assert not run(isa, instruction(Op.KEEP_LARGEST, **given))
    assert np.isnan(weights[0]) and not weights[1:].any()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("scale", [1.0, 1e-3, 3e-38])
def test_fake_quantize(isa, bits, scale):
    """The same grid as in the layer's forward pass, to the last bit, also halfway between two integers."""
    rng = np.random.default_rng(bits)
    weights, dst = flat(rng.normal(size=1000) * scale), flat(np.zeros(1000))
    weights[:100] = 0.0
    expected = fake_quantize(th.tensor(weights), bits).numpy()
    assert not run(isa, instruction(Op.FAKE_QUANTIZE, n=len(dst), k=2 ** (bits - 1) - 1, dst=vector(dst), a=vector(weights)))
    np.testing.assert_array_equal(dst, expected)
    halves = flat(np.arange(-127, 128) / 2)
    assert not run(isa, instruction(Op.FAKE_QUANTIZE, n=len(halves), k=63, dst=vector(dst), a=vector(halves)))
    scale = np.float32(63.5) / np.float32(63)
    np.testing.assert_array_equal(dst[: len(halves)], np.round(halves / scale) * scale)


def test_fake_quantize_of_zeros(isa):
    weights, dst = flat(np.zeros(16)), flat(np.ones(16))
    assert not run(isa, instruction(Op.FAKE_QUANTIZE, n=16, k=127, dst=vector(dst), a=vector(weights)))
    assert not dst.any()


@pytest.mark.parametrize("bits", BITS)
def test_to_steps(isa, bits):
    """As a grid with steps of its own has it, to the last bit: clipped, and halves to even integers."""
    rng = np.random.default_rng(bits)
    weights, steps, dst = flat(rng.normal(size=992)), flat(rng.uniform(0.01, 0.5, size=992)), flat(np.zeros(992))
    weights[:16] = 1.5 * steps[:16]
    expected = WeightGrid(bits, th.tensor(steps))(th.tensor(weights)[:, None])[:, 0].numpy()
    given = {"n": len(dst), "k": 2 ** (bits - 1) - 1, "dst": vector(dst), "a": vector(weights), "b": vector(steps)}
    assert not run(isa, instruction(Op.TO_STEPS, **given))
    np.testing.assert_array_equal(dst, expected)
    assert len(np.unique((dst / steps).round())) == 2**bits - 1 or bits > 4


@pytest.mark.parametrize("largest", [0.5, 1e6])
def test_clip_of_norm(isa, largest):
    g = flat(np.random.default_rng(10).normal(size=99))
    parameter = th.nn.Parameter(th.tensor(g))
    parameter.grad = th.tensor(g)
    norm = th.nn.utils.clip_grad_norm_([parameter], largest)
    squares = np.array([123.0])
    assert not run(
        isa,
        instruction(Op.SQUARE_SUM, n=50, a=vector(g), data=squares),
        instruction(Op.SQUARE_SUM, n=0, a=vector(g), data=squares, flags=Flag.ADD),
    )
    assert squares[0] == pytest.approx(np.float64(g[:50] ** 2).sum(), rel=1e-7)
    squares[0] = np.square(np.float64(g)).sum()
    assert not run(isa, instruction(Op.CLIP, n=99, dst=vector(g), data=squares, x=(largest,)))
    assert squares[0] == pytest.approx(float(norm) ** 2, rel=1e-6)
    close(g, parameter.grad.numpy(), np.abs(g))


# What is no number, and what is too large

EDGES = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30, 1e-30, 200.0, -200.0, 1.0, -1.0, 88.73, -103.9]


@pytest.mark.parametrize("op", UNARY)
def test_edges_as_in_torch(isa, op):
    a = np.float32(EDGES)[:, None]
    functions = {Op.COPY: th.clone}
    expected = functions.get(op, getattr(th, op.name.lower(), None))(th.tensor(a)).numpy()
    dst = Panels(len(a), 1)
    assert not run(isa, instruction(op, n=1, dst=dst, a=Panels.of(a, fill=1.0)))
    expected = np.where(np.abs(expected) < 1.2e-38, 0.0, expected)
    np.testing.assert_allclose(dst.values(), expected, rtol=2e-6, atol=2e-38)


@pytest.mark.parametrize("op", [Op.MIN, Op.MAX, Op.MUL, Op.LESS])
def test_edges_of_two_as_in_torch(isa, op):
    a, b = (np.float32(values).reshape(-1, 1) for values in np.meshgrid(EDGES, EDGES))
    functions = {Op.MIN: th.minimum, Op.MAX: th.maximum, Op.MUL: th.mul, Op.LESS: th.lt}
    dst = Panels(len(a), 1)
    assert not run(isa, instruction(op, n=1, dst=dst, a=Panels.of(a), b=Panels.of(b)), panels=dst.count)
    np.testing.assert_array_equal(dst.values(), functions[op](th.tensor(a), th.tensor(b)).float().numpy())


def test_nan_is_not_hidden(isa):
    """A run that diverges shows it: ReLU, bounds and maxima keep NaN, and an index of NaN is one that exists."""
    layer = Linear(np.eye(2), np.zeros(2), np.eye(2, dtype=bool))
    a = Panels.of([[np.nan, 1.0]])
    relu, clamp, largest, taken, summed = Panels(1, 2), Panels(1, 1), Panels(1, 1), Panels(1, 1), Panels(1, 1)
    assert not run(
        isa,
        instruction(Op.LINEAR, layer=layer.struct, dst=relu, a=a, flags=Flag.RELU_OUTPUT),
        instruction(Op.CLAMP, n=1, dst=clamp, a=a, x=(-1, 1)),
        instruction(Op.REDUCE_MAX, n=2, dst=largest, a=a),
        instruction(Op.SUM, n=2, k=1, dst=summed, a=a),
        instruction(Op.TAKE, n=1, k=2, dst=taken, a=relu, b=a),
    )
    for result in (relu, clamp, largest, summed, taken):
        assert np.isnan(result.values()[0, 0])
    assert relu.values()[0, 1] == 1.0


def test_adam_flushes_small_moments_and_keeps_nan(isa):
    p, m, v, g = (flat(values) for values in ([1.0, 1.0], [1e-38, np.nan], [1e-38, 1.0], [0.0, 0.0]))
    state = np.array([9.0, 1e-3, 0.9, 0.999, 1e-8, 0.0, 0.0, 0.0])
    assert not run(isa, instruction(Op.ADAM, n=16, dst=vector(p), a=vector(m), b=vector(v), c=vector(g), data=state))
    assert p[0] == 1.0 and m[0] == v[0] == 0.0
    assert np.isnan(p[1]) and np.isnan(m[1])


# Programs


def test_what_an_instruction_writes_the_next_one_reads(isa):
    """On panels, on the batch, and on panels again, with a buffer of one panel that all of them use in turn."""
    a = np.arange(70, dtype=np.float32)[:, None]
    local, dst, total = Panels(LANES, 1), Panels.of(a), flat([0.0])
    once = local.operand()
    once.panel = 0
    assert not run(
        isa,
        instruction(Op.AFFINE, n=1, dst=once, a=dst, x=(2.0, 0.0)),
        instruction(Op.COPY, n=1, dst=dst, a=once),
        instruction(Op.SUM_BATCH, n=1, a=dst, data=total),
        instruction(Op.ROWS, n=1, dst=dst, data=total),
        panels=3,
    )
    assert (dst.array[:, 0] == 2 * a.sum()).all()


def test_threads_share_the_library(isa):
    rng = np.random.default_rng(12)
    mask = rng.random((64, 64)) < 0.3
    layer = Linear(rng.normal(size=(64, 64)), rng.normal(size=64), mask)
    x = Panels.of(rng.normal(size=(256, 64)))

    def forward(_):
        y = Panels(256, 64)
        assert not run(isa, instruction(Op.LINEAR, layer=layer.struct, dst=y, a=x), panels=8)
        return y.values()

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(forward, range(32)))
    assert all(np.array_equal(result, results[0]) for result in results)


def valid():
    """One instruction of each kind that has rules of its own, and what it needs."""
    rng = np.random.default_rng(13)
    dense = Linear(rng.normal(size=(8, 8)), rng.normal(size=8))
    sparse = Linear(rng.normal(size=(8, 8)), rng.normal(size=8), rng.random((8, 8)) < 0.5)
    half = Linear(rng.normal(size=(8, 8)), rng.normal(size=8), half=True)
    a, b, dst = (Panels.of(rng.normal(size=(32, 8))) for _ in range(3))
    data, rows = flat(np.zeros(2048)), np.zeros((32, 8), np.float32)
    source = Source(rows.ctypes.data, None, 32, 32, ElementType.FLOAT32)
    KEEP.extend((dense, sparse, half, rows))
    yield instruction(Op.LOAD, n=8, dst=dst, data=source)
    for layer in (dense, sparse, half):
        given = {"layer": layer.struct, "a": a}
        yield instruction(Op.LINEAR, dst=dst, **given)
        yield instruction(Op.LINEAR_INPUT_GRADIENT, dst=dst, c=b, flags=Flag.MASK_BY_INPUT, **given)
        yield instruction(Op.LINEAR_WEIGHT_GRADIENT, b=b, data=data, **given)
        yield instruction(Op.REFRESH, layer=layer.struct)
    yield instruction(Op.EXP, n=8, dst=dst, a=a)
    yield instruction(Op.MUL, n=8, dst=dst, a=a, b=b)
    yield instruction(Op.SELECT, n=8, dst=dst, a=a, b=b, c=a)
    yield instruction(Op.SUM, n=4, k=2, dst=dst, a=a)
    yield instruction(Op.ARGMAX, n=8, dst=dst, a=a)
    yield instruction(Op.TAKE, n=4, k=2, dst=dst, a=a, b=b)
    yield instruction(Op.SORT, n=8, dst=dst, a=a)
    yield instruction(Op.QUANTILE_HUBER, n=8, k=8, dst=dst, a=a, b=b, c=Panels(32, 1))
    yield instruction(Op.ROWS, n=8, dst=dst, data=data)
    yield instruction(Op.SUM_BATCH, n=8, a=a, data=data)
    yield instruction(Op.ADAM, n=16, dst=vector(flat([1.0])), a=vector(flat([0.0])), b=vector(flat([0.0])), c=a, data=data)
    yield instruction(Op.RMSPROP, n=16, dst=vector(flat([1.0])), a=vector(flat([0.0])), b=a, data=data)
    yield instruction(Op.POLYAK, n=16, dst=dst, a=a, x=(0.1,))
    yield instruction(Op.POLYAK_INDEXED, n=16, dst=dst, a=a, data=np.zeros(16, np.int32), x=(0.1,))
    yield instruction(Op.KEEP_LARGEST, n=16, k=8, dst=dst, a=a, b=vector(data), data=np.arange(16, dtype=np.int32))
    yield instruction(Op.FAKE_QUANTIZE, n=16, k=127, dst=dst, a=a)
    yield instruction(Op.TO_STEPS, n=16, k=127, dst=dst, a=a, b=vector(flat([1.0])))
    yield instruction(Op.SQUARE_SUM, n=16, a=a, data=data)
    yield instruction(Op.CLIP, n=16, dst=dst, data=data, x=(1.0,))


KEEP = []
USES_N = set(Op) - {Op.LINEAR, Op.LINEAR_INPUT_GRADIENT, Op.LINEAR_WEIGHT_GRADIENT, Op.REFRESH}
VALID = list(valid())


def changed(original, **members):
    copy = type(original).from_buffer_copy(original)
    for name, value in members.items():
        setattr(copy, name, value)
    KEEP.append(copy)
    return copy


def changed_data(one, name, struct, **members):
    """A copy of an instruction with a changed copy of the struct that it names."""
    return changed(one, **{name: ctypes.addressof(changed(struct.from_address(getattr(one, name)), **members))})


def broken(one):
    """Malformed copies of an instruction, by what is wrong with them."""
    for op in (0, len(Op) + 1, -1):
        yield "op", changed(one, op=op)
    yield "flags", changed(one, flags=8 | one.flags)
    if one.op in USES_N:
        yield "n", changed(one, n=-1)
    if one.data and not one.layer:
        yield "no data", changed(one, data=None)
    for name in ("dst", "a", "b", "c"):
        if getattr(one, name).base:
            yield from broken_operand(one, name, getattr(one, name))
    if one.layer:
        yield from broken_layer(one)
    if one.op == Op.LOAD:
        for member, value in (("type", 6), ("type", -1), ("count", 0), ("data", None)):
            yield f"source's {member}", changed_data(one, "data", Source, **{member: value})
    yield from ((members, changed(one, **members)) for members in RULES.get(Op(one.op), ()))


def broken_layer(one):
    yield "no layer", changed(one, layer=None)
    for member, value in (("kind", 3), ("kind", -1), ("outputs", 0), ("inputs", 0), ("first", -1), ("first", 9)):
        yield f"layer's {member}", changed_data(one, "layer", Layer, **{member: value})
    if Layer.from_address(one.layer).kind == Kind.HALF and one.op in (Op.LINEAR, Op.REFRESH):
        yield "layer's pairs", changed_data(one, "layer", Layer, pairs=None)


def broken_operand(one, name, operand):
    changes = {"is null": {"base": None}}
    changes["is not aligned"] = {"base": operand.base + 4}
    if one.op in PANEL:
        changes |= {"has odd features": {"feature": 16}, "has odd panels": {"panel": 40}}
    if one.op in PANEL - {Op.ARGMAX} and name == "dst":
        changes["is broadcast"] = {"feature": 0}
    for what, members in changes.items():
        yield f"{name} {what}", changed(one, **{name: changed(operand, **members)})


#: Members that are wrong for one instruction.
RULES = {
    Op.SUM: [{"k": 0}],
    Op.TAKE: [{"k": 0}],
    Op.QUANTILE_HUBER: [{"k": 0}, {"n": 0}],
    Op.ARGMAX: [{"n": 0}],
    Op.SORT: [{"n": 1025}],
    Op.ADAM: [{"n": 17}],
    Op.RMSPROP: [{"n": 17}],
    Op.FAKE_QUANTIZE: [{"n": 17}, {"k": 0}],
    Op.TO_STEPS: [{"n": 17}, {"k": 0}],
}


@pytest.mark.parametrize("one", VALID, ids=lambda one: Op(one.op).name.lower())
def test_malformed_instructions_are_refused(one):
    """With their place, and before anything runs."""
    total = flat([5.0])
    first = instruction(Op.GATHER, n=1, dst=vector(total), a=vector(flat([7.0])))
    assert run(SETS[0], one) == 0
    for what, wrong in broken(one):
        assert run(SETS[0], first, one, wrong, one) == 3, what
        assert total[0] == 5.0, what


def test_a_layer_does_not_work_in_place():
    for one in VALID:
        if one.op in (Op.LINEAR, Op.LINEAR_INPUT_GRADIENT):
            assert run(SETS[0], changed(one, dst=one.a)) == 1


def test_empty_programs():
    assert run(SETS[0]) == 0
    assert run(SETS[0], VALID[0], panels=0) != 0


# Under sanitizers

SANITIZE = ["-O1", "-g", "-std=c++17", "-fPIC", "-shared", "-Wall", "-Wextra", "-fsanitize=address,undefined"]
CHILD = """
import ctypes, sys
import numpy as np
from sb3_sparse.engine.kernels import library
sanitized = ctypes.CDLL(sys.argv[1])
sanitized.engine_run.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
sanitized.engine_run_by_two.argtypes = [*sanitized.engine_run.argtypes, ctypes.c_void_p]
sanitized.engine_team.restype = ctypes.c_void_p
sanitized.engine_disband.argtypes = [ctypes.c_void_p]
team = sanitized.engine_team()
library.load = lambda isa=None: sanitized
import tests.test_engine_kernels as kernels
for seed in range(40):
    rng = np.random.default_rng(seed)
    outputs, inputs, samples = (int(rng.integers(1, most)) for most in (50, 50, 200))
    mask = rng.random((outputs, inputs)) < rng.choice([0.0, 0.1, 0.5, 1.0]) if seed % 2 else None
    first = int(rng.integers(0, inputs))
    layer = kernels.Linear(rng.normal(size=(outputs, inputs)), rng.normal(size=outputs), mask, first, seed % 4 == 0)
    kernels.check_layer(None, layer, samples, rng)
    kernels.check_layer(None, layer, samples, rng, team)
for n in range(1, 30, 3):
    for kind in kernels.ElementType:
        kernels.test_load(None, kind, n, 33)
    kernels.test_sort(None, n)
for one in kernels.VALID:
    kernels.run(None, one)
for op in kernels.UNARY:
    kernels.test_unary(None, op, False)
kernels.test_polyak(None)
kernels.test_adam(None, False, {})
kernels.test_rmsprop(None, {})
kernels.test_polyak_of_another_layout(None, 0.005)
kernels.test_keep_largest(None, True)
kernels.test_keep_largest_of_what_is_no_number(None)
kernels.test_fake_quantize(None, 8, 1.0)
sanitized.engine_disband(team)
print("clean")
"""


@pytest.mark.slow
def test_kernels_under_sanitizers(isa, tmp_path):
    """Random layers, gathers of rows that end where the memory ends, and one of each instruction."""
    program, root = tmp_path / "sanitized.so", Path(__file__).parent.parent
    options = library._SETS[isa][0]
    build = ["g++", *SANITIZE, "-fno-sanitize-recover=all", *options, str(C / "engine.cpp"), "-o", str(program)]
    if not shutil.which("g++") or subprocess.run(build, capture_output=True).returncode:
        pytest.skip("g++ has no sanitizers here")
    found = [
        subprocess.check_output(["g++", f"-print-file-name=lib{name}.so"], text=True).strip() for name in ("asan", "ubsan")
    ]
    # Python itself leaks, and torch's libraries are no concern of this test.
    environment = os.environ | {
        "LD_PRELOAD": " ".join(found),
        "ASAN_OPTIONS": "detect_leaks=0,verify_asan_link_order=0",
        "PYTHONPATH": str(root),
        "SB3_SPARSE_ENGINE_ISA": SETS[0],
    }
    command = [sys.executable, "-c", CHILD, str(program)]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and "clean" in done.stdout, done.stderr[-4000:]


# On another processor


@pytest.mark.slow
def test_kernels_on_neon(tmp_path):
    """Layers, functions and Adam on an emulated ARM processor, whose vectors the compiler finds by itself."""
    compiler, emulator = "aarch64-linux-gnu-g++", "qemu-aarch64"
    for tool in (compiler, emulator):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    program = tmp_path / "kernels"
    source = Path(__file__).with_name("engine_kernels.cpp")
    subprocess.run([compiler, "-O2", "-std=c++17", "-static", f"-I{C}", str(source), "-o", str(program)], check=True)
    done = subprocess.run([emulator, str(program)], capture_output=True, text=True)
    assert done.returncode == 0 and "portable" in done.stdout, done.stdout + done.stderr
    assert "fmla" in subprocess.run(["aarch64-linux-gnu-objdump", "-d", str(program)], capture_output=True, text=True).stdout


# The interface


def test_structs_repeat_the_interface():
    text = (C / "interface.h").read_text()
    body = re.search(r"enum class Op[^{]*{(.*?)}", text, re.S).group(1)
    names = [name.strip().removesuffix(" = 1") for name in body.split(",")]
    assert names == [*Op.__members__, "END"]
    assert [op.value for op in Op] == list(range(1, len(Op) + 1))
    assert f"LANES = {LANES}," in text and f"INTERFACE = {structs.INTERFACE};" in text
    assert f"BLOCK = {structs.BLOCK};" in text
    assert PANEL == {op for op in Op if op.value <= Op.LINEAR_WEIGHT_GRADIENT}


def test_setup_cfg_ships_the_sources():
    config = configparser.ConfigParser()
    config.read(Path(__file__).parent.parent / "setup.cfg")
    patterns = config["options.package_data"]["sb3_sparse.engine.kernels"].split()
    assert {path for pattern in patterns for path in C.parent.glob(pattern)} == set(C.iterdir())


def test_the_environment_names_the_instruction_set(monkeypatch):
    for name in SETS:
        monkeypatch.setenv("SB3_SPARSE_ENGINE_ISA", name)
        assert library.load().engine_isa().decode() == name
    monkeypatch.setenv("SB3_SPARSE_ENGINE_ISA", "AVX2")
    with pytest.raises(ValueError, match=r"ISA=AVX2.*portable, avx2, avx512"):
        library.load()
    monkeypatch.delenv("SB3_SPARSE_ENGINE_ISA")
    assert library.load() is library.load(SETS[-1])


def test_without_a_compiler(monkeypatch):
    """It says which one is missing."""
    monkeypatch.setattr(library, "available", lambda: (_ for _ in ()).throw(BuildError("no C++ compiler found")))
    monkeypatch.delenv("SB3_SPARSE_ENGINE_ISA", raising=False)
    with pytest.raises(BuildError, match=r"no C\+\+ compiler"):
        library.load()


def test_an_instruction_set_that_the_processor_lacks(monkeypatch):
    monkeypatch.setattr(library, "macros", lambda suffix: set())
    library._load.cache_clear()
    with pytest.raises(BuildError, match="has no avx512"):
        library.load("avx512")
    library._load.cache_clear()


def test_an_unknown_instruction_set():
    with pytest.raises(BuildError, match="no instruction set"):
        library.load("avx1024")
    assert library.load(SETS[0]).engine_isa().decode() == SETS[0]
