"""Whatever reads a network refuses what it does not declare, and computes what it does."""

import ctypes
import dataclasses
import re
import shutil
import subprocess
from dataclasses import MISSING, dataclass, field, make_dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from sb3_sparse.export.c import ends
from sb3_sparse.export.c.float_code import FLOAT
from sb3_sparse.export.c.header import to_c
from sb3_sparse.export.c.integer.constants import INTEGER, integer_layers, without_integers
from sb3_sparse.export.c.simd_code import SIMD
from sb3_sparse.export.onnx import ONNX, WEIGHT_FORMS, to_onnx
from sb3_sparse.export.passes.capabilities import PASSES
from sb3_sparse.runtime import Policy
from sb3_sparse.runtime.backends import int8, structs
from sb3_sparse.runtime.backends.families import AVX2
from sb3_sparse.runtime.backends.int8 import INT8
from sb3_sparse.runtime.backends.numpy_backend import NUMPY, functions
from sb3_sparse.runtime.backends.plan import COMPILED, Plan
from sb3_sparse.runtime.backends.structs import LAYER, PLAN, Kernel
from sb3_sparse.runtime.format.artifact import COMPACT, decode, encode
from sb3_sparse.runtime.network.assemble import assemble
from sb3_sparse.runtime.network.capabilities import is_record, record_fields, require_known
from sb3_sparse.runtime.network.records import (
    ACTIVATIONS,
    HEADS,
    IDENTITY,
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
    Stack,
)
from sb3_sparse.runtime.network.reference import layer_inputs
from sb3_sparse.runtime.network.stacking import push
from sb3_sparse.runtime.observations import read_parts
from tests.networks import AVAILABLE, EXACT, draw_arrays

RELU = Activation("relu")
GRID = Grid(0.05, 0, 60)
RECORDS = (Network, Part, Normalize, Layer, Norm, Head, Activation, Pool, Grid, Minifloats, Fixed)
#: With what lies in front of a network, which its backends do not see: a policy keeps the stack of frames itself.
ALL_RECORDS = (*RECORDS, Stack)
#: What reads networks, and how it is asked to.
READERS = {
    NUMPY: functions,
    COMPILED: Plan,
    INT8: lambda network: Plan(network, AVX2),
    COMPACT: encode,
    FLOAT: to_c,
    INTEGER: integer_layers,
    ONNX: to_onnx,
    PASSES: lambda network: require_known(network, PASSES),
}
STACKING = (COMPACT, FLOAT, ONNX, PASSES)
every_reader = pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)


def minifloats(count, largest):
    return Minifloats(np.linspace(200, 240, count).astype(np.uint8), float(np.float32(largest / (16 << 15))))


def quantized(weight, activation=IDENTITY, **kwargs):
    """A layer of integers that are close to this weight."""
    steps = np.abs(weight).max() / 100
    bias = Fixed(np.linspace(-20000, 30000, len(weight)).astype(np.int16), 2.0**-15)
    return Layer(np.rint(weight / steps).astype(np.int8), bias, activation, minifloats(len(weight), steps), **kwargs)


def draw(seed, *shape):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))


def head(kind="clip"):
    bounds = np.array([-0.3, -0.2, -0.1, -0.05], np.float32)
    if kind == "argmax":
        return Head(kind, (2,), groups=(3, 1))
    return Head(kind, (2, 2)) if kind == "positive" else Head(kind, (2, 2), bounds, -2 * bounds)


def perceptron(activation=RELU, kind="clip"):
    """A network of integers with a gain and a normalization."""
    layers = (quantized(draw(0, 12, 6), activation, gain=minifloats(6, 2.0)), quantized(draw(1, 4, 12)))
    normalize = Normalize(draw(2, 2, 3), np.abs(draw(3, 2, 3)) + 1, 2.0)
    return Network((2, 3), False, normalize, layers, head(kind))


def convolution(*, image):
    """
    Of integers, with everything that a convolution may have but a residual block; pixels need no rectifying. The layer
    behind it rounds its inputs.
    """
    first = quantized(draw(0, 3, 2, 3, 2), RELU, stride=(2, 1), padding=(1, 0))
    first = replace(first, pool=Pool((2, 3), (1, 2), (1, 0)), rectify=not image)
    shape = first.output_shape((2, 7, 8))
    return Network((2, 7, 8), image, None, (first, quantized(draw(1, 4, int(np.prod(shape))), grid=GRID)), head())


