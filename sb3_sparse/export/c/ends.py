"""From an observation to the inputs of the first layer, and from the outputs of the last layer to an action, in C."""

import re
from math import prod
from typing import NamedTuple

import numpy as np

from sb3_sparse.export.c.tables import Tables, fill, literal
from sb3_sparse.runtime.network.records import Floats, Head, Network, Normalize, Part

#: What an argument cannot be named: keywords of C and C++, and what the function names itself.
_TAKEN = """
    action state x i alignas alignof and asm auto bitand bitor bool break case catch char class compl const constexpr continue
    decltype default delete do double else enum explicit export extern false float for friend goto if inline int long
    mutable namespace new noexcept not nullptr operator or private protected public register restrict return short signed
    sizeof static struct switch template this throw true try typedef typeid typename union unsigned using virtual void
    volatile while xor
"""


class Argument(NamedTuple):
    """
    An array of an observation as an argument of a C function.

    :param name: Its name: the key, as an identifier.
    :param kind: Type of its elements.
    :param part: The array; None where the observation is nothing else.
    """

    name: str
    kind: str
    part: Part | None

    def describe(self, network: Network) -> str:
        """A sentence for the header's comment."""
        shape = network.frame_shape if self.part is None else self.part.shape
        order = f", in the order {'x'.join(map(str, shape))}" if len(shape) > 1 else ""
        key = ascii(self.part.key).replace("*/", "* /") if self.part is not None and self.part.key else ""
        name = self.name if key[1:-1] in ("", self.name) else f"{self.name} (the key {key})"
        if self.part is not None and self.part.sizes:
            last = ", ".join(str(size - 1) for size in self.part.sizes)
            what = f"{prod(shape)} classes{order}, each from 0 to" if shape else "a class from 0 to"
            return f"{name}: {what} {last}; any other number counts as none."
        return f"{name}: {prod(shape)} numbers as the environment gives them{order}."


def arguments(network: Network, name: str) -> list[Argument]:
    """
    :param network: A network.
    :param name: Prefix of all names in the header.
    :return: The arrays that its C function takes, in order
    """
    if not network.parts:
        return [Argument("observation", "uint8_t" if network.image else "float", None)]
    found: list[Argument] = []
    taken = {*_TAKEN.split(), f"{name}_action", f"{name}_state", f"{name}_vector_act"}
    taken |= {f"{name}_part{index}_act" for index in range(len(network.parts))}
    for part in network.parts:
        word = re.sub(r"\W+", "_", part.key or "observation", flags=re.ASCII)
        word = word if re.match("[a-zA-Z]", word) else f"observation_{word}".rstrip("_")
        while word in taken or word.endswith("_t"):
            word += "_"
        taken.add(word)
        image = part.encoder is not None and part.encoder.image
        found.append(Argument(word, "int32_t" if part.sizes else "uint8_t" if image else "float", part))
    return found


def assemble_code(network: Network, name: str) -> str:
    """
    :param network: A network with parts.
    :param name: Prefix of all names.
    :return: The function that makes one vector of the parts, ``<name>_part0_act()`` and so on being the encoders, and calls
        ``<name>_vector_act()``
    """
    lines, start = [f"{name.upper()}_STORAGE float x[{network.shape[0]}];"], 0
    if any(part.encoder is None for part in network.parts):
        lines.append("int i;")
    given = arguments(network, name)
    for index, (argument, part) in enumerate(zip(given, network.parts, strict=True)):
        at = f"{start} + " if start else ""
        if part.encoder is not None:
            lines.append(f"{name}_part{index}_act({argument.name}, x + {start});")
        else:
            value = "0.0f" if part.sizes else f"{argument.name}[i]"
            lines.append(f"for (i = 0; i < {part.width}; i++) x[{at}i] = {value};")
        first = start
        for element, size in enumerate(part.sizes):
            number = f"{argument.name}[{element}]"
            lines.append(f"if ({number} >= 0 && {number} < {size}) x[{first} + {number}] = 1.0f;")
            first += size
        start += part.width
    state, passed = (f"{name}_state *state, ", "state, ") if network.lstms else ("", "")
    signature = f"{name.upper()}_LINKAGE void {name}_act({state}{declare(given, name)}, {name}_action *action) {{"
    return "\n".join([signature, *(f"    {line}" for line in lines), f"    {name}_vector_act({passed}x, action);", "}"])


def declare(given: list[Argument], name: str) -> str:
    """
    :param given: The arrays that a function takes.
    :param name: Prefix of all names.
    :return: Their declarations
    """
    if given[0].part is None or not given[0].part.key:
        return f"const {name}_observation *observation"
    return ", ".join(f"const {argument.kind} *{argument.name}" for argument in given)


_NOTE = """\

   The actions are the values of all discrete actions. The best of those that are allowed:

   void @NAME@_choose(const @NAME@_action *values, const uint8_t *allowed, int32_t *choice);

   values, allowed (0 or 1): @VALUES@; choice: @GROUPS@, the first where none is allowed.
"""
_CHOOSE = """
static inline void @NAME@_choose(const @NAME@_action *values, const uint8_t *allowed, int32_t *choice) {
    static const int32_t sizes[] = {@SIZES@};
    int group, i;
    for (group = 0; group < @GROUPS@; group++) {
        float best = 0.0f;
        int found = 0;
        choice[group] = 0;
        for (i = 0; i < sizes[group]; i++)
            if (allowed[i] && (!found || values[i] > best)) {
                best = values[i];
                found = 1;
                choice[group] = i;
            }
        values += sizes[group];
        allowed += sizes[group];
    }
}
"""


def input_code(network: Network, tables: Tables) -> list[str]:
    """
    :param network: The network.
    :param tables: Where its tables go.
    :return: Lines that declare v, input number i of the first layer: normalized, and times its gain without the gain's unit
    """
    lines = ["float v = (float)observation[i];"]
    if network.normalize is not None:
        lines += normalize_code(network.normalize, tables)
    gain = network.layers[0].gain
    if gain is not None:
        lines.append(f"v *= (float){tables.minifloat()}({tables.add('uint8_t', 'gain', gain.codes)}[i]);")
    return [f"    {line}" for line in lines]


def normalize_code(normalize: Normalize, tables: Tables) -> list[str]:
    """
    :param normalize: A normalization.
    :param tables: Where its tables go.
    :return: Lines that normalize v, input number i
    """
    mean, scale = (tables.add("float", key, getattr(normalize, key)) for key in ("mean", "scale"))
    lines = [f"v = (v - {mean}[i]) * {scale}[i];"]
    limits = normalize.limits.reshape(-1)
    if np.isfinite(limits).any():
        limit = _bound(tables, "limit", limits)
        lines.append(f"v = v < -{limit} ? -{limit} : v > {limit} ? {limit} : v;")
    return lines


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
        # Some compilers cannot tell that the first output is always taken.
        f"    action[{index}] = 0;",
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


def choice_parts(head: Head, name: str) -> dict[str, str]:
    """
    :param head: A head of discrete actions.
    :param name: Prefix of all names.
    :return: The parts of a header about the choice among its values
    """
    sizes = ", ".join(map(str, head.groups))
    names = {"NAME": name, "VALUES": head.inputs, "GROUPS": len(head.groups), "SIZES": sizes}
    return {"NOTE": fill(_NOTE, names), "STATE": fill(_CHOOSE, names)}
