"""W8A32 in C: 8-bit or float weights, float activations, as the Python backends compute."""

import re
from math import prod

import numpy as np

from sb3_sparse.export.c import text
from sb3_sparse.export.c.ends import head_code, input_code
from sb3_sparse.export.c.layers import Form, choose_forms, count_bytes, cut_runs, offsets, row_of
from sb3_sparse.export.c.recurrence import recall, remember
from sb3_sparse.export.c.tables import Tables, literal
from sb3_sparse.export.c.windows import Buffers, padded, pooled
from sb3_sparse.runtime.network.capabilities import Capabilities
from sb3_sparse.runtime.network.records import (
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
    Shape,
    Stack,
)

#: A sparse linear layer: runs of rows with equal counts; the run with no rows is the last.
_ROWS = """
static void @FUNCTION@(const @COLUMN@ SB3S_FLASH *columns, const @WEIGHT@ SB3S_FLASH *weights,
                       const @RUN@ SB3S_FLASH *runs, @PARAMETERS@, const float *x, float *y) {
    unsigned n, k;@STATE@
    for (; (n = runs[1]) != 0; runs += 2)
        for (; n != 0; n--) {
            float sum = 0.0f;
            for (k = runs[0]; k != 0; k--) sum += (float)@NEXT@ * x[*columns++];
            *y++ = @VALUE@;
        }
}
"""

#: A dense linear layer.
_DENSE = """
static void @FUNCTION@(const @WEIGHT@ SB3S_FLASH *weights, unsigned rows, unsigned columns, @PARAMETERS@,
                       const float *x, float *y) {
    unsigned k;@STATE@
    for (; rows != 0; rows--) {
        float sum = 0.0f;
        for (k = 0; k < columns; k++) sum += (float)@NEXT@ * x[k];
        *y++ = @VALUE@;
    }
}
"""

FLOAT = Capabilities(
    "the float code of a C header",
    instead="export the policy without it, or load its compact file in Python",
    records={
        Network: "shape image normalize layers head ranges parts stack view",
        Stack: "frames normalize",
        Part: "key shape sizes encoder",
        Normalize: "mean scale limit",
        Layer: "weight bias activation scale gain stride padding rectify residual pool lstm norm grid",
        Activation: "name low high slopes",
        Norm: "epsilon scale shift",
        Pool: "kernel stride padding mean",
        Grid: "unit low top",
        Minifloats: "codes unit",
        Fixed: "codes unit",
        Head: "kind shape low high groups",
    },
    first="gain",
    activations=text.ACTIVATIONS,
    heads=("unscale", "clip", "argmax", "positive"),
)


def float_code(network: Network, name: str, *, pack: bool = True) -> str:
    """
    :param network: A network.
    :param name: Prefix of all names.
    :param pack: See :func:`~sb3_sparse.export.c.layers.choose_forms`.
    :return: Its tables and functions
    """
    tables, buffers, shapes = Tables(name), Buffers("float"), network.shapes
    gain, x, z, forms = network.layers[0].gain, buffers.take(network.shape), "", choose_forms(network, pack=pack)
    code = [f"for (i = 0; i < {prod(network.shape)}; i++) {{", *input_code(network, tables)]
    code += [f"    a[i] = v{'' if gain is None else ' * ' + literal(gain.unit)};", "}"]
    for index, (layer, shape) in enumerate(zip(network.layers, shapes, strict=False)):
        # z is the input of the layer before, which a residual layer adds; the next one may add x.
        busy = [z] * layer.residual + [x] * any(after.residual for after in network.layers[index + 1 : index + 2])
        copy, bare, inner, source = padded(tables, buffers, layer, shape, x, *busy)
        if layer.grid is not None:
            tables.function("to_grid", text.TO_GRID, {})
            limits = f"{literal(layer.grid.low)}, {literal(layer.grid.top)}"
            code.append(f"for (i = 0; i < {prod(shape)}; i++)")
            unit = literal(layer.grid.unit)
            code.append(f"    {x}[i] = (float){name}_to_grid({x}[i] / {unit}, {limits}) * {unit};")
        y = buffers.take((layer.rows,) if layer.lstm else layer.sum_shape(shape), source, *busy)
        code += [*copy, *recall(tables, buffers, network, index, x)]
        code += [_call(tables, index, forms[index], bare, inner, source, y)]
        code += remember(network, index, y)
        size = prod(layer.sum_shape(shape))
        if layer.norm is not None:
            numbers = [tables.add("float", f"norm_{key}{index}", getattr(layer.norm, key)) for key in ("scale", "shift")]
            code.append(f"sb3s_norm({size}, {', '.join(numbers)}, {literal(layer.norm.epsilon)}, {y});")
        if layer.activation.name != "identity" or layer.residual:
            added, row = f" + {z}[i]" if layer.residual else "", row_of(layer, size, "i")
            code += [f"for (i = 0; i < {size}; i++) {{", f"    const float v = {y}[i]{added};"]
            code += [f"    {y}[i] = {tables.activation(layer.activation, index, row)};", "}"]
        pool, y = pooled(tables, buffers, layer, shape, y, *busy)
        code += pool
        x, z = y, x
    code += head_code(network.head, tables, [f"float v = {x}[@I@];"])
    return tables.act([buffers.declaration(f"{name.upper()}_STORAGE")], code, remembers=bool(network.lstms))


