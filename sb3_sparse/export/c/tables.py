"""Constant tables and functions of a header, and numbers and activations as C."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.export.c import text
from sb3_sparse.runtime import backends
from sb3_sparse.runtime.network.records import Activation

#: The runtime's C code.
KERNELS = Path(backends.__file__).parent / "c"
#: Bytes of a number of each kind.
NBYTES = {"int8_t": 1, "uint8_t": 1, "int16_t": 2, "uint16_t": 2, "int32_t": 4, "uint32_t": 4, "float": 4}
#: Bytes of tables that fit into the 64 KiB that 16-bit pointers tell apart, beside test vectors and other constants.
_ADDRESSED = 48 * 1024


def literal(value: float) -> str:
    """A float literal that reads back as the same float32, infinity as the largest float32; ValueError of NaN."""
    if np.isnan(value):
        raise ValueError("a number of this network is NaN, for which C has no literal")
    limit = float(np.finfo(np.float32).max)
    number = np.format_float_scientific(np.float32(np.clip(value, -limit, limit)), unique=True, trim="0")
    return f"{number}f"


def fill(snippet: str, parts: Mapping[str, object]) -> str:
    """Text with the names between @ replaced by their parts; names without a part stay."""
    return re.sub("@([A-Z]+)@", lambda match: str(parts.get(match[1], match[0])), snippet)


def once(macro: str, code: str) -> str:
    """Code that several headers bring along, compiled with the first."""
    return f"#ifndef {macro}\n#define {macro}\n{code}#endif\n"


class Tables:
    """
    Constant tables and functions of one header, in the order in which they are asked for.

    :param name: Prefix of their names.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: list[str] = []
        self.nbytes = 0
        self.functions: dict[str, str] = {}

    def add(self, kind: str, name: str, values: NDArray[np.generic] | Iterable[float]) -> str:
        """Write a table; its name."""
        array = np.asarray(values).reshape(-1)
        cells = [literal(value) for value in array] if kind == "float" else [str(int(value)) for value in array]
        lines = [", ".join(cells[start : start + 24]) for start in range(0, len(cells), 24)] or ["0"]
        self.lines.append(f"static const {kind} SB3S_FLASH {self.name}_{name}[] = {{\n    " + ",\n    ".join(lines) + "};")
        self.nbytes += array.size * NBYTES[kind]
        return f"{self.name}_{name}"

    def function(self, name: str, snippet: str, parts: Mapping[str, object]) -> str:
        """Write a function, once; its name."""
        full = f"{self.name}_{name}"
        self.functions.setdefault(full, fill(snippet, {**parts, "NAME": self.name, "FUNCTION": full}))
        return full

    def activation(self, function: Activation, index: int, row: str) -> str:
        """The activation of the layer with this index, as an expression of v, which is a sum of this row."""
        parts = {"LOW": literal(function.low), "HIGH": literal(function.high)}
        if function.slopes is not None:
            parts["SLOPE"] = f"{self.add('float', f'slopes{index}', function.slopes)}[{row}]"
        return fill(text.ACTIVATIONS[function.name], parts)

    def minifloat(self) -> str:
        """The function that unpacks a minifloat."""
        return self.function("minifloat", text.MINIFLOAT, {})

    def code(self, width: int) -> str:
        """The function that reads the next code of so many bits."""
        return self.function(f"code{width}", text.CODE, {"WIDTH": width, "SHIFT": 32 - width})

    def act(self, variables: Iterable[str], code: Iterable[str], *, remembers: bool = False) -> str:
        """The function ``<name>_act`` with these lines in it, and before it the functions and tables that it uses."""
        parameters = [f"{self.name}_state *state"] * remembers
        parameters += [f"const {self.name}_observation *observation", f"{self.name}_action *action"]
        signature = f"{self.name.upper()}_LINKAGE void {self.name}_act({', '.join(parameters)}) {{"
        lines = [f"    {line}" for line in [*variables, "int i;", *code]]
        limit = [fill(text.LIMIT, {"BYTES": self.nbytes})] * (self.nbytes > _ADDRESSED)
        return "\n".join([*limit, *self.functions.values(), "", *self.lines, "", signature, *lines, "}"])
