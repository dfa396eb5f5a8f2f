"""From an observation to the inputs of the first layer, and from the outputs of the last layer to an action, in C."""

from math import prod

import numpy as np

from sb3_sparse.export.c.tables import Tables, literal
from sb3_sparse.runtime.network.records import Floats, Head, Network


def input_code(network: Network, tables: Tables) -> list[str]:
    """
    :param network: The network.
    :param tables: Where its tables go.
    :return: Lines that declare v, input number i of the first layer: normalized, and times its gain without the gain's unit
    """
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


def head_code(head: Head, tables: Tables, value: list[str]) -> list[str]:
    """
    :param head: The head.
    :param tables: Where its tables go.
    :param value: Lines that declare v, output number @I@.
    :return: Lines that write ``action``; they use ``i``
    """
    if head.kind == "argmax":
        lines, start = [], 0
        for index, group in enumerate(head.groups):
            lines += _argmax(index, start, group, value)
            start += group
        return lines
    if head.kind == "positive":
        # NaN stays NaN.
        expression = "v > 0.0f ? 1.0f : v <= 0.0f ? 0.0f : v"
    else:
        expression = _bounded(head, tables)
    lines = [f"    {line.replace('@I@', 'i')}" for line in value]
    return [f"for (i = 0; i < {prod(head.shape)}; i++) {{", *lines, f"    action[i] = {expression};", "}"]


def _argmax(index: int, start: int, group: int, value: list[str]) -> list[str]:
    """One group, whose outputs begin at ``start``."""
    lines = [line.replace("@I@", f"{start} + i" if start else "i") for line in value]
    return [
        "{",
        "    float best = 0.0f;",
        f"    for (i = 0; i < {group}; i++) {{",
        *(f"        {line}" for line in lines),
        "        if (i == 0 || v > best) {",
        "            best = v;",
        f"            action[{index}] = i;",
        "        }",
        "    }",
        "}",
    ]


def _bounded(head: Head, tables: Tables) -> str:
    """A continuous action as an expression of v."""
    assert head.low is not None and head.high is not None
    half = (head.high - head.low) * np.float32(0.5)
    if head.kind == "unscale" and (head.low == -1).all() and (half == 1).all():
        return "v"
    low = _bound(tables, "low", head.low)
    if head.kind == "unscale":
        return f"{low} + (v + 1.0f) * {_bound(tables, 'half', half)}"
    high = _bound(tables, "high", head.high)
    bounds = [f"v < {low} ? {low} : "] * (not np.isneginf(head.low).all())
    bounds += [f"v > {high} ? {high} : "] * (not np.isposinf(head.high).all())
    return "".join([*bounds, "v"])


def _bound(tables: Tables, name: str, values: Floats) -> str:
    return literal(values[0]) if (values == values[0]).all() else f"{tables.add('float', name, values)}[i]"