def residual():
    """A block of two convolutions, of floats."""
    first = Layer(draw(0, 3, 2, 3, 3), draw(4, 3), RELU, padding=(1, 1), rectify=True)
    second = Layer(draw(1, 2, 3, 3, 3), draw(5, 2), padding=(1, 1), residual=True)
    return Network((2, 4, 5), False, None, (first, second, Layer(draw(2, 4, 40), draw(6, 4))), head())


def recurrent(*, wide=True):
    """Two LSTM layers, the first one wider or narrower than the second; of integers with a gain, and of floats."""
    first, second = (5, 3) if wide else (3, 5)
    lstm = quantized(3 * draw(0, 4 * first, 6 + first), gain=minifloats(6 + first, 2.0), lstm=True)
    layers = (lstm, Layer(3 * draw(1, 4 * second, first + second), draw(2, 4 * second), lstm=True))
    return Network((2, 3), False, None, (*layers, quantized(draw(3, 4, second))), head())


def parted():
    """A dict of numbers, classes, and an image that passes a network of its own."""
    free = np.full(4, np.inf, np.float32)
    encoder = calibrated(replace(convolution(image=True), head=Head("clip", (4,), -free, free)))
    parts = (Part("goal", (1, 2)), Part("class", (2,), (3, 2)), Part("cam", encoder.shape, encoder=encoder))
    limit = np.array([0.3, 0.2, *[np.inf] * 9], np.float32)
    normalize = Normalize(draw(2, 11), np.abs(draw(3, 11)) + 1, limit)
    layers = (quantized(draw(0, 12, 11), RELU, gain=minifloats(11, 2.0)), quantized(draw(1, 4, 12)))
    return Network((11,), False, normalize, layers, head(), parts=parts)


def stacked():
    """The last three frames of normalized numbers, and a normalization of the whole as well."""
    network = perceptron()
    weight = quantized(draw(0, 12, 18), RELU, gain=minifloats(18, 2.0))
    normalize = Normalize(draw(2, 2, 9), np.abs(draw(3, 2, 9)) + 1, 2.0)
    stack = Stack(3, Normalize(3 * draw(4, 2, 3), np.abs(draw(5, 2, 3)) + 1, 1.0))
    return replace(network, shape=(2, 9), normalize=normalize, layers=(weight, network.layers[1]), stack=stack)


def normed():
    """A signal that is read as an image of height 1, with a layer norm in a convolution and in a linear layer, and means."""
    first = quantized(draw(0, 3, 2, 1, 3), stride=(1, 2), padding=(0, 1), pool=Pool((1, 3), (1, 2), (0, 1), mean=True))
    first = replace(first, norm=Norm(0.1, draw(4, 3, 1, 5) + 1, draw(5, 3, 1, 5)))
    second = quantized(draw(1, 6, 9), RELU, norm=Norm(0.1, draw(6, 6) + 1, draw(7, 6)))
    normalize = Normalize(draw(2, 2, 9), np.abs(draw(3, 2, 9)) + 1, 2.0)
    layers = (first, second, quantized(draw(8, 4, 6)))
    return Network((2, 9), False, normalize, layers, head(), view=(2, 1, 9))


def meaned():
    """A pool of means, some of which are beyond the border."""
    first = quantized(draw(0, 3, 2, 3, 2), Activation("tanh"), pool=Pool((2, 3), (1, 2), (1, 0), mean=True))
    shape = first.output_shape((2, 7, 8))
    return Network((14, 8), False, None, (first, quantized(draw(1, 4, int(np.prod(shape))))), head(), view=(2, 7, 8))


def calibrated(network):
    """The network with the ranges of its inputs."""
    gains = [1.0 if layer.gain is None else layer.gain.values for layer in network.layers]
    inputs = layer_inputs(network, vector(network, observe(network, 64)))[:-1]
    shaped = (x.reshape(len(x), -1) * gain for x, gain in zip(inputs, gains, strict=True))
    return replace(network, ranges=tuple(float(np.abs(x).max()) for x in shaped))


def observe(network, count):
    rng = np.random.default_rng(7)
    if network.parts:
        return draw_arrays(rng, network, count)
    if network.image:
        return rng.integers(0, 256, (count, *network.shape), dtype=np.uint8)
    return rng.normal(size=(count, *network.frame_shape)).astype(np.float32)


