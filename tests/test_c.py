"""
Generated C headers, compiled and run, against the numpy that they must agree with.

All headers are included into one program per compiler and arithmetic, so several together compile as well. What may differ:

- floats: 1e-5 of the largest number that occurs. Sums are added in another order, and there is no libm.
- integers: nothing up to the last layer where all hidden layers have a ReLU, for that is integer arithmetic to the bit. After
  another activation, which is computed in float, a number may be rounded to the neighbouring one of its 16-bit steps.
- vector registers: a number may be rounded to the neighbouring one of 256 steps, as said in the header: 0.03 of the largest
  action. AVX-512 VBMI, AVX2 and NEON, which QEMU runs, give the same actions to the bit.
"""

import platform
import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.envs import FakeImageEnv

from benchmarks.deployment import neon
from sb3_sparse.export import compress
from sb3_sparse.export.c.header import to_c
from sb3_sparse.export.c.integer.constants import integer_layers, without_integers
from sb3_sparse.export.c.integer.simulation import simulate_integers
from sb3_sparse.export.passes import round_biases, round_weights
from sb3_sparse.runtime import Policy
from sb3_sparse.runtime.backends import int8
from sb3_sparse.runtime.backends.families import FAMILIES
from sb3_sparse.runtime.network.capabilities import unknown
from sb3_sparse.runtime.network.records import ACTIVATIONS, Activation, Head, Layer, Network, Norm, Normalize, Pool
from sb3_sparse.runtime.network.reference import layer_inputs
from tests.networks import with_grids

GCC, CLANG, GXX = (shutil.which(name) for name in ("gcc", "clang", "g++"))
pytestmark = pytest.mark.skipif(GCC is None, reason="there is no C compiler (gcc)")

CPU = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
#: Options of the compiler for each family of vector registers.
FLAGS = {
    "vbmi": ["-march=native"],
    "avx2": ["-mavx2", "-mfma"],
    "neon": ["-static", "-march=armv8-a"],
    "neon, dotprod": ["-static", "-march=armv8.2-a+dotprod"],
}
NEEDS = {"vbmi": ("avx512_vnni", "avx512bw", "avx512vbmi"), "avx2": ("avx2", "fma")}
HOST = [mode for mode, needs in NEEDS.items() if all(flag in CPU for flag in needs)]
#: Of several, the first stands for all.
MODES = [
    "float",
    "integer",
    *(HOST[:1] or [pytest.param("vbmi", marks=pytest.mark.skip(reason=f"the CPU has none of {[*NEEDS]}"))]),
]
needs_arm = pytest.mark.skipif(
    not shutil.which(neon.COMPILER) or not shutil.which(neon.EMULATOR), reason=f"no {neon.COMPILER} or {neon.EMULATOR} here"
)
COMPILERS = ["gcc", pytest.param("clang", marks=pytest.mark.skipif(CLANG is None, reason="there is no clang"))]
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
SANITIZERS = ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]

INF = np.inf
BOUNDS = np.array([[-1, -2, 0.5], [1, 0.5, 3]], np.float32)
SAME, INFINITE = np.full(3, 1.5, np.float32), np.full(3, INF, np.float32)
HEADS = {
    "unscale": Head("unscale", (3,), *BOUNDS),
    "unscale_same": Head("unscale", (3,), -SAME, 2 * SAME),
    "unscale_unit": Head("unscale", (3,), -np.ones(3, np.float32), np.ones(3, np.float32)),
    "clip": Head("clip", (3, 1), *BOUNDS),
    "clip_same": Head("clip", (3,), -SAME, SAME),
    "clip_half": Head("clip", (3,), np.array([-INF, -0.1, -INF], np.float32), np.array([INF, INF, 0.1], np.float32)),
    "clip_below": Head("clip", (3,), -SAME, INFINITE),
    "unbounded": Head("clip", (3,), -INFINITE, INFINITE),
    "discrete": Head("argmax", (), groups=(5,)),
    "multi_discrete": Head("argmax", (3,), groups=(3, 1, 5)),
    "binary": Head("positive", (2, 2)),
}
UNBOUNDED = HEADS["unbounded"]


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def linear(rng, outputs, inputs, activation="identity", density=0.5):
    weight = normal(rng, outputs, inputs) * np.float32((inputs * density) ** -0.5) * (rng.random((outputs, inputs)) < density)
    low, high = {"clip": (-0.5, 0.75), "leaky_relu": (0.1, 0.0), "elu": (0.8, 0.0)}.get(activation, (0.0, 0.0))
    return Layer(weight, normal(rng, outputs) / 2, Activation(activation, low, high))


