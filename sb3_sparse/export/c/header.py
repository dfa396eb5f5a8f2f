"""
One C99 header with a policy: tables, code, test vectors and a self test.

Three arithmetics in the same file. W8A32: 8-bit weights, float activations, as the Python backends compute. W8A16:
integers alone between the observation and the last layer, for processors without a floating-point unit
(:mod:`~sb3_sparse.export.c.integer`); a hidden activation other than ReLU is computed in float, and residual networks have no
such code. VBMI: the AVX-512 kernels of the runtime, with 8-bit hidden activations.
"""

import re
import zlib
from importlib import import_module
from math import prod
from pathlib import Path

import numpy as np

from sb3_sparse.export.c import text
from sb3_sparse.export.c.head import head_code
from sb3_sparse.export.c.integer import IntegerLayer, integer_layers
from sb3_sparse.export.c.layers import Tables, activation, fill, float_call, integer_call, literal
from sb3_sparse.export.c.vectors import COUNT, vectors
from sb3_sparse.export.c.windows import Buffers, padded, pooled
from sb3_sparse.runtime.backends import plan
from sb3_sparse.runtime.network.records import Network

_KERNELS = Path(plan.__file__).parent / "c"


def to_c(network: Network, *, name: str = "policy") -> str:
    """
    :param network: A network, quantized or float.
    :param name: What functions, types and (in capitals) macros begin with.
    :return: The text of the header
    :raises ValueError: if the name is no C identifier, or a number is NaN
    """
    # What all headers share begins with sb3s_.
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name == "sb3s":
        raise ValueError(f"name='{name}' must be a C identifier in small letters, and not sb3s")
    upper = name.upper()
    quantized = all(layer.quantized for layer in network.layers)
    integers = integer_layers(network) if quantized and network.ranges is not None and not network.residual else None
    parts = _parts(network, name, quantized=quantized, integers=integers is not None)
    tests = vectors(network, name, quantized=quantized, integers=integers is not None)
    reason = "a residual network" if network.residual else "exported without calibration or with float weights"
    no_integers = f'#error "{reason}: there are no integers in this file"'
    body = "\n".join(
        [
            _once("SB3S_ACTIVATIONS", (_KERNELS / "activations.h").read_text()),
            f"#if defined({upper}_VBMI)\n",
            _vbmi(network, name) if quantized else '#error "exported with float weights: no VBMI"',
            f"\n#elif defined({upper}_INTEGER)\n",
            no_integers if integers is None else _integer_code(network, name, integers),
            "\n#else\n",
            _float_code(network, name),
            "\n#endif",
            fill(text.SELF_TEST, {**parts, "VECTORS": tests}),
        ]
    )
    return fill(text.HEADER, {**parts, "CHECKSUM": f"0x{zlib.crc32(body.encode()):08x}u"}) + "\n" + body


def _once(macro: str, code: str) -> str:
    """Code that several headers bring along, compiled with the first."""
    return f"#ifndef {macro}\n#define {macro}\n{code}#endif\n"


def _inline(code: str) -> str:
    """Code with the runtime's headers in place of what includes them."""
    return re.sub('#include "(.*)"', lambda match: _inline((_KERNELS / match[1]).read_text()), code)


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
        "COUNT": COUNT,
    }


def _float_code(network: Network, name: str) -> str:
    tables, buffers, shapes = Tables(name), Buffers("float"), network.shapes
    gain, x, z = network.layers[0].gain, buffers.take(network.shape), ""
    code = [f"for (i = 0; i < {prod(network.shape)}; i++) {{", *_input(network, tables)]
    code += [f"    a[i] = v{'' if gain is None else ' * ' + literal(gain.unit)};", "}"]
    for index, (layer, shape) in enumerate(zip(network.layers, shapes, strict=False)):
        # z is the input of the layer before, which a residual layer adds; the next one may add x.
        busy = [z] * layer.residual + [x] * any(after.residual for after in network.layers[index + 1 : index + 2])
        copy, bare, inner, source = padded(tables, buffers, layer, shape, x, *busy)
        y = buffers.take(layer.sum_shape(shape), source, *busy)
        code += [*copy, float_call(tables, index, bare, inner, source, y)]
        if layer.activation.name != "identity" or layer.residual:
            added = f" + {z}[i]" if layer.residual else ""
            code += [f"for (i = 0; i < {prod(layer.sum_shape(shape))}; i++) {{", f"    const float v = {y}[i]{added};"]
            code += [f"    {y}[i] = {activation(layer.activation)};", "}"]
        pool, y = pooled(tables, buffers, layer, shape, y, *busy)
        code += pool
        x, z = y, x
    code += head_code(network.head, tables, [f"float v = {x}[@I@];"])
    return _function(network, name, tables, [buffers.declaration(f"{name.upper()}_STORAGE")], code)