def vector(network, x, encoders=None):
    """The inputs of the first layer; each observation begins an episode."""
    if network.stack is not None:
        return push(network, np.zeros((len(x), *network.shape), np.float32), x)
    return assemble(network, read_parts(x, network.parts)[0], encoders) if network.parts else x


def rows(x):
    """One observation after the other."""
    if isinstance(x, dict):
        return [dict(zip(x, row, strict=True)) for row in zip(*x.values(), strict=True)]
    return list(x)


NUMBERS = {
    "clip": (-0.2, 0.4),
    "leaky_relu": (0.1,),
    "elu": (1.3,),
    "prelu": (0.0, 0.0, np.linspace(-0.5, 0.9, 12, dtype=np.float32)),
}


def int8_knows(network):
    """There are no LSTMs and no norms in bytes."""
    return not network.lstms and all(layer.norm is None for layer in network.layers)


#: The first three are of integers and have every record but a norm; together they use every field, activation and head.
EXAMPLES = [
    calibrated(perceptron()),
    calibrated(convolution(image=False)),
    calibrated(parted()),
    calibrated(convolution(image=True)),
    residual(),
    recurrent(),
    recurrent(wide=False),
    calibrated(stacked()),
    normed(),
    calibrated(meaned()),
    *(calibrated(perceptron(Activation(name, *NUMBERS.get(name, ())))) for name in ACTIVATIONS),
    *(calibrated(perceptron(kind=kind)) for kind in HEADS),
]


def complete(reader):
    """Examples that together have every record that a reader knows."""
    return EXAMPLES[:3] + [normed()] * ("norm" in reader.records[Layer])


def known_records(reader):
    return set(RECORDS) - (set() if "norm" in reader.records[Layer] else {Norm})


IN_BYTES = [network for network in EXAMPLES if int8_knows(network)]


@every_reader
def test_declarations_name_what_exists(reader):
    assert set(reader.records) == set(ALL_RECORDS if reader in STACKING else RECORDS)
    for record, names in reader.records.items():
        assert names <= set(record_fields(record)), record
    assert reader.activations <= set(ACTIVATIONS) and reader.heads <= set(HEADS)


def extended(record, **extra):
    """The same record with one more field, which is not in use by default."""
    kind = type(record)
    if dataclasses.is_dataclass(record):
        wide = make_dataclass("Wide", [("extra", object, None)], bases=(kind,), frozen=True, eq=False)
        return wide(**{name: getattr(record, name) for name in record_fields(kind)}, **extra)
    members = {"_fields": (*kind._fields, "extra"), "_field_defaults": {"extra": None}, "extra": extra.get("extra")}
    return type("Wide", (kind,), members)(*record)


@pytest.fixture
def extend(monkeypatch):
    """Makes records with one more field; every reader knows their kind, but not the field."""

    def extend(record, **extra):
        wide = extended(record, **extra)
        declare(monkeypatch, type(wide), like=type(record))
        return wide

    return extend


def declare(monkeypatch, kind, *, like):
    for reader in READERS if like is not Stack else STACKING:
        monkeypatch.setitem(reader.records, kind, reader.records[like])


def everywhere(record, change):
    """The same record with each record in it changed in turn, and the kind of that one."""
    yield type(record), change(record)
    for name in record_fields(type(record)):
        value = getattr(record, name)
        parts = (value,) if is_record(value) else value if isinstance(value, tuple) else ()
        for index, part in enumerate(parts):
            for kind, other in everywhere(part, change) if is_record(part) else ():
                whole = other if is_record(value) else (*parts[:index], other, *parts[index + 1 :])
                yield kind, put(record, name, whole)


def put(record, name, value):
    return replace(record, **{name: value}) if dataclasses.is_dataclass(record) else record._replace(**{name: value})