def perceptron(head=UNBOUNDED, activation="relu", bits=8, sizes=(8, 24, 16), normalize=None, density=0.5):
    """A network with a calibration; ``sizes`` are those before the head."""
    rng = np.random.default_rng(0)
    layers = [linear(rng, *pair, activation, density) for pair in zip(sizes[1:], sizes, strict=False)]
    layers.append(linear(rng, head.inputs, sizes[-1], "tanh" if head.kind == "unscale" else "identity", density))
    network = Network(sizes[:1], False, normalize, tuple(layers), head)
    return network if bits == 32 else round_biases(round_weights(network, bits, observe(network, 64)))


def convolutions(activation, *, normalize=False):
    rng = np.random.default_rng(3)
    first = Layer(normal(rng, 5, 3, 3, 2) / 255, normal(rng, 5), Activation(activation), stride=(2, 1))
    second = Layer(normal(rng, 4, 5, 2, 2) / 4, normal(rng, 4), Activation(activation))
    layers = (first, second, linear(rng, 5, 4 * 3 * 5))
    network = Network((3, 9, 7), True, None, layers, HEADS["discrete"])
    if normalize:
        statistics = Normalize(*(rng.random((2, 3, 9, 7)).astype(np.float32) * 100 + 1), 10.0)
        network = replace(network, normalize=replace(statistics, scale=1 / statistics.scale))
    return round_biases(round_weights(network, 8, observe(network, 16)))


def windows(activation, *, residual=False, mean=False, bits=8):
    """Padded convolutions with pools, and between them a residual block or two layers of the same size."""
    rng = np.random.default_rng(3)

    def convolution(outputs, inputs, kernel=3, **kwargs):
        weight = normal(rng, outputs, inputs, kernel, kernel) / (kernel * inputs**0.5)
        return Layer(weight, normal(rng, outputs) / 2, **{"activation": Activation(activation), "padding": (1, 1), **kwargs})

    layers = [
        convolution(4, 3, padding=(1, 2), pool=Pool((3, 2), (2, 2), (1, 1), mean)),
        convolution(6, 4, rectify=residual),
        convolution(4, 6, residual=residual, pool=Pool((2, 3), (1, 2), (1, 0), mean)),
        convolution(5, 4, kernel=2, stride=(2, 1), padding=(0, 1)),
    ]
    layers[0] = replace(layers[0], weight=layers[0].weight / 100)
    shape = (3, 9, 7)
    for layer in layers:
        shape = layer.output_shape(shape)
    network = Network((3, 9, 7), True, None, (*layers, linear(rng, 3, int(np.prod(shape)))), UNBOUNDED)
    return network if bits == 32 else round_biases(round_weights(network, bits, observe(network, 16)))


def normed(bits=8):
    """A vector that is read as a signal; layer norms in a convolution and in a linear layer, and a slope for each channel."""
    rng = np.random.default_rng(6)
    slopes = Activation("prelu", slopes=np.linspace(-0.3, 1.2, 5, dtype=np.float32))
    first = Layer(normal(rng, 5, 3, 1, 4) / 3, normal(rng, 5), slopes, stride=(1, 2), padding=(0, 1))
    first = replace(first, norm=Norm(1e-5, *normal(rng, 2, 5, 1, 10)), pool=Pool((1, 3), (1, 2), mean=True))
    second = replace(linear(rng, 16, 20, "silu"), norm=Norm(1e-2, *normal(rng, 2, 16)))
    network = Network((60,), False, None, (first, second, linear(rng, 3, 16)), UNBOUNDED, view=(3, 1, 20))
    return network if bits == 32 else round_biases(round_weights(network, bits, observe(network, 64)))


def with_slopes(network):
    """A slope for each unit or channel in each hidden layer."""
    layers = list(network.layers)
    for index, layer in enumerate(layers[:-1]):
        layers[index] = replace(
            layer, activation=Activation("prelu", slopes=np.linspace(-0.5, 1, layer.outputs, dtype=np.float32))
        )
    inputs = layer_inputs(network := replace(network, layers=tuple(layers)), observe(network, 64))[:-1]
    gains = [1 if layer.gain is None else layer.gain.values for layer in network.layers]
    return replace(network, ranges=tuple(float(np.abs(x * gain).max()) for x, gain in zip(inputs, gains, strict=True)))