def _integer_code(network: Network, name: str, constants: list[IntegerLayer]) -> str:
    tables, buffers, shapes = Tables(name), Buffers("int16_t"), network.shapes
    gain, top, x = network.layers[0].gain, constants[0].top, buffers.take(network.shape)
    tables.function("round", text.ROUND, {"LOW": literal(32768 - top), "HIGH": literal(32768 + top)})
    step = (1 if gain is None else gain.unit) / constants[0].unit
    code = [
        f"for (i = 0; i < {prod(network.shape)}; i++) {{",
        *_input(network, tables),
        f"    a[i] = {name}_round(v * {literal(step)});",
        "}",
    ]
    stream, sums = b"", 1
    for index, (layer, constant) in enumerate(zip(network.layers, constants, strict=True)):
        last = index == len(network.layers) - 1
        size = prod(layer.sum_shape(shapes[index]))
        copy, bare, inner, source = padded(tables, buffers, layer, shapes[index], x)
        y = "" if last else buffers.take(layer.sum_shape(shapes[index]), source)
        data, call = integer_call(tables, bare, constant, inner, source, y if constant.factor else "sums")
        stream += data
        code += [*copy, call if last else f"p = {call}"]
        pool, x = pooled(tables, buffers, layer, shapes[index], y)
        if constant.factor:
            code += pool
            continue
        sums = max(sums, size)
        row = "@I@" if size == layer.outputs else f"@I@ / {size // layer.outputs}"
        scales = layer.scales * np.float32(constant.unit)
        table = tables.add("float", f"rows{index}", np.stack([scales, layer.biases], axis=1))
        value = [f"float v = (float)sums[@I@] * {table}[2 * ({row})] + {table}[2 * ({row}) + 1];"]
        if layer.activation.name != "identity":
            value.append(f"v = {activation(layer.activation)};")
        if last:
            code += head_code(network.head, tables, value)
        else:
            code += [f"for (i = 0; i < {size}; i++) {{", *(f"    {line.replace('@I@', 'i')}" for line in value)]
            code += [f"    {y}[i] = {name}_round(v * {literal(1 / constants[index + 1].unit)});", "}", *pool]
    storage = f"{name.upper()}_STORAGE"
    variables = [buffers.declaration(storage), f"{storage} int32_t sums[{sums}];"]
    # The layers follow each other in one table; each call gives where it has read to.
    variables += [f"const uint8_t *p = {tables.add('uint8_t', 'layers', np.frombuffer(stream, np.uint8))};"]
    return _function(network, name, tables, variables, code)


def _function(network: Network, name: str, tables: Tables, variables: list[str], code: list[str]) -> str:
    signature = f"static void {name}_act(const {name}_observation *observation, {name}_action *action) {{"
    lines = [f"    {line}" for line in [*variables, "int i;", *code]]
    return "\n".join([*tables.functions.values(), "", *tables.lines, "", signature, *lines, "}"])


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


def _vbmi(network: Network, name: str) -> str:
    """The runtime's kernels and their plan."""
    block = plan.Plan(network, vector=True)
    kernels = _inline((_KERNELS / "kernels.h").read_text().replace('#include "activations.h"\n', ""))
    data = np.frombuffer(block.data, np.uint8)
    lines = [", ".join(map(str, data[start : start + 32])) for start in range(0, len(data), 32)]
    actions, discrete = prod(network.head.shape), network.head.kind == "argmax"
    to = "whole" if discrete else "action"
    body = [
        f"{name.upper()}_STORAGE float x[{block.scratch // 4}] __attribute__((aligned(64)));",
        *([f"int64_t whole[{actions}];"] if discrete else []),
        *([] if network.image and not discrete else ["int i;"]),
        *([] if network.image else [f"for (i = 0; i < {prod(network.shape)}; i++) x[i] = observation[i];"]),
        f"sb3s_act((const sb3s_plan *){name}_plan, {'observation' if network.image else 'NULL'}, x, {to});",
        *([f"for (i = 0; i < {actions}; i++) action[i] = (int32_t)whole[i];"] if discrete else []),
    ]
    return "\n".join(
        [
            _once("SB3S_KERNELS", kernels),
            "#ifndef SB3S_VBMI",
            '#error "no AVX-512 VBMI and VNNI: compile with -march=native on a processor that has them"',
            "#endif",
            f"static const unsigned char {name}_plan[] __attribute__((aligned(64))) = {{\n    " + ",\n    ".join(lines) + "};",
            f"static void {name}_act(const {name}_observation *observation, {name}_action *action) {{",
            *(f"    {line}" for line in body),
            "}",
        ]
    )