@every_reader
def test_an_unknown_field_is_refused_by_name(reader, extend):
    seen = set()
    changed = [everywhere(example, lambda record: extend(record, extra="something")) for example in complete(reader)]
    for kind, network in chain(*changed):
        seen.add(kind)
        sentence = rf"has extra='something', which {reader.name} does not support: \w+"
        with pytest.raises(ValueError, match=sentence) as error:
            READERS[reader](network)
        encoder = r"( of the encoder of parts\[2\] of the network)?"
        where = {
            Network: r"the (network|encoder of parts\[2\] of the network) has",
            Layer: rf"layer \d{encoder} has",
            Activation: rf"the activation of layer \d{encoder} has",
            Part: r"parts\[\d\] of the network has",
        }
        assert re.match(where.get(kind, "the "), str(error.value))
    assert seen == known_records(reader)


@every_reader
def test_a_stack_is_known_or_refused(reader, extend):
    """Backends compute whole observations; what keeps a stack knows all of it."""
    network = stacked() if reader is not INTEGER else calibrated(stacked())
    if reader not in STACKING:
        with pytest.raises(ValueError, match=rf"the network has stack=Stack\(\.\.\.\), which {reader.name} does not support"):
            READERS[reader](network)
        return
    READERS[reader](network)
    READERS[reader](replace(network, stack=extend(network.stack)))
    with pytest.raises(ValueError, match=f"the stack of the network has extra='x', which {reader.name} does not support"):
        READERS[reader](replace(network, stack=extend(network.stack, extra="x")))


@every_reader
def test_an_unknown_field_that_is_not_in_use_is_accepted(reader, extend):
    for example in complete(reader):
        for _, network in everywhere(example, extend):
            READERS[reader](network)


@every_reader
@pytest.mark.parametrize("default", [MISSING, (1, 2)], ids=["none", "a default"])
def test_any_value_but_the_default_is_refused(reader, default, monkeypatch):
    """An array, a record, or another number; a field without a default is in use always."""
    options = {} if default is MISSING else {"default": default}
    wide = dataclass(frozen=True, eq=False)(
        type("Wide", (Network,), {"__annotations__": {"extra": object}, "extra": field(kw_only=True, **options)})
    )
    declare(monkeypatch, wide, like=Network)
    known = {name: getattr(EXAMPLES[0], name) for name in record_fields(Network)}
    for value, text in ((np.zeros(2), r"ndarray\(\.\.\.\)"), (Pool((1, 1), (1, 1)), r"Pool\(\.\.\.\)"), ((1, 3), r"\(1, 3\)")):
        with pytest.raises(ValueError, match=f"the network has extra={text}, which {reader.name} does not"):
            READERS[reader](wide(**known, extra=value))
    if default is not MISSING:
        READERS[reader](wide(**known))


@every_reader
def test_a_record_of_an_unknown_kind_is_refused(reader):
    network = EXAMPLES[0]
    block = make_dataclass("Attention", [("heads", int)])(4)
    with pytest.raises(ValueError, match=f"layer 1 is of type Attention, which {reader.name} does not support"):
        READERS[reader](replace(network, layers=(network.layers[0], block)))


@every_reader
def test_a_subclass_of_a_record_is_refused(reader):
    """It has the fields of its base and may compute something else."""
    seen = set()
    for kind, network in chain(*(everywhere(example, extended) for example in complete(reader))):
        seen.add(kind)
        with pytest.raises(ValueError, match=f"is of type Wide, which {reader.name} does not support"):
            READERS[reader](network)
    assert seen == known_records(reader)


@every_reader
def test_records_are_found_in_every_container(reader):
    network = EXAMPLES[0]
    block = make_dataclass("Attention", [("heads", int)])(4)
    for layers, place in (([block], "layer 0"), ([network.layers[0], [block]], "layer 1"), ({3: block}, "layer 3")):
        with pytest.raises(ValueError, match=f"{place} is of type Attention, which {reader.name} does not support"):
            READERS[reader](replace(network, layers=layers))
    with pytest.raises(ValueError, match=r"shape\[1, 'a'\] of the network is of type Attention"):
        READERS[reader](replace(network, shape=(2, {"a": block})))


def test_a_header_says_what_its_other_arithmetics_do_not_compute(monkeypatch, extend):
    network = extend(EXAMPLES[0], extra="x")
    monkeypatch.setitem(FLOAT.records, type(network), FLOAT.records[Network] | {"extra"})
    text = to_c(network)
    for reader in (SIMD, INTEGER):
        assert f"#error \"the network has extra='x', which {reader.name} does not support: {reader.instead}" in text
    usual = ("two policies", "the code for SIMD", "8-bit activations need")
    assert all(line.startswith(usual) for line in re.findall('#error "(.*)"', to_c(EXAMPLES[0])))