def with_float_scales(network, *, same):
    """As quantization-aware training leaves it: a float scale for each layer, or for each row."""
    layers = []
    for layer in network.layers:
        scale = np.full(layer.outputs, np.median(layer.scales), np.float32) if same else layer.scales * np.float32(1.01)
        layers.append(replace(layer, scale=scale, gain=None))
    network = replace(network, layers=tuple(layers))
    inputs = layer_inputs(network, observe(network, 64))[:-1]
    return replace(network, ranges=tuple(float(np.abs(x).max()) for x in inputs))


def with_rows_of(counts, inputs):
    """A network whose first layer has rows with these numbers of weights."""
    rng = np.random.default_rng(4)
    first = linear(rng, len(counts), inputs, "relu", density=1.0)
    weight = first.weight * (np.arange(inputs) < np.array(counts)[:, None])
    network = Network((inputs,), False, None, (replace(first, weight=weight), linear(rng, 3, len(counts))), UNBOUNDED)
    return round_biases(round_weights(network, 8, observe(network, 64)))


def mixed(network, other):
    """The first layer of one, and the others of another."""
    inputs = layer_inputs(replace(network, layers=(network.layers[0], *other.layers[1:])), observe(network, 64))[:-1]
    ranges = tuple(float(np.abs(x).max()) for x in inputs)
    return replace(network, layers=(network.layers[0], *other.layers[1:]), ranges=(network.ranges[0], *ranges[1:]))


def rounded(network, bits):
    """The network as one whose activations training has rounded, with one scale for each linear layer, and no calibration."""
    layers = (replace(layer, gain=None) for layer in network.layers)
    network = replace(network, layers=tuple(layers), ranges=None)
    return with_grids(network, observe(network, 64), bits, first=not network.image)


def partly(network):
    """Every second layer rounds its inputs, and the ranges of the others come from a calibration."""
    layers = (layer if index % 2 else replace(layer, grid=None) for index, layer in enumerate(network.layers))
    network = replace(network, layers=tuple(layers))
    inputs = layer_inputs(network, observe(network, 64))[:-1]
    return replace(network, ranges=tuple(float(np.abs(x).max()) for x in inputs))


def without_weights(network):
    """Its hidden layer has lost all its units but one that is not fed."""
    first, last = network.layers[0], network.layers[-1]
    one = replace(first, weight=np.zeros_like(first.weight[:1]), bias=first.biases[:1], scale=first.scales[:1])
    last = replace(last, weight=np.zeros_like(last.weight[:, :1]), bias=last.biases)
    return replace(network, layers=(one, last), ranges=(network.ranges[0], network.ranges[-1]))


def nature_cnn():
    """A DQN agent for images, with 1 % of its weights."""
    env = FakeImageEnv(screen_height=84, screen_width=84, n_channels=4, channel_first=True, discrete=True)
    env.action_space = spaces.Discrete(6)
    model = DQN("CnnPolicy", env, buffer_size=1, seed=0, device="cpu")
    rng = np.random.default_rng(0)
    for parameter in model.q_net.parameters():
        if parameter.ndim > 1:
            parameter.data[np.nonzero(rng.random(parameter.shape) > 0.01)] = 0
            # What is left decides, not the biases.
            parameter.data *= 10
    model.q_net.q_net[-1].weight.data *= 100
    return compress(model, calibration=np.stack([env.observation_space.sample() for _ in range(4)])).network


