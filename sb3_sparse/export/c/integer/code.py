"""W8A16 in C: only integers between the observation and the last layer (:mod:`~sb3_sparse.export.c.integer.constants`)."""

from math import prod

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.export.c import text
from sb3_sparse.export.c.ends import head_code, input_code
from sb3_sparse.export.c.integer import text as integer_text
from sb3_sparse.export.c.integer.constants import IntegerLayer, integer_layers
from sb3_sparse.export.c.layers import Form, choose_forms, count_bytes, cut_runs, offsets, row_of
from sb3_sparse.export.c.tables import Tables, literal
from sb3_sparse.export.c.windows import Buffers, padded, pooled
from sb3_sparse.runtime.network.records import Layer, Minifloats, Network, Shape


def integer_code(network: Network, name: str, *, pack: bool = True) -> str:
    """
    :param network: A quantized network with ranges.
    :param name: Prefix of all names.
    :param pack: See :func:`~sb3_sparse.export.c.layers.choose_forms`.
    :return: Its tables and functions
    :raises ValueError: if integer arithmetic does not compute it
    """
    constants = integer_layers(network)
    tables, buffers, shapes = Tables(name), Buffers("int16_t"), network.shapes
    gain, x = network.layers[0].gain, buffers.take(network.shape)
    free = [constant.top for layer, constant in zip(network.layers, constants, strict=True) if layer.grid is None]
    for top in free[:1]:
        tables.function("round", integer_text.ROUND, {"LOW": literal(32768 - top), "HIGH": literal(32768 + top)})
    step = (1 if gain is None else gain.unit) / constants[0].unit
    code = [
        f"for (i = 0; i < {prod(network.shape)}; i++) {{",
        *input_code(network, tables),
        f"    a[i] = {_rounded(tables, network.layers[0], step)};",
        "}",
    ]
    stream, sums, forms = b"", 1, choose_forms(network, pack=pack)
    for index, (layer, form, constant) in enumerate(zip(network.layers, forms, constants, strict=True)):
        last = index == len(network.layers) - 1
        size = prod(layer.sum_shape(shapes[index]))
        copy, bare, inner, source = padded(tables, buffers, layer, shapes[index], x)
        y = "" if last else buffers.take(layer.sum_shape(shapes[index]), source)
        data, call = _call(tables, form, bare, constant, inner, source, y if constant.factor else "sums")
        stream += data
        code += [*copy, call if last else f"p = {call}"]
        pool, x = pooled(tables, buffers, layer, shapes[index], y)
        if constant.factor:
            code += pool
            continue
        sums = max(sums, size)
        row = row_of(layer, size, "@I@")
        scales = layer.scales * np.float32(constant.unit)
        table = tables.add("float", f"rows{index}", np.stack([scales, layer.biases], axis=1))
        value = [f"float v = (float)sums[@I@] * {table}[2 * ({row})] + {table}[2 * ({row}) + 1];"]
        if layer.activation.name != "identity":
            value.append(f"v = {tables.activation(layer.activation, index, row)};")
        if last:
            code += head_code(network.head, tables, value)
        else:
            code += [f"for (i = 0; i < {size}; i++) {{", *(f"    {line.replace('@I@', 'i')}" for line in value)]
            code += [f"    {y}[i] = {_rounded(tables, network.layers[index + 1], 1 / constants[index + 1].unit)};", "}", *pool]
    storage = f"{name.upper()}_STORAGE"
    variables = [buffers.declaration(storage), f"{storage} int32_t sums[{sums}];"]
    # The layers follow each other in one table; each call gives where it has read to.
    variables += [f"const uint8_t SB3S_FLASH *p = {tables.add('uint8_t', 'layers', np.frombuffer(stream, np.uint8))};"]
    return tables.act(variables, code)


def _rounded(tables: Tables, layer: Layer, step: float) -> str:
    """A float v as an input of a layer, an expression."""
    if layer.grid is None:
        return f"{tables.name}_round(v * {literal(step)})"
    function = tables.function("to_grid", text.TO_GRID, {})
    limits = f"{literal(layer.grid.low)}, {literal(layer.grid.top)}"
    return f"(int16_t){function}(v / {literal(layer.grid.unit)}, {limits})"


