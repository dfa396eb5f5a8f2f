"""Layers as C tables and calls: in floats, and in integers as one stream of bytes each."""

import re
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.export.c import text
from sb3_sparse.export.c.integer import IntegerLayer
from sb3_sparse.runtime.format.delta import to_runs
from sb3_sparse.runtime.network.records import Activation, Fixed, Layer, Minifloats, Shape


def literal(value: float) -> str:
    """A float literal that reads back as the same float32; infinity as the largest there is, ValueError if it is no number."""
    if np.isnan(value):
        raise ValueError("a number of this network is NaN, for which C has no literal")
    limit = float(np.finfo(np.float32).max)
    number = np.format_float_scientific(np.float32(np.clip(value, -limit, limit)), unique=True, trim="0")
    return f"{number}f"


def fill(snippet: str, parts: Mapping[str, object]) -> str:
    """Text with the names between @ replaced; those that are not there stay."""
    return re.sub("@([A-Z]+)@", lambda match: str(parts.get(match[1], match[0])), snippet)


def activation(function: Activation) -> str:
    """An activation as an expression of v."""
    return fill(text.ACTIVATIONS[function.name], {"LOW": literal(function.low), "HIGH": literal(function.high)})


class Tables:
    """
    Constant tables and functions of one header, as far as they are written.

    :param name: What their names begin with.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: list[str] = []
        self.functions: dict[str, str] = {}

    def add(self, kind: str, name: str, values: NDArray[np.generic] | Iterable[float]) -> str:
        """Write a table; its name."""
        array = np.asarray(values).reshape(-1)
        cells = [literal(value) for value in array] if kind == "float" else [str(int(value)) for value in array]
        lines = [", ".join(cells[start : start + 24]) for start in range(0, len(cells), 24)] or ["0"]
        self.lines.append(f"static const {kind} {self.name}_{name}[] = {{\n    " + ",\n    ".join(lines) + "};")
        return f"{self.name}_{name}"

    def function(self, name: str, snippet: str, parts: Mapping[str, object]) -> str:
        """Write a function, once; its name."""
        full = f"{self.name}_{name}"
        self.functions.setdefault(full, fill(snippet, {**parts, "NAME": self.name, "FUNCTION": full}))
        return full

    def minifloat(self) -> str:
        """The function that unpacks a minifloat."""
        return self.function("minifloat", text.MINIFLOAT, {})


def offsets(layer: Layer, before: Shape) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.generic], str]:
    """
    :param layer: A layer.
    :param before: Shape of its input.
    :return: Entries per row, their places in the input (of a convolution: from the corner of a window), their weights, and the
        arguments of a convolution
    """
    weights = layer.weight.reshape(layer.outputs, -1)
    rows, columns = np.nonzero(weights)
    counts = np.bincount(rows, minlength=layer.outputs)
    arguments = ""
    if layer.convolution:
        _, height, width = before
        after = layer.sum_shape(before)
        channel, y, x = np.unravel_index(columns, layer.weight.shape[1:])
        arguments = f"{layer.outputs}, {after[1]}, {after[2]}, {layer.stride[0] * width}, {layer.stride[1]}"
        return counts, channel * height * width + y * width + x, weights[rows, columns], arguments
    return counts, columns, weights[rows, columns], arguments


def float_call(tables: Tables, index: int, layer: Layer, before: Shape, x: str, y: str) -> str:
    """
    :param tables: Where tables and functions go.
    :param index: Number of the layer.
    :param layer: The layer.
    :param before: Shape of its input.
    :param x: Name of the input buffer.
    :param y: Name of the output buffer.
    :return: The call that computes it, without activation
    """
    counts, columns, values, shape = offsets(layer, before)
    columns_kind = _unsigned(int(np.prod(before)) - 1)
    counts_kind = _unsigned(int(counts.max(initial=0)))
    weight = "int8_t" if layer.quantized else "float"
    packed = isinstance(layer.scale, Minifloats) and isinstance(layer.bias, Fixed)
    form = "packed" if packed else "plain" if layer.quantized else "unscaled"
    parameters, scale, offset = text.CONSTANTS[form]
    if packed:
        tables.minifloat()
    parts = {"COLUMN": columns_kind, "RUN": counts_kind, "WEIGHT": weight, "PARAMETERS": parameters}
    if layer.convolution:
        snippet = text.CONVOLUTION
        parts["CONSTANTS"] = f"scale = {scale}, offset = {offset}" if scale else f"offset = {offset}"
        parts["VALUE"] = "sum * scale + offset" if scale else "sum + offset"
    else:
        snippet = text.ROWS
        parts["VALUE"] = f"sum * ({scale}) + {offset}" if scale else f"sum + {offset}"
    name = "_".join(["conv" if layer.convolution else "rows", form, columns_kind, counts_kind])
    snippet = re.sub("@(CONSTANTS|VALUE)@", lambda match: parts[match[1]], snippet)
    function = tables.function(name.replace("_t", "").replace("uint", ""), snippet, parts)
    runs = counts if layer.convolution else _cut_runs(counts, 255 if counts_kind == "uint8_t" else 65535)
    arguments = [
        tables.add(columns_kind, f"columns{index}", columns),
        tables.add(weight, f"weights{index}", values),
        tables.add(counts_kind, f"runs{index}", runs),
        *([shape] if shape else []),
    ]
    if isinstance(layer.scale, Minifloats) and isinstance(layer.bias, Fixed):
        arguments += [tables.add("uint8_t", f"scale{index}", layer.scale.codes), literal(layer.scale.unit)]
        arguments += [tables.add("int16_t", f"bias{index}", layer.bias.codes), literal(layer.bias.unit)]
    else:
        arguments += [tables.add("float", f"scale{index}", layer.scales)] if layer.quantized else []
        arguments += [tables.add("float", f"bias{index}", layer.biases)]
    return f"{function}({', '.join([*arguments, x, y])});"


def integer_call(tables: Tables, layer: Layer, constant: IntegerLayer, before: Shape, x: str, y: str) -> tuple[bytes, str]:
    """
    :param tables: Where functions go.
    :param layer: The layer.
    :param constant: Its constants.
    :param before: Shape of its input.
    :param x: Name of the input buffer.
    :param y: Name of the output buffer; of one for sums where the constants have no factor.
    :return: Its bytes, and the call that reads them from ``p`` on
    """
    counts, columns, values, shape = offsets(layer, before)
    column_bytes = _bytes(int(np.prod(before)) - 1)
    count_bytes = 2 if layer.convolution else _bytes(int(counts.max(initial=0)))
    entries = [
        int(c).to_bytes(column_bytes, "little") + int(w).to_bytes(1, "little", signed=True)
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
        for count, length in _cut_runs(counts, 255):
            stream += [int(count).to_bytes(count_bytes, "little"), bytes([length]), *rows[start : start + length]]
            start += length
    if small:
        tables.minifloat()
    source = "q" if layer.convolution else "p"
    parts = {
        "RUN": count_bytes,
        "COUNT": _little("p", count_bytes),
        "COLUMN": _little(source, column_bytes),
        "WEIGHT": column_bytes,
        "ENTRY": column_bytes + 1,
        "MULTIPLIER": f"(factor * {tables.name}_minifloat(*p))" if small else f"(int32_t){_little('p', 4)}",
        "TAIL": 1 if small else 4,
        "TOP": constant.top,
    }
    name = f"{'conv' if layer.convolution else 'rows'}_{'small' if small else 'wide'}{column_bytes}{count_bytes}"
    function = tables.function(name, text.INTEGER_CONVOLUTION if layer.convolution else text.INTEGER_ROWS, parts)
    arguments = ["p", *([shape] if shape else []), x, y]
    return b"".join(stream), f"{function}({', '.join(arguments)});"


def _little(pointer: str, count: int) -> str:
    """A number of so many bytes, least significant first, as an expression."""
    terms = [f"{pointer}[0]", *(f"(uint32_t){pointer}[{i}] << {8 * i}" for i in range(1, count))]
    return terms[0] if count == 1 else f"({' | '.join(terms)})"


def _bytes(largest: int) -> int:
    return 1 if largest < 1 << 8 else 2 if largest < 1 << 16 else 4


def _unsigned(largest: int) -> str:
    return f"uint{8 * _bytes(largest)}_t"


def _cut_runs(counts: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Runs of counts, none longer than fits, and an empty one at the end."""
    runs = [(count, min(most, length - start)) for count, length in to_runs(counts) for start in range(0, length, most)]
    return np.array([*runs, (0, 0)])
