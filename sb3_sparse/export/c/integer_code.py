"""W8A16 in C: only integers between the observation and the last layer (:mod:`~sb3_sparse.export.c.integer`)."""

from math import prod

import numpy as np

from sb3_sparse.export.c import text
from sb3_sparse.export.c.ends import head_code, input_code
from sb3_sparse.export.c.integer import IntegerLayer, integer_layers
from sb3_sparse.export.c.layers import count_bytes, cut_runs, offsets
from sb3_sparse.export.c.tables import Tables, activation, literal
from sb3_sparse.export.c.windows import Buffers, padded, pooled
from sb3_sparse.runtime.network.records import Layer, Minifloats, Network, Shape


def integer_code(network: Network, name: str) -> str:
    """
    :param network: A quantized network with ranges.
    :param name: Prefix of all names.
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
    stream, sums = b"", 1
    for index, (layer, constant) in enumerate(zip(network.layers, constants, strict=True)):
        last = index == len(network.layers) - 1
        size = prod(layer.sum_shape(shapes[index]))
        copy, bare, inner, source = padded(tables, buffers, layer, shapes[index], x)
        y = "" if last else buffers.take(layer.sum_shape(shapes[index]), source)
        data, call = _call(tables, bare, constant, inner, source, y if constant.factor else "sums")
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
    return tables.act(variables, code)


def _call(tables: Tables, layer: Layer, constant: IntegerLayer, before: Shape, x: str, y: str) -> tuple[bytes, str]:
    """The bytes of a layer, and the call that reads them from ``p`` on and computes it from buffer x to buffer y."""
    counts, columns, values, shape = offsets(layer, before)
    column_size = count_bytes(int(np.prod(before)) - 1)
    count_size = 2 if layer.convolution else count_bytes(int(counts.max(initial=0)))
    entries = [
        int(c).to_bytes(column_size, "little") + int(w).to_bytes(1, "little", signed=True)
        for c, w in zip(columns, values, strict=True)
    ]
    ends = np.cumsum(counts)
    rows = [b"".join(entries[end - count : end]) for count, end in zip(counts, ends, strict=True)]
    small = isinstance(layer.scale, Minifloats)
    if constant.factor:
        multipliers = (
            [bytes([code]) for code in layer.scale.codes]
            if isinstance(layer.scale, Minifloats)
            else [int(multiplier).to_bytes(4, "little") for multiplier in constant.multipliers]
        )
        biases = [int(bias).to_bytes(2, "little", signed=True) for bias in constant.bias]
        rows = [b"".join(parts) for parts in zip(rows, multipliers, biases, strict=True)]
    stream = [constant.factor.to_bytes(2, "little"), bytes([constant.shift])]
    if layer.convolution:
        stream += [int(count).to_bytes(2, "little") + row for count, row in zip(counts, rows, strict=True)]
    else:
        start = 0
        for count, length in cut_runs(counts, 255):
            stream += [int(count).to_bytes(count_size, "little"), bytes([length]), *rows[start : start + length]]
            start += length
    if small:
        tables.minifloat()
    source = "q" if layer.convolution else "p"
    parts = {
        "RUN": count_size,
        "COUNT": _little("p", count_size),
        "COLUMN": _little(source, column_size),
        "WEIGHT": column_size,
        "ENTRY": column_size + 1,
        "MULTIPLIER": f"(factor * {tables.name}_minifloat(*p))" if small else f"(int32_t){_little('p', 4)}",
        "TAIL": 1 if small else 4,
        "TOP": constant.top,
    }
    name = f"{'conv' if layer.convolution else 'rows'}_{'small' if small else 'wide'}{column_size}{count_size}"
    function = tables.function(name, text.INTEGER_CONVOLUTION if layer.convolution else text.INTEGER_ROWS, parts)
    arguments = ["p", *([shape] if shape else []), x, y]
    return b"".join(stream), f"{function}({', '.join(arguments)});"


def _little(pointer: str, count: int) -> str:
    """A number of so many bytes, least significant first, as an expression."""
    terms = [f"{pointer}[0]", *(f"(uint32_t){pointer}[{i}] << {8 * i}" for i in range(1, count))]
    return terms[0] if count == 1 else f"({' | '.join(terms)})"