def _call(
    tables: Tables, form: Form, layer: Layer, constant: IntegerLayer, before: Shape, x: str, y: str
) -> tuple[bytes, str]:
    """The bytes of a layer, and the call that reads them from ``p`` on and computes it from buffer x to buffer y."""
    counts, columns, values, shape = offsets(layer, before)
    column_size = count_bytes(int(np.prod(before)) - 1)
    count_size = 2 if layer.convolution else count_bytes(int(counts.max(initial=0)))
    apart = form.dense or form.packed
    rows = _rows(counts, columns, values, column_size, form)
    if constant.factor:
        tails = _tails(layer, constant)
        rows = [row + tail for row, tail in zip(rows, tails, strict=True)]
    weights = form.pack((layer.weight.reshape(-1) if form.dense else values).astype(np.int8)).tobytes() if apart else b""
    finer = [] if constant.finer is None else [constant.finer]
    stream = [constant.factor.to_bytes(2 + 2 * len(finer), "little"), bytes([constant.shift, *finer]), weights]
    if layer.convolution:
        stream += [int(count).to_bytes(2, "little") + row for count, row in zip(counts, rows, strict=True)]
    elif form.dense:
        stream += rows
    else:
        start = 0
        for count, length in cut_runs(counts, 255):
            stream += [int(count).to_bytes(count_size, "little"), bytes([length]), *rows[start : start + length]]
            start += length
    source = "q" if layer.convolution else "p"
    kind, ends = _ends(tables, layer, constant)
    weight, state = f"(int32_t)(int8_t){source}[{column_size}]", ""
    if apart:
        state = f"\n    const uint8_t SB3S_FLASH *weights = p + {ends['START']};" + "\n    uint32_t group = 1;" * form.packed
        weight = f"{tables.code(form.width)}(&weights, &group)" if form.packed else "(int32_t)(int8_t)*weights++"
    parts = ends | {
        "RUN": count_size,
        "COUNT": _little("p", count_size),
        "COLUMN": _little(source, column_size),
        "WEIGHT": weight,
        "ENTRY": column_size + (not apart),
        "STATE": state,
        "PACKED": " + size" * apart,
        "SHAPE": "unsigned size, " * apart + "unsigned rows, unsigned columns, " * form.dense,
    }
    shape_name, snippet = ("conv", integer_text.CONVOLUTION) if layer.convolution else ("rows", integer_text.ROWS)
    name = f"{shape_name}_{kind}{column_size}{count_size}" + f"_bits{form.width}" * form.packed
    if form.dense:
        name, snippet = f"dense_{kind}_bits{form.width}", integer_text.DENSE
    arguments = ["p", *[str(len(weights))] * apart, *([shape] if shape else [])]
    arguments += [str(layer.rows), str(layer.weight.shape[1])] * form.dense
    return b"".join(stream), f"{tables.function(name, snippet, parts)}({', '.join([*arguments, x, y])});"


def _is_shared(constant: IntegerLayer) -> bool:
    """Whether all rows have one multiplier, that of the layer: where the grid is that of training, and they have one scale."""
    return constant.finer is not None and constant.factor > 1


def _tails(layer: Layer, constant: IntegerLayer) -> list[bytes]:
    """The multiplier and the offset of each row."""
    fixed = constant.finer is not None
    if _is_shared(constant):
        multipliers = [b""] * layer.outputs
    elif isinstance(layer.scale, Minifloats) and not fixed:
        multipliers = [bytes([code]) for code in layer.scale.codes]
    else:
        multipliers = [int(multiplier).to_bytes(4, "little") for multiplier in constant.multipliers]
    biases = [int(bias).to_bytes(4 if fixed else 2, "little", signed=True) for bias in constant.bias]
    return [multiplier + bias for multiplier, bias in zip(multipliers, biases, strict=True)]


def _ends(tables: Tables, layer: Layer, constant: IntegerLayer) -> tuple[str, dict[str, object]]:
    """How a function brings sums to the next layer, with a name for it."""
    if constant.finer is not None:
        shared = _is_shared(constant)
        parts = {**integer_text.FIXED, "MULTIPLIER": "factor" if shared else f"(int32_t){_little('p', 4)}"}
        parts |= {"OFFSET": f"(int32_t){_little('p', 4, 0 if shared else 4)}", "END": 4 if shared else 8}
        return f"{'shared' if shared else 'fixed'}{constant.limit}_", parts | {"LIMIT": constant.limit}
    small = isinstance(layer.scale, Minifloats)
    tail = 1 if small else 4
    parts = {**integer_text.FREE, "END": tail + 2, "OFFSET": f"(int16_t)(p[{tail}] | (uint16_t)p[{tail + 1}] << 8)"}
    parts["MULTIPLIER"] = f"(factor * {tables.minifloat()}(*p))" if small else f"(int32_t){_little('p', 4)}"
    return "small" if small else "wide", parts | {"LIMIT": constant.limit}


def _rows(
    counts: NDArray[np.int64], columns: NDArray[np.int64], values: NDArray[np.generic], column_size: int, form: Form
) -> list[bytes]:
    """The entries of each row: columns and weights, columns alone if weights are packed, or nothing if the layer is dense."""
    if form.dense:
        return [b""] * len(counts)
    entries = [int(column).to_bytes(column_size, "little") for column in columns]
    if not form.packed:
        entries = [entry + int(w).to_bytes(1, "little", signed=True) for entry, w in zip(entries, values, strict=True)]
    ends = np.cumsum(counts)
    return [b"".join(entries[end - count : end]) for count, end in zip(counts, ends, strict=True)]


def _little(pointer: str, count: int, start: int = 0) -> str:
    """A number of so many bytes from ``start`` on, least significant first, as an expression."""
    terms = [f"{pointer}[{start}]", *(f"(uint32_t){pointer}[{start + i}] << {8 * i}" for i in range(1, count))]
    return terms[0] if count == 1 else f"({' | '.join(terms)})"
