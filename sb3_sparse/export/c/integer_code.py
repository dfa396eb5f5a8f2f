"""W8A16 in C: only integers between the observation and the last layer (:mod:`~sb3_sparse.export.c.integer`)."""

from math import prod
from textwrap import indent

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.export.c import text
from sb3_sparse.export.c.ends import head_code, input_code
from sb3_sparse.export.c.integer import IntegerLayer, integer_layers
from sb3_sparse.export.c.layers import Form, choose_forms, count_bytes, cut_runs, offsets, row_of
from sb3_sparse.export.c.tables import Tables, literal
from sb3_sparse.export.c.windows import Buffers, padded, pooled
from sb3_sparse.runtime.network.records import Layer, Minifloats, Network, Shape

#: The end of a row: its sum, or its activation. With factor 0 the sums go out in 32 bits.
_TAIL = """\
        if (factor == 0) {
            *sums++ = sum;
            continue;
        }
        sum = (int32_t)(((int64_t)sum * @MULTIPLIER@) >> 32) >> shift;
        sum += (int16_t)(p[@TAIL@] | (uint16_t)p[@TAIL@ + 1] << 8);
        p += @TAIL@ + 2;
        sum = sum > @TOP@ ? @TOP@ : sum;
        *y++ = (int16_t)(sum < 0 ? 0 : sum);
"""
_BEGIN = """\
    const int32_t factor = p[0] | (uint16_t)p[1] << 8;
    const int shift = p[2];
    int16_t *y = (int16_t *)output;
    int32_t *sums = (int32_t *)output;
"""

#: A sparse linear layer, one stream of bytes: factor, shift; the weights, if they are packed; runs (entries in a row, rows);
#: for each row its entries (column and, unless they are packed, weight), its multiplier and its offset.
_ROWS = f"""
static const uint8_t *@FUNCTION@(const uint8_t *p, @SHAPE@const int16_t *x, void *output) {{
{_BEGIN}    unsigned n;@STATE@
    for (p += 3@PACKED@; (n = p[@RUN@]) != 0;) {{
        const unsigned size = @COUNT@ * @ENTRY@;
        p += @RUN@ + 1;
        for (; n != 0; n--) {{
            const uint8_t *end = p + size;
            int32_t sum = 0;
            for (; p != end; p += @ENTRY@) sum += @WEIGHT@ * x[@COLUMN@];
{indent(_TAIL, "    ")}        }}
    }}
    return p + @RUN@ + 1;
}}
"""

#: A dense linear layer: factor, shift; the weights; for each row its multiplier and its offset.
_DENSE = f"""
static const uint8_t *@FUNCTION@(const uint8_t *p, @SHAPE@const int16_t *x, void *output) {{
{_BEGIN}    unsigned k;@STATE@
    for (p += 3@PACKED@; rows != 0; rows--) {{
        int32_t sum = 0;
        for (k = 0; k < columns; k++) sum += @WEIGHT@ * x[k];
{_TAIL}    }}
    return p;
}}
"""


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
    gain, top, x = network.layers[0].gain, constants[0].top, buffers.take(network.shape)
    tables.function("round", text.ROUND, {"LOW": literal(32768 - top), "HIGH": literal(32768 + top)})
    step = (1 if gain is None else gain.unit) / constants[0].unit
    code = [
        f"for (i = 0; i < {prod(network.shape)}; i++) {{",
        *input_code(network, tables),
        f"    a[i] = {name}_round(v * {literal(step)});",
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
            code += [f"    {y}[i] = {name}_round(v * {literal(1 / constants[index + 1].unit)});", "}", *pool]
    storage = f"{name.upper()}_STORAGE"
    variables = [buffers.declaration(storage), f"{storage} int32_t sums[{sums}];"]
    # The layers follow each other in one table; each call gives where it has read to.
    variables += [f"const uint8_t *p = {tables.add('uint8_t', 'layers', np.frombuffer(stream, np.uint8))};"]
    return tables.act(variables, code)


def _call(
    tables: Tables, form: Form, layer: Layer, constant: IntegerLayer, before: Shape, x: str, y: str
) -> tuple[bytes, str]:
    """The bytes of a layer, and the call that reads them from ``p`` on and computes it from buffer x to buffer y."""
    counts, columns, values, shape = offsets(layer, before)
    column_size = count_bytes(int(np.prod(before)) - 1)
    count_size = 2 if layer.convolution else count_bytes(int(counts.max(initial=0)))
    apart = form.dense or form.packed
    rows = _rows(counts, columns, values, column_size, form)
    small = isinstance(layer.scale, Minifloats)
    if constant.factor:
        multipliers = (
            [bytes([code]) for code in layer.scale.codes]
            if isinstance(layer.scale, Minifloats)
            else [int(multiplier).to_bytes(4, "little") for multiplier in constant.multipliers]
        )
        biases = [int(bias).to_bytes(2, "little", signed=True) for bias in constant.bias]
        rows = [b"".join(parts) for parts in zip(rows, multipliers, biases, strict=True)]
    weights = form.pack((layer.weight.reshape(-1) if form.dense else values).astype(np.int8)).tobytes() if apart else b""
    stream = [constant.factor.to_bytes(2, "little"), bytes([constant.shift]), weights]
    if layer.convolution:
        stream += [int(count).to_bytes(2, "little") + row for count, row in zip(counts, rows, strict=True)]
    elif form.dense:
        stream += rows
    else:
        start = 0
        for count, length in cut_runs(counts, 255):
            stream += [int(count).to_bytes(count_size, "little"), bytes([length]), *rows[start : start + length]]
            start += length
    if small:
        tables.minifloat()
    source = "q" if layer.convolution else "p"
    weight, state = f"(int32_t)(int8_t){source}[{column_size}]", ""
    if apart:
        state = "\n    const uint8_t *weights = p + 3;" + "\n    uint32_t group = 1;" * form.packed
        weight = f"{tables.code(form.width)}(&weights, &group)" if form.packed else "(int32_t)(int8_t)*weights++"
    parts = {
        "RUN": count_size,
        "COUNT": _little("p", count_size),
        "COLUMN": _little(source, column_size),
        "WEIGHT": weight,
        "ENTRY": column_size + (not apart),
        "MULTIPLIER": f"(factor * {tables.name}_minifloat(*p))" if small else f"(int32_t){_little('p', 4)}",
        "TAIL": 1 if small else 4,
        "TOP": constant.top,
        "STATE": state,
        "PACKED": " + size" * apart,
        "SHAPE": "unsigned size, " * apart + "unsigned rows, unsigned columns, " * form.dense,
    }
    kind, snippet = ("conv", text.INTEGER_CONVOLUTION) if layer.convolution else ("rows", _ROWS)
    name = f"{kind}_{'small' if small else 'wide'}{column_size}{count_size}" + f"_bits{form.width}" * form.packed
    if form.dense:
        name, snippet = f"dense_{'small' if small else 'wide'}_bits{form.width}", _DENSE
    arguments = ["p", *[str(len(weights))] * apart, *([shape] if shape else [])]
    arguments += [str(layer.rows), str(layer.weight.shape[1])] * form.dense
    return b"".join(stream), f"{tables.function(name, snippet, parts)}({', '.join([*arguments, x, y])});"


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


def _little(pointer: str, count: int) -> str:
    """A number of so many bytes, least significant first, as an expression."""
    terms = [f"{pointer}[0]", *(f"(uint32_t){pointer}[{i}] << {8 * i}" for i in range(1, count))]
    return terms[0] if count == 1 else f"({' | '.join(terms)})"
