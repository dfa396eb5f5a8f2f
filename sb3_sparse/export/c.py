"""
One C99 header with a policy: tables, code, test vectors and a self test.

Three arithmetics in the same file. W8A32: 8-bit weights, float activations, as the Python backends compute. W8A16:
integers alone between the observation and the last layer, for processors without a floating-point unit
(:mod:`~sb3_sparse.export.integer`); a hidden activation other than ReLU is computed in float. VBMI: the AVX-512 kernels
of the runtime, with 8-bit hidden activations.
"""

import re
from importlib import import_module
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.export import c_text as text
from sb3_sparse.export.c_layers import Tables, activation, fill, float_call, integer_call, literal
from sb3_sparse.export.integer import IntegerLayer, integer_layers, simulate, simulate_bytes
from sb3_sparse.runtime import plan
from sb3_sparse.runtime.records import Floats, Network
from sb3_sparse.runtime.reference import layer_inputs

_KERNELS = Path(plan.__file__).parent / "c"
#: Number of test vectors.
_VECTORS = 8


def to_c(network: Network, *, name: str = "policy") -> str:
    """
    :param network: A network, quantized or float.
    :param name: What functions, types and (in capitals) macros begin with.
    :return: The text of the header
    :raises ValueError: if the name is no C identifier, or a convolution has padding
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"name='{name}' must be a C identifier in small letters")
    if any(any(layer.padding) for layer in network.layers):
        raise ValueError("a convolution with padding cannot be written in C yet; the compact file and ONNX hold it")
    upper = name.upper()
    quantized = all(layer.quantized for layer in network.layers)
    integers = integer_layers(network) if quantized and network.ranges is not None else None
    parts = _parts(network, name, quantized=quantized, integers=integers is not None)
    no_integers = '#error "exported without calibration or with float weights: there are no integers in this file"'
    return "\n".join(
        [
            fill(text.HEADER, parts),
            (_KERNELS / "activations.h").read_text(),
            f"#if defined({upper}_VBMI)\n",
            _vbmi(network, name) if quantized else '#error "exported with float weights: no VBMI"',
            f"\n#elif defined({upper}_INTEGER)\n",
            no_integers if integers is None else _integer_code(network, name, integers),
            "\n#else\n",
            _float_code(network, name),
            "\n#endif",
            fill(
                text.SELF_TEST,
                {**parts, "VECTORS": _vectors(network, name, quantized=quantized, integers=integers is not None)},
            ),
        ]
    )


def _parts(network: Network, name: str, *, quantized: bool, integers: bool) -> dict[str, object]:
    weights = sum(int(np.count_nonzero(layer.weight)) for layer in network.layers)
    return {
        "NAME": name,
        "UPPER": name.upper(),
        "VERSION": import_module("sb3_sparse").__version__,
        "SUMMARY": f"{len(network.layers)} layers, {weights} weights.",
        "INPUTS": prod(network.shape),
        "ORDER": f", in the order {'x'.join(map(str, network.shape))}" if len(network.shape) > 1 else "",
        "ACTIONS": prod(network.head.shape),
        "DEFAULT": f"{'8-bit' if quantized else 'float'} weights, float activations",
        "INTEGER": "      "
        + ("the hidden layers in integers: 8-bit weights, 16-bit activations" if integers else "not in this file"),
        "VBMI": "         " + ("AVX-512 VBMI (-march=native): 8-bit hidden activations" if quantized else "not in this file"),
        "OBSERVATION": "uint8_t" if network.image else "float",
        "ACTION": "int32_t" if network.head.kind == "argmax" else "float",
        "COUNT": _VECTORS,
    }


def _float_code(network: Network, name: str) -> str:
    tables, shapes = Tables(name), network.shapes
    gain = network.layers[0].gain
    code = [f"for (i = 0; i < {prod(network.shape)}; i++) {{", *_input(network, tables)]
    code += [f"    a[i] = v{'' if gain is None else ' * ' + literal(gain.unit)};", "}"]
    for index, layer in enumerate(network.layers):
        x, y = ("a", "b") if index % 2 == 0 else ("b", "a")
        code.append(float_call(tables, index, layer, shapes[index], x, y))
        if layer.activation.name != "identity":
            code += [f"for (i = 0; i < {prod(shapes[index + 1])}; i++) {{", f"    const float v = {y}[i];"]
            code += [f"    {y}[i] = {activation(layer.activation)};", "}"]
    code += _head(network, tables, [f"float v = {y}[@I@];"])
    sizes = [max([1, *map(prod, shapes[parity::2])]) for parity in (0, 1)]
    return _function(network, name, tables, [f"float a[{sizes[0]}], b[{sizes[1]}];"], code)


def _integer_code(network: Network, name: str, constants: list[IntegerLayer]) -> str:
    tables, shapes = Tables(name), network.shapes
    gain = network.layers[0].gain
    tables.function("round", text.ROUND, {"TOP": constants[0].top})
    step = (1 if gain is None else gain.unit) / constants[0].unit
    code = [
        f"for (i = 0; i < {prod(network.shape)}; i++) {{",
        *_input(network, tables),
        f"    a[i] = {name}_round(v * {literal(step)});",
        "}",
    ]
    sums = 1
    for index, (layer, constant) in enumerate(zip(network.layers, constants, strict=True)):
        x, y = ("a", "b") if index % 2 == 0 else ("b", "a")
        code.append(integer_call(tables, index, layer, constant, shapes[index], x, y))
        if constant.factor:
            continue
        size = prod(shapes[index + 1])
        sums = max(sums, size)
        row = "@I@" if size == layer.outputs else f"@I@ / {size // layer.outputs}"
        scale = tables.add("float", f"scale{index}", layer.scales * np.float32(constant.unit))
        bias = tables.add("float", f"bias{index}", layer.biases)
        value = [f"float v = (float)sums[@I@] * {scale}[{row}] + {bias}[{row}];"]
        if layer.activation.name != "identity":
            value.append(f"v = {activation(layer.activation)};")
        if index == len(network.layers) - 1:
            code += _head(network, tables, value)
        else:
            code += [f"for (i = 0; i < {size}; i++) {{", *(f"    {line.replace('@I@', 'i')}" for line in value)]
            code += [f"    {y}[i] = {name}_round(v * {literal(1 / constants[index + 1].unit)});", "}"]
    sizes = [max([1, *map(prod, shapes[:-1][parity::2])]) for parity in (0, 1)]
    buffers = [f"int16_t a[{sizes[0]}], b[{sizes[1]}];", f"int32_t sums[{sums}];"]
    return _function(network, name, tables, buffers, code)


def _function(network: Network, name: str, tables: Tables, buffers: list[str], code: list[str]) -> str:
    signature = f"static void {name}_act(const {name}_observation *observation, {name}_action *action) {{"
    unused = ["(void)b;"] if len(network.layers) == 1 and "int16" in buffers[0] else []
    body = [*(f"{name.upper()}_STORAGE {buffer}" for buffer in buffers), "int i;", *unused, *code]
    return "\n".join([*tables.functions.values(), "", *tables.lines, "", signature, *(f"    {line}" for line in body), "}"])


def _input(network: Network, tables: Tables) -> list[str]:
    """From an observation to v, normalized; gains without their unit."""
    lines = ["float v = (float)observation[i];"]
    if network.normalize is not None:
        mean, scale = (tables.add("float", key, getattr(network.normalize, key)) for key in ("mean", "scale"))
        lines.append(f"v = (v - {mean}[i]) * {scale}[i];")
        if np.isfinite(network.normalize.limit):
            limit = literal(network.normalize.limit)
            lines.append(f"v = v < -{limit} ? -{limit} : v > {limit} ? {limit} : v;")
    gain = network.layers[0].gain
    if gain is not None:
        lines.append(f"v *= (float){tables.minifloat()}({tables.add('uint8_t', 'gain', gain.codes)}[i]);")
    return [f"    {line}" for line in lines]


def _head(network: Network, tables: Tables, value: list[str]) -> list[str]:
    """Code that makes an action; ``value`` declares v, output number @I@."""
    head = network.head
    if head.kind == "argmax":
        lines, start = [], 0
        for index, group in enumerate(head.groups):
            lines += ["{", "    float best = 0.0f;", f"    for (i = 0; i < {group}; i++) {{"]
            lines += [f"        {line.replace('@I@', f'{start} + i' if start else 'i')}" for line in value]
            lines += [
                "        if (i == 0 || v > best) {",
                "            best = v;",
                f"            action[{index}] = i;",
                "        }",
                "    }",
                "}",
            ]
            start += group
        return [line.replace(f"[{0} + i]", "[i]") for line in lines]
    if head.kind == "positive":
        expression = "v > 0.0f ? 1.0f : 0.0f"
    else:
        assert head.low is not None and head.high is not None
        half = (head.high - head.low) / 2
        bounds: list[tuple[str, Floats]] = [
            ("low", head.low),
            ("half", half) if head.kind == "unscale" else ("high", head.high),
        ]
        low, high = (
            literal(array[0]) if (array == array[0]).all() else f"{tables.add('float', key, array)}[i]"
            for key, array in bounds
        )
        expression = (
            f"{low} + (v + 1.0f) * {high}" if head.kind == "unscale" else f"v < {low} ? {low} : v > {high} ? {high} : v"
        )
        if head.kind == "unscale" and (head.low == -1).all() and (half == 1).all():
            expression = "v"
    lines = [line.replace("@I@", "i") for line in value]
    return [
        f"for (i = 0; i < {prod(head.shape)}; i++) {{",
        *(f"    {line}" for line in lines),
        f"    action[i] = {expression};",
        "}",
    ]


def _vbmi(network: Network, name: str) -> str:
    """The runtime's kernels and their plan."""
    block = plan.Plan(network, vector=True)
    kernels = (_KERNELS / "kernels.h").read_text().replace('#include "activations.h"\n', "")
    kernels = kernels.replace('#include "vbmi.h"', (_KERNELS / "vbmi.h").read_text())
    data = np.frombuffer(block.data, np.uint8)
    lines = [", ".join(map(str, data[start : start + 32])) for start in range(0, len(data), 32)]
    actions, discrete = prod(network.head.shape), network.head.kind == "argmax"
    body = [
        f"{name.upper()}_STORAGE float x[{block.scratch // 4}] __attribute__((aligned(64)));",
        *([f"int64_t whole[{actions}];"] if discrete else []),
        "int i;",
        f"for (i = 0; i < {prod(network.shape)}; i++) x[i] = (float)observation[i];",
        f"sb3s_act((const sb3s_plan *){name}_plan, x, {'whole' if discrete else 'action'});",
        *([f"for (i = 0; i < {actions}; i++) action[i] = (int32_t)whole[i];"] if discrete else []),
    ]
    return "\n".join(
        [
            kernels,
            "#ifndef SB3S_VBMI",
            '#error "no AVX-512 VBMI and VNNI: compile with -march=native on a processor that has them"',
            "#endif",
            f"static const unsigned char {name}_plan[] __attribute__((aligned(64))) = {{\n    " + ",\n    ".join(lines) + "};",
            f"static void {name}_act(const {name}_observation *observation, {name}_action *action) {{",
            *(f"    {line}" for line in body),
            "}",
        ]
    )