@cache
def networks():
    """By name, everything that a header can hold."""
    rng = np.random.default_rng(2)
    statistics = [Normalize(normal(rng, 8), rng.random(8).astype(np.float32) + 0.1, limit) for limit in (0.5, INF)]
    found = {f"hidden_{activation}": perceptron(activation=activation) for activation in ACTIVATIONS if activation != "prelu"}
    found |= {head: perceptron(HEADS[head]) for head in HEADS}
    found |= {f"bits{bits}": perceptron(HEADS["unscale"], "tanh", bits) for bits in (2, 4, 32)}
    found |= {f"float_{head}": perceptron(HEADS[head], "silu", 32) for head in ("discrete", "clip_half")}
    found |= {f"normalize{i}": perceptron(HEADS["clip"], normalize=each) for i, each in enumerate(statistics)}
    found |= {f"one_layer_{head}": perceptron(HEADS[head], sizes=(8,)) for head in ("clip", "multi_discrete")}
    found |= {
        f"deep_{activation}": perceptron(HEADS["unscale"], activation, sizes=(8, 16, 20, 24))
        for activation in ("relu", "tanh")
    }
    dense, sparse = {"sizes": (17, 64, 48), "density": 1.0}, {"sizes": (60, 80, 61), "density": 0.15}
    found |= {f"dense{bits}": perceptron(HEADS["unscale"], bits=bits, **dense) for bits in (2, 3, 4, 5, 6, 8, 32)}
    found |= {f"sparse{bits}": perceptron(HEADS["discrete"], bits=bits, **sparse) for bits in (2, 4)}
    found |= {f"bytes{bits}": perceptron(HEADS["unscale"], bits=bits, **dense) for bits in (2,)}
    found["mixed"] = mixed(perceptron(bits=8, **dense), perceptron(bits=4, **dense))
    found["packed_tanh"] = perceptron(HEADS["clip"], "tanh", 3, **dense)
    found["packed_per_row"] = with_float_scales(perceptron(bits=4, **dense), same=False)
    found["packed_wide"] = perceptron(bits=4, sizes=(300, 40, 16), density=0.1)
    found["wide_input"] = perceptron(sizes=(300, 24, 16), density=0.1)
    found["long_runs"] = with_rows_of([1] * 300 + [0] * 260 + [1], 8)
    found["wide_hidden"] = perceptron(sizes=(8, 520, 24), density=0.2)
    found["long_rows"] = with_rows_of([256, 255, 257, 300, 0, 1, 256], 300)
    found["empty_rows"] = with_rows_of([0, 0, 3, 0, 2], 8)
    found["no_weights"] = without_weights(perceptron(sizes=(8, 16)))
    found["per_tensor"] = with_float_scales(perceptron(HEADS["unscale"]), same=True)
    found["per_tensor_tanh"] = with_float_scales(perceptron(activation="tanh"), same=True)
    found["conv_relu"], found["conv_silu"] = convolutions("relu"), convolutions("silu")
    found["conv_normalize"] = convolutions("relu", normalize=True)
    found["conv_per_channel"] = with_float_scales(convolutions("relu"), same=False)
    found |= {f"windows_{activation}": windows(activation) for activation in ("relu", "silu")}
    found |= {f"residual_{activation}": windows(activation, residual=True) for activation in ("relu", "tanh")}
    found["residual_float"] = windows("identity", residual=True, bits=32)
    found |= {f"means_{activation}": windows(activation, mean=True) for activation in ("relu", "tanh")}
    found |= {f"normed{bits}": normed(bits) for bits in (8, 32)}
    found |= {"slopes": with_slopes(perceptron()), "conv_slopes": with_slopes(windows("relu"))}
    found["nature_cnn"] = nature_cnn()
    found |= {f"rounded_{activation}": rounded(perceptron(HEADS["unscale"], activation), 4) for activation in ("relu", "tanh")}
    found["rounded_wide"] = rounded(perceptron(sizes=(40, 520, 24), density=0.2), 8)
    found["rounded_per_tensor"] = rounded(with_float_scales(found["deep_relu"], same=True), 8)
    found |= {f"rounded_conv_{activation}": rounded(convolutions(activation), 8) for activation in ("relu", "silu")}
    found["rounded_windows"] = rounded(windows("relu"), 8)
    found["partly_rounded"] = partly(found["rounded_per_tensor"])
    return found


def in_mode(mode):
    """The networks that a header has this arithmetic for."""
    quantized = {name: network for name, network in networks().items() if network.layers[0].quantized}
    if mode == "integer":
        return {name: network for name, network in quantized.items() if without_integers(network) is None}
    return networks() if mode == "float" else {name: each for name, each in quantized.items() if not unknown(each, int8.INT8)}


def observe(network, count):
    """Observations of ordinary size."""
    rng = np.random.default_rng(1)
    if network.image:
        return rng.integers(0, 256, (count, *network.shape)).astype(np.float32)
    return normal(rng, count, *network.shape) * rng.choice([0.3, 1, 3], (count, 1)).astype(np.float32)