@every_reader
def test_an_unknown_activation_is_refused_by_name(reader, monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "snake", lambda x, low, high: x)
    with pytest.raises(ValueError, match=f"the activation of layer 0 is 'snake', which {reader.name} does not support"):
        READERS[reader](replace(EXAMPLES[0], layers=perceptron(Activation("snake")).layers))


@every_reader
def test_an_unknown_head_is_refused_by_name(reader):
    network = EXAMPLES[0]
    with pytest.raises(ValueError, match=f"the head of the network is 'sample', which {reader.name} does not support"):
        READERS[reader](replace(network, head=replace(network.head, kind="sample")))


# What is declared is computed


def uses(network):
    """Fields that hold more than their default, activations and heads of a network."""
    found = set()

    def look(record):
        for name, default in record_fields(type(record)).items():
            if default is MISSING or not np.array_equal(getattr(record, name), default):
                found.add((type(record), name))
        return record

    for _ in everywhere(network, look):
        pass
    return found | {layer.activation.name for layer in network.layers} | {network.head.kind}


def test_the_examples_use_everything():
    fields = {(record, name) for record in ALL_RECORDS for name in record_fields(record)}
    assert set().union(*map(uses, EXAMPLES)) == fields | set(ACTIVATIONS) | set(HEADS)


def test_actions_depend_on_everything():
    """With a field of some example set to its default, the actions are others, or there are none."""
    fields = [(kind, *item) for kind in ALL_RECORDS for item in record_fields(kind).items()]
    for kind, name, default in fields:
        if default is not MISSING and (kind, name) != (Network, "ranges"):
            changes = ((network, everywhere(network, partial(reset, kind, name, default))) for network in EXAMPLES)
            assert any(differs(network, other) for network, others in changes for _, other in others), (kind, name)


def reset(kind, name, default, record):
    try:
        return put(record, name, default) if type(record) is kind else record
    except ValueError:
        return None


def differs(example, other):
    x = observe(example, 8)
    try:
        other.shapes  # noqa: B018 - raises where something does not fit
        return not np.allclose(reference(other, x), reference(example, x), atol=1e-3)
    except (ValueError, TypeError, AssertionError, AttributeError):
        return True


def reference(network, x):
    return network.head(layer_inputs(network, vector(network, x))[-1])


def assert_close(actions, network, tolerance=1e-5):
    expected = reference(network, observe(network, 8))
    scale = 0 if network.head.kind in ("argmax", "positive") else tolerance * (1 + np.abs(expected).max())
    np.testing.assert_allclose(actions, expected, rtol=0, atol=scale)


@pytest.mark.parametrize("backend", AVAILABLE)
def test_python_backends_compute_it(backend):
    for network in EXAMPLES if backend in EXACT else IN_BYTES:
        policy, x = Policy(network, backend), observe(network, 8)
        for actions in (policy.predict(x)[0], np.stack([policy.predict(row)[0] for row in rows(x)])):
            assert_close(actions, network, 1e-5 if backend in EXACT else 0.03)


def test_int8_computes_it_in_numpy():
    for network in IN_BYTES:
        encoders = {key: partial(int8.simulate_int8, encoder) for key, encoder in network.encoders.items()}
        x = vector(network, observe(network, 8), encoders)
        assert_close(network.head(int8.simulate_int8(replace(network, stack=None), x)), network, 0.03)


def test_the_file_holds_it():
    for network in EXAMPLES:
        assert_close(reference(decode(encode(network)), observe(network, 8)), network)


@pytest.mark.parametrize("form", WEIGHT_FORMS)
def test_onnx_computes_it(form):
    for network in EXAMPLES:
        session = onnxruntime.InferenceSession(to_onnx(network, form=form), providers=["CPUExecutionProvider"])
        _, lstms, units = network.state_shape
        states = dict.fromkeys("hc" if lstms else "", np.zeros((lstms, 8, units), np.float32))
        states |= {} if network.stack is None else {"frames": np.zeros((8, *network.shape), np.float32)}
        x = observe(network, 8)
        inputs = x if network.parts else {"observation": x}
        assert_close(session.run(["action"], {**inputs, **states})[0], network)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler (gcc)")