def _vectors(network: Network, name: str, *, quantized: bool, integers: bool) -> str:
    """Observations, and for each arithmetic the actions and how far they may be off."""
    observations = _observations(network)
    upper, kind = name.upper(), "uint8_t" if network.image else "float"
    # Other orders of addition; in integers and bytes also roundings that fall to the other side.
    arithmetics = [(f"defined({upper}_VBMI)", simulate_bytes, 0.03)] * quantized
    arithmetics += [(f"defined({upper}_INTEGER)", simulate, 1e-3)] * integers
    arithmetics += [("1", lambda network, x: layer_inputs(network, x)[-1], 1e-5)]
    lines = [_matrix(f"static const {kind} {name}_observations", observations, kind)]
    for index, (condition, compute, share) in enumerate(arithmetics):
        expected = network.head(compute(network, observations).astype(np.float32)).astype(np.float32)
        tolerance = share * (1 + float(np.abs(expected).max()))
        lines += [f"#{'elif' if index else 'if'} {condition}", f"#define {upper}_TOLERANCE {literal(tolerance)}"]
        lines += [_matrix(f"static const float {name}_expected", expected, "float")]
    return "\n".join([*lines, "#endif"])


def _observations(network: Network) -> Floats:
    """Observations of the size that the gains expect."""
    generator = np.random.default_rng(0)
    if network.image:
        return generator.integers(0, 256, (_VECTORS, *network.shape)).astype(np.float32)
    x = generator.standard_normal((_VECTORS, *network.shape))
    gain = network.layers[0].gain
    if gain is not None:
        live = network.layers[0].weight.any(axis=0)
        x = x * np.where(live, 1 / gain.values, 1).reshape(network.shape)
    if network.normalize is not None:
        x = x / network.normalize.scale + network.normalize.mean
    return x.astype(np.float32)


def _matrix(declaration: str, values: NDArray[np.generic], kind: str) -> str:
    rows = [
        ", ".join(literal(float(value)) if kind == "float" else str(int(value)) for value in row)
        for row in values.reshape(_VECTORS, -1).tolist()
    ]
    return f"{declaration}[{_VECTORS}][{values[0].size}] = {{\n    {{" + "},\n    {".join(rows) + "}};"