@cache
def observations(name):
    """Ordinary observations, and extreme ones: huge, infinite and no numbers; and how many are ordinary."""
    network = networks()[name]
    count = 3 if name == "nature_cnn" else 200
    ordinary = observe(network, count)
    if network.image:
        return np.concatenate([ordinary, np.zeros_like(ordinary[:1]), np.full_like(ordinary[:1], 255)]), count + 2
    rng = np.random.default_rng(5)
    values = np.array([0, -0.0, 1e-40, 1e3, -1e6, 1e12, -1e30, 3.4e38, INF, -INF, np.nan], np.float32)
    extreme = np.concatenate([rng.choice(values, (100, *network.shape)), np.full((1, *network.shape), np.nan)])
    return np.concatenate([ordinary, extreme.astype(np.float32)]), count


MAIN = """
#include <stdio.h>
#define RUN(name, inputs, actions)                                                             \\
    {                                                                                          \\
        static name##_observation x[inputs];                                                   \\
        static name##_action y[actions];                                                       \\
        int i, n, failures = name##_self_test();                                               \\
        fwrite(&failures, sizeof failures, 1, stdout);                                         \\
        if (fread(&n, sizeof n, 1, stdin) != 1) return 1;                                      \\
        for (; n != 0; n--) {                                                                  \\
            if (fread(x, sizeof x, 1, stdin) != 1) return 1;                                   \\
            name##_act(x, y);                                                                  \\
            for (i = 0; i < actions; i++) {                                                    \\
                const float action = (float)y[i];                                              \\
                fwrite(&action, sizeof action, 1, stdout);                                     \\
            }                                                                                  \\
        }                                                                                      \\
    }
int main(void) {
@RUNS@
    return 0;
}
"""