@pytest.mark.parametrize("code", [FLOAT, INTEGER], ids=["float", "integer"])
def test_c_computes_it(code, tmp_path):
    computed = (network for network in EXAMPLES if code is FLOAT or without_integers(replace(network, stack=None)) is None)
    networks = {f"n{i}": network for i, network in enumerate(computed)}
    assert code is FLOAT or len(networks) == len(EXAMPLES) - 4
    lines = []
    for name, network in networks.items():
        (tmp_path / f"{name}.h").write_text(to_c(network, name=name))
        lines += [f"#define {name.upper()}_INTEGER"] * (code is INTEGER) + [f'#include "{name}.h"']
        given = ends.arguments(network, name)
        state = f"{name}_state state; {name}_reset(&state);" if network.remembers else ""
        call = f"{name}_act({', '.join(['&state'] * network.remembers + [argument.name for argument in given])}, y);"
        lines.append(f"void run_{name}({ends.declare(given, name)}, {name}_action *y) {{ {state} {call} }}")
    source, library = tmp_path / "all.c", tmp_path / "all.so"
    source.write_text("\n".join(lines))
    subprocess.run(["gcc", "-std=c99", "-O1", "-fPIC", "-shared", str(source), "-o", str(library)], check=True)
    functions = ctypes.CDLL(str(library))
    for name, network in networks.items():
        kind = np.int32 if network.head.kind == "argmax" else np.float32
        actions = np.zeros((8, *network.head.shape), kind)
        for row, action in zip(rows(observe(network, 8)), actions, strict=True):
            arrays = (
                [np.int32(array) if array.dtype == np.int64 else array for array in row.values()] if network.parts else [row]
            )
            functions[f"run_{name}"](*(ctypes.c_void_p(array.ctypes.data) for array in (*arrays, action)))
        assert_close(actions, network, 2e-3 if code is INTEGER else 1e-5)


@every_reader
def test_a_gain_is_not_ignored_in_any_layer(reader):
    """The exporter gives one to the first layer only; a file can have more."""
    first, last = EXAMPLES[0].layers
    network = replace(EXAMPLES[0], layers=(first, replace(last, gain=minifloats(12, 2.0))))
    if reader in (FLOAT, INTEGER):
        with pytest.raises(ValueError, match=rf"layer 1 has gain=Minifloats\(\.\.\.\), which {reader.name} does not support"):
            READERS[reader](network)
        return
    READERS[reader](network)
    x = observe(network, 8)
    if reader is INT8:
        assert not int8.in_bytes(network, 1)
        assert_close(network.head(int8.simulate_int8(network, x)), network)
    elif reader is ONNX:
        session = onnxruntime.InferenceSession(to_onnx(network, form="qdq"), providers=["CPUExecutionProvider"])
        assert_close(session.run(["action"], {"observation": x})[0], network)
    else:
        for backend in AVAILABLE:
            assert_close(Policy(decode(encode(network)), backend).predict(x)[0], network)
    with pytest.raises(ValueError, match="a convolution does not have a gain"):
        replace(EXAMPLES[1].layers[0], gain=first.gain).output_shape(EXAMPLES[1].shape)


def test_structs_are_those_of_the_kernels():
    """Names and order of the members, and the numbers of activations, kernels and heads."""
    text = re.sub(r"/\*.*?\*/", "", (Path(structs.__file__).parent / "c/kernels.h").read_text(), flags=re.S)
    for name, struct in (("sb3s_layer", LAYER), ("sb3s_plan", PLAN)):
        body = re.search(rf"typedef struct {{([^}}]*)}} {name};", text)[1]
        members = [
            (member.strip(), "i4" if kind == "int32_t" else "f4")
            for kind, names in re.findall(r"(int32_t|float) ([^;]*);", body)
            for member in names.split(",")
        ]
        assert members == [(member, struct[member].str[1:]) for member in struct.names]
    enums = [[word.strip() for word in body.split(",")] for body in re.findall(r"enum {([^}]*)}", text)]
    activations, kernels, heads = (
        [word.removeprefix("SB3S_").removesuffix("_ACTION").lower() for word in enum] for enum in enums
    )
    assert activations == list(structs.ACTIVATIONS) and heads == list(structs.HEADS)
    assert kernels == [kernel.name.lower() for kernel in Kernel]