def _call(tables: Tables, index: int, form: Form, layer: Layer, before: Shape, x: str, y: str) -> str:
    """The call that computes a layer from buffer x to buffer y, without its activation."""
    counts, columns, values, shape = offsets(layer, before)
    columns_kind = _unsigned(int(np.prod(before)) + (layer.outputs if layer.lstm else 0) - 1)
    counts_kind = _unsigned(int(counts.max(initial=0)))
    weight = "uint8_t" if form.packed else "int8_t" if layer.quantized else "float"
    fixed = isinstance(layer.scale, Minifloats) and isinstance(layer.bias, Fixed)
    constants = "packed" if fixed else "plain" if layer.quantized else "unscaled"
    parameters, scale, offset = text.CONSTANTS[constants]
    if fixed:
        tables.minifloat()
    parts = {"COLUMN": columns_kind, "RUN": counts_kind, "WEIGHT": weight, "PARAMETERS": parameters}
    parts |= {"STATE": "\n    uint32_t group = 1;" if form.packed else ""}
    parts |= {"NEXT": f"{tables.code(form.width)}(&weights, &group)" if form.packed else "*weights++"}
    if layer.convolution:
        snippet = text.CONVOLUTION
        parts["CONSTANTS"] = f"scale = {scale}, offset = {offset}" if scale else f"offset = {offset}"
        parts["VALUE"] = "sum * scale + offset" if scale else "sum + offset"
    else:
        snippet = _DENSE if form.dense else _ROWS
        parts["VALUE"] = f"sum * ({scale}) + {offset}" if scale else f"sum + {offset}"
    name = f"{'conv' if layer.convolution else 'dense' if form.dense else 'rows'}_{constants}"
    name += f"_bits{form.width}" * form.packed + ("" if form.dense else f"_{columns_kind}_{counts_kind}")
    snippet = re.sub("@(CONSTANTS|VALUE)@", lambda match: parts[match[1]], snippet)
    function = tables.function(name.replace("_t", "").replace("uint", ""), snippet, parts)
    values = layer.weight.reshape(-1) if form.dense else values
    weights = tables.add(weight, f"weights{index}", form.pack(values.astype(np.int8)) if form.packed else values)
    if form.dense:
        arguments = [weights, str(layer.rows), str(layer.weight.shape[1])]
    else:
        runs = counts if layer.convolution else cut_runs(counts, 255 if counts_kind == "uint8_t" else 65535)
        arguments = [tables.add(columns_kind, f"columns{index}", columns), weights]
        arguments += [tables.add(counts_kind, f"runs{index}", runs), *([shape] if shape else [])]
    if isinstance(layer.scale, Minifloats) and isinstance(layer.bias, Fixed):
        arguments += [tables.add("uint8_t", f"scale{index}", layer.scale.codes), literal(layer.scale.unit)]
        arguments += [tables.add("int16_t", f"bias{index}", layer.bias.codes), literal(layer.bias.unit)]
    else:
        arguments += [tables.add("float", f"scale{index}", layer.scales)] if layer.quantized else []
        arguments += [tables.add("float", f"bias{index}", layer.biases)]
    return f"{function}({', '.join([*arguments, x, y])});"


def _unsigned(largest: int) -> str:
    return f"uint{8 * count_bytes(largest)}_t"