@pytest.mark.parametrize("level", ["-O0", "-O1", "-O2", "-O3"])
def test_no_warnings_at_any_level(level, tmp_path):
    """What a compiler finds out about variables depends on how much it optimizes."""
    for head, flag in product(("discrete", "multi_discrete"), ("", "-DPOLICY_INTEGER")):
        (tmp_path / "policy.h").write_text(to_c(perceptron(HEADS[head], sizes=(8, 16))))
        (tmp_path / "main.c").write_text('#define POLICY_MAIN\n#include "policy.h"\n')
        for compiler in ("gcc", CLANG):
            if compiler is not None:
                flags = [level, *WARNINGS, *filter(None, [flag])]
                run(compiler, "-std=c99", *flags, "-c", "main.c", "-o", "main.o", cwd=tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where all headers are."""
    folder = tmp_path_factory.mktemp("headers")
    for name, network in networks().items():
        (folder / f"{name}.h").write_text(to_c(network, name=name, pack=not name.startswith("bytes")))
    return folder


def run(*command, **kwargs):
    result = subprocess.run([str(part) for part in command], capture_output=True, **kwargs)
    assert result.returncode == 0, result.stderr.decode()[:3000]
    return result.stdout


def includes(mode, names):
    lines = []
    for name in names:
        lines += [f"#define {name.upper()}_{macro(mode)}"] * (mode != "float")
        lines += [f"#define {name.upper()}_SELF_TEST", f'#include "{name}.h"']
    return "\n".join(lines)


def macro(mode):
    return "SIMD" if mode in FLAGS else mode.upper()


def flags(mode):
    return FLAGS.get(mode, [])


def command(mode, program):
    return [neon.EMULATOR, "-cpu", "max", program] if mode.startswith("neon") else [program]


def answers(folder, mode, compiler, *options, suffix="c"):
    """What the self test of each network says, and its actions, of one program with all of them."""
    runs = [
        f"    RUN({name}, {np.prod(network.shape)}, {int(np.prod(network.head.shape))})"
        for name, network in in_mode(mode).items()
    ]
    source, program = folder / f"main.{suffix}", folder / "main"
    source.write_text(includes(mode, in_mode(mode)) + MAIN.replace("@RUNS@", "\n".join(runs)))
    run(compiler, *WARNINGS, *flags(mode), *options, source, "-o", program)
    data = b""
    for name, network in in_mode(mode).items():
        batch = observations(name)[0]
        data += len(batch).to_bytes(4, "little") + batch.astype(np.uint8 if network.image else np.float32).tobytes()
    output = run(*command(mode, program), input=data, env={"ASAN_OPTIONS": "detect_leaks=0"})
    failures, actions = {}, {}
    for name, network in in_mode(mode).items():
        count = len(observations(name)[0])
        size = 4 * count * int(np.prod(network.head.shape))
        failures[name] = int.from_bytes(output[:4], "little")
        actions[name] = np.frombuffer(output[4 : 4 + size], np.float32).reshape(count, *network.head.shape)
        output = output[4 + size :]
    assert not output
    return failures, actions


def steps(network):
    """How much the outputs change where every number that is rounded after a float activation is off by one step."""
    constants, change = integer_layers(network), np.zeros(1, np.float32)
    for index, layer in enumerate(network.layers):
        dense = np.abs(layer.dense())
        if not change.any():
            change = np.zeros(layer.outputs, np.float32)
        elif layer.convolution:
            # A pool passes on no more than the largest change.
            change = dense.sum(axis=(2, 3)) @ change
        else:
            # A linear layer after a convolution has a column for each place.
            change = dense @ np.repeat(change, dense.shape[1] // len(change))
        if not constants[index].factor and index + 1 < len(constants):
            # No activation is steeper than this. A step of training is so wide that none of these sums lies at its border.
            change = 1.3 * change + (constants[index + 1].unit if network.layers[index + 1].grid is None else 0)
    return change


@cache
def expected(name, mode):
    """Outputs before the head, how far they may be off, and whether the observation is compared at all."""
    network, (batch, ordinary) = networks()[name], observations(name)
    compared = np.arange(len(batch)) < ordinary
    with np.errstate(all="ignore"):
        if mode == "integer":
            # To the bit, whatever comes.
            outputs = simulate_integers(network, batch)
            return outputs, 1e-5 * (1 + np.abs(outputs)) + steps(network), np.ones(len(batch), bool)
        inputs = layer_inputs(network, batch)
        if mode in FLAGS:
            outputs = int8.simulate_int8(network, batch)
            return outputs, 0.03 * (1 + np.abs(outputs).max(axis=1, keepdims=True)) + 0 * outputs, compared
        largest = np.max([np.abs(x).reshape(len(batch), -1).max(axis=1) for x in inputs[1:]], axis=0)
        return inputs[-1], 1e-5 * (1 + largest[:, None]) + 0 * inputs[-1], compared


def assert_agrees(name, mode, actions):
    network = networks()[name]
    outputs, tolerance, compared = expected(name, mode)
    with np.errstate(all="ignore"):
        wanted = Policy(network, "numpy").predict(observations(name)[0])[0] if mode == "float" else network.head(outputs)
    if network.head.kind == "argmax":
        # Where two are equally good, either may be taken.
        for group in np.split(outputs, np.cumsum(network.head.groups)[:-1], axis=1):
            best = np.sort(group, axis=1)
            compared = compared & ((best[:, -1] - best[:, -2] > 2 * tolerance.max(axis=1)) if best.shape[1] > 1 else True)
        np.testing.assert_array_equal(actions[compared], wanted[compared], name)
    elif network.head.kind == "positive":
        sure = (np.abs(outputs) > tolerance) & compared[:, None]
        np.testing.assert_array_equal(actions.reshape(sure.shape)[sure], wanted.reshape(sure.shape)[sure], name)
        compared = sure.all(axis=1)
    else:
        stretch = (network.head.high - network.head.low).max() / 2 if network.head.kind == "unscale" else 1
        with np.errstate(all="ignore"):
            off = np.abs(actions - wanted).reshape(outputs.shape) / stretch - tolerance
        off[actions.reshape(outputs.shape) == wanted.reshape(outputs.shape)] = 0
        assert (off[compared] <= 0).all(), f"{name}: {off[compared].max()} beyond the tolerance"
    assert compared.sum() > 0.5 * observations(name)[1], name
    # As long as nothing overflows, what was a number does not become none.
    finite = (np.abs(observations(name)[0]).reshape(len(actions), -1) <= 1e30).all(axis=1)
    assert not (np.isnan(actions) & ~np.isnan(wanted))[finite].any(), name


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("mode", MODES)
def test_agrees_with_numpy(folder, mode, compiler):
    """All headers in one program, without libm; their own self tests, then a few hundred observations."""
    failures, actions = answers(folder, mode, compiler, "-std=c99", "-O2")
    assert not any(failures.values()), failures
    for name in in_mode(mode):
        assert_agrees(name, mode, actions[name])


@pytest.fixture(scope="module")
def wanted(folder):
    """The actions of the first family."""
    if not HOST:
        pytest.skip("the CPU has no vector registers to compare with")
    return answers(folder, HOST[0], "gcc", "-std=c99", "-O2")[1]


@pytest.mark.parametrize("mode", [*HOST[1:], *(pytest.param(mode, marks=needs_arm) for mode in FLAGS if "neon" in mode)])
def test_vector_registers_agree_to_the_bit(folder, wanted, mode):
    """Of observations that are not extreme."""
    failures, actions = answers(folder, mode, neon.COMPILER if "neon" in mode else "gcc", "-std=c99", "-O2")
    assert not any(failures.values()), failures
    for name in in_mode(mode):
        ordinary = observations(name)[1]
        np.testing.assert_array_equal(actions[name][:ordinary], wanted[name][:ordinary], name)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_behaviour_is_defined_whatever_comes(folder, mode):
    failures, actions = answers(folder, mode, "gcc", "-std=c99", "-O1", *SANITIZERS)
    assert not any(failures.values()), failures
    for name in in_mode(mode):
        assert_agrees(name, mode, actions[name])


def test_integers_stay_close_to_floats():
    """Within the range of the calibration, which these observations are from."""
    for name, network in in_mode("integer").items():
        batch = observe(network, 16)
        outputs = layer_inputs(network, batch)[-1]
        error = np.abs(simulate_integers(network, batch) - outputs).max() / (1 + np.abs(outputs).max())
        assert error < 1e-3, name


@pytest.mark.skipif(GXX is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("mode", MODES[:2])
def test_compiles_as_cpp(folder, mode):
    failures, _ = answers(folder, mode, "g++", "-std=c++11", "-O0", suffix="cpp")
    assert not any(failures.values()), failures


@pytest.mark.parametrize("mode", MODES)
def test_needs_no_library(folder, mode):
    calls = [
        f"void call_{name}(const {name}_observation *x, {name}_action *y) {{ {name}_act(x, y); }}" for name in in_mode(mode)
    ]
    source, unit = folder / "calls.c", folder / "calls.o"
    source.write_text("\n".join([includes(mode, in_mode(mode)), *calls]))
    run("gcc", "-std=c99", "-O2", "-fno-stack-protector", *flags(mode), "-c", source, "-o", unit)
    undefined = {line.split()[-1] for line in run("nm", "-u", unit).decode().splitlines()}
    # What a compiler makes of loops that copy or fill.
    assert undefined <= (set() if mode == "integer" else {"memcpy", "memmove", "memset"})


def self_test(header, mode, *options):
    """By the command that the header names; its exit code."""
    program = header.with_suffix("")
    macros = ["-DPOLICY_MAIN", *([f"-DPOLICY_{macro(mode)}"] if mode != "float" else [])]
    compiler = neon.COMPILER if mode.startswith("neon") else "gcc"
    run(compiler, "-std=c99", "-O2", "-x", "c", *macros, *flags(mode), *options, header, "-o", program)
    return subprocess.run(command(mode, program), capture_output=True).returncode


@pytest.mark.parametrize("mode", [*MODES, *HOST[1:], pytest.param("neon", marks=needs_arm)])
def test_self_test(tmp_path, mode):
    """Passes, with the buffers on the stack as well; fails if a single weight is another."""
    network, header = perceptron(HEADS["unscale"]), tmp_path / "policy.h"
    text = to_c(network)
    header.write_text(text)
    assert self_test(header, mode) == 0
    assert self_test(header, mode, "-DPOLICY_STORAGE=") == 0
    # A weight of the last layer; in bytes it stands before the end mark of the layer, in the plan somewhere among others.
    table, position = {"float": ("weights2", -1), "integer": ("layers", -3)}.get(mode, ("plan", -1))
    weight = int(network.layers[-1].weight[-1][np.flatnonzero(network.layers[-1].weight[-1])[-1]])
    # Plans are in the order of the families.
    matches = list(re.finditer(rf"policy_{table}\[\][^{{]*{{([^}}]*)}}", text))
    match = matches[[*FAMILIES].index(mode.split(",")[0]) if mode in FLAGS else 0]
    numbers = match[1].replace("\n", " ").split(",")
    if mode in FLAGS:
        # Four bytes a number.
        plan = np.array(numbers, "<u4").view(np.uint8)
        plan[np.flatnonzero(plan == weight % 256)[-1]] = -weight % 256
        numbers = [str(number) for number in plan.view("<u4")]
    else:
        assert int(numbers[position]) % 256 == weight % 256
        numbers[position] = str(-weight if mode == "float" else -weight % 256)
    header.write_text(text[: match.start(1)] + ",".join(numbers) + text[match.end(1) :])
    assert self_test(header, mode) == 1


@pytest.mark.skipif("vbmi" not in HOST, reason="the CPU has no AVX-512 VBMI")
def test_the_macro_of_before_still_works(tmp_path):
    """Alone, and where both are defined."""
    header, flag = tmp_path / "policy.h", "-DPOLICY_VBMI"
    header.write_text(to_c(perceptron(HEADS["unscale"])))
    expected = re.search(r"POLICY_TOLERANCE (\S+)", header.read_text())[1]
    for mode, options in (("float", [flag, *FLAGS["vbmi"]]), ("vbmi", [flag])):
        assert self_test(header, mode, *options) == 0
        macros = run("gcc", "-E", "-dM", "-x", "c", *flags(mode), *options, "-DPOLICY_SELF_TEST", header).decode()
        # The first tolerance in the file is that of 8-bit activations.
        assert f"#define POLICY_TOLERANCE {expected}\n" in macros and "#define SB3S_VBMI" in macros


def test_what_is_not_there_says_so(tmp_path):
    """Integers without calibration or of residual layers, vectors of float weights or for no family: not at run time."""
    (tmp_path / "stream.h").write_text(to_c(windows("relu", residual=True)))
    (tmp_path / "plain.h").write_text(to_c(perceptron()))
    (tmp_path / "float.h").write_text(to_c(perceptron(bits=32)))
    (tmp_path / "guessed.h").write_text(to_c(replace(perceptron(), ranges=None)))
    (tmp_path / "short.h").write_text(to_c(perceptron(), simd=False))
    cases = [
        ("short", "SIMD"),
        ("float", "SIMD"),
        ("float", "VBMI"),
        ("float", "INTEGER"),
        ("guessed", "INTEGER"),
        ("stream", "INTEGER"),
    ]
    # Of a compiler for any x86 processor.
    cases += [("plain", "SIMD"), ("plain", "VBMI")] * (platform.machine() == "x86_64")
    for name, arithmetic in cases:
        arguments = ["gcc", "-x", "c", f"-DPOLICY_{arithmetic}", "-fsyntax-only", str(tmp_path / f"{name}.h")]
        result = subprocess.run(arguments, capture_output=True, text=True)
        assert result.returncode != 0 and "error: #error" in result.stderr
        assert ("has residual=True, which the integer code of a C header" in result.stderr) == (name == "stream")
        assert ("need AVX-512 VBMI and VNNI, or AVX2 and FMA, or NEON of 64-bit ARM" in result.stderr) == (name == "plain")
        assert ("exported with simd=False" in result.stderr) == (name == "short")


@pytest.mark.skipif(GXX is None, reason="there is no C++ compiler")
def test_simd_in_cpp_says_that_it_is_c(tmp_path):
    (tmp_path / "policy.h").write_text(to_c(perceptron()))
    command = ["g++", "-x", "c++", "-DPOLICY_SIMD", "-fsyntax-only", str(tmp_path / "policy.h")]
    assert "the code for SIMD registers is C: compile it" in subprocess.run(command, capture_output=True, text=True).stderr


def test_what_simd_does_not_support_says_what_to_do():
    """In the words of a header, not of a backend."""
    network = perceptron()
    first = replace(network.layers[0], norm=Norm(1e-5, np.ones(24, np.float32), np.zeros(24, np.float32)))
    text = to_c(replace(network, layers=(first, *network.layers[1:]), ranges=None))
    assert "which the code for SIMD registers does not support: leave the macro out" in text and "backend=" not in text


@pytest.mark.parametrize("mode", ["float", "integer"])
def test_a_header_without_simd_is_the_same_policy_in_less_text(tmp_path, mode):
    long, short = to_c(perceptron()), to_c(perceptron(), simd=False)
    assert len(short) < len(long) / 2 and "SB3S_VBMI" not in short
    (tmp_path / "short.h").write_text(short)
    assert self_test(tmp_path / "short.h", mode) == 0


def test_refuses_what_c_cannot_hold():
    network = perceptron()
    for name in ("Policy", "2nd", "a-b", "", "sb3s"):
        with pytest.raises(ValueError, match="must be a C identifier"):
            to_c(network, name=name)
    low = np.array([np.nan, 0, 0], np.float32)
    with pytest.raises(ValueError, match="NaN"):
        to_c(replace(network, head=Head("clip", (3,), low, low + 1)))
