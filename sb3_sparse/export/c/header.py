"""
One C99 header with a policy: tables, code, test vectors and a self test.

Three arithmetics in the same file. W8A32: weights of up to 8 bits, float activations, as the Python backends compute. W8A16:
only integers between the observation and the last layer, for processors without a floating-point unit
(:mod:`~sb3_sparse.export.c.integer.constants`); it computes a hidden activation other than ReLU in float, and does not
compute residual networks. SIMD: the kernels of the runtime for AVX-512 VBMI, AVX2 or NEON, with 8-bit hidden activations.
"""

import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod

import numpy as np

from sb3_sparse.export.c import text
from sb3_sparse.export.c.ends import arguments, assemble_code, choice_parts, declare
from sb3_sparse.export.c.float_code import FLOAT, float_code
from sb3_sparse.export.c.integer.code import integer_code
from sb3_sparse.export.c.integer.constants import without_integers
from sb3_sparse.export.c.layers import choose_forms
from sb3_sparse.export.c.recurrence import stack_code, state_parts
from sb3_sparse.export.c.simd_code import SIMD, simd_code
from sb3_sparse.export.c.tables import KERNELS, fill, once
from sb3_sparse.export.c.vectors import COUNT, copy_parts, vectors
from sb3_sparse.runtime.masks import with_outputs
from sb3_sparse.runtime.network.capabilities import require_known, unknown
from sb3_sparse.runtime.network.records import Network
from sb3_sparse.version import __version__


def to_c(network: Network, *, name: str = "policy", masks: bool = False, pack: bool = True, simd: bool = True) -> str:
    """
    :param network: A network, quantized or float.
    :param name: Prefix of functions, types and (in capitals) macros.
    :param masks: Whether discrete actions are chosen among those that are allowed: the policy gives the values of all actions
        then, and ``<name>_choose`` takes the best.
    :param pack: Whether weights of 2, 3, 4 or 6 bits share bytes where that takes less flash; a byte for each weight is read
        in fewer instructions.
    :param simd: Whether the header has code for 8-bit activations in SIMD registers as well, which no microcontroller runs and
        which is most of its text.
    :return: The text of the header
    :raises ValueError: if the name is not a C identifier, a number is NaN, the float code does not compute the network, or
        there are masks and the actions are not discrete
    """
    head = network.head
    network = with_outputs(network) if masks else network
    # Code that all headers share has the prefix sb3s_.
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name == "sb3s":
        raise ValueError(f"name='{name}' must be a C identifier in small letters other than sb3s")
    require_known(network, FLOAT)
    _ = network.shapes  # Raises an error if something does not fit.
    upper = name.upper()
    quantized = all(layer.quantized for layer in network.every_layer)
    # The stack of frames is the same in every arithmetic.
    whole = replace(network, stack=None)
    no_integers = without_integers(whole)
    no_simd = "exported with simd=False" if not simd else without_simd(whole)
    integers, with_simd = no_integers is None, no_simd is None
    smooth = (KERNELS / "smooth.h").read_text()
    parts = _parts(network, name, pack=pack, quantized=quantized, integers=integers, simd=with_simd)
    for key, part in choice_parts(head, name).items() if masks else ():
        parts[key] = f"{parts[key]}{part}"
    body = "\n".join(
        [
            once("SB3S_ACTIVATIONS", (KERNELS / "activations.h").read_text()),
            *[smooth] * any(f"float sb3s_{layer.activation.name}(" in smooth for layer in network.every_layer),
            *[(KERNELS / "lstm.h").read_text()] * bool(network.lstms),
            *[(KERNELS / "norm.h").read_text()] * any(layer.norm is not None for layer in network.every_layer),
            f"#if defined({upper}_SIMD)\n",
            text.ONLY_C + _code(simd_code, network, name) if with_simd else f'#error "{no_simd}"',
            f"\n#elif defined({upper}_INTEGER)\n",
            (
                _code(partial(integer_code, pack=pack), network, name)
                if integers
                else f'#error "{no_integers}: there are no integers in this file"'
            ),
            "\n#else\n",
            _code(partial(float_code, pack=pack), network, name),
            "\n#endif",
            fill(text.SELF_TEST, {**parts, "VECTORS": vectors(network, name, integers=integers, simd=with_simd)}),
        ]
    )
    return fill(text.HEADER, {**parts, "CHECKSUM": f"0x{zlib.crc32(body.encode()):08x}u"}) + "\n" + body


def without_simd(network: Network) -> str | None:
    """
    :param network: A network without a stack of frames.
    :return: Why a header has no code for SIMD registers; None if it has
    """
    if not all(layer.quantized for layer in network.every_layer):
        return "exported with float weights: no 8-bit activations"
    return unknown(network, SIMD)


def _activations(network: Network) -> str:
    """The bits of activations in integers, in words."""
    grids = [layer.grid for layer in network.every_layer if layer.grid is not None]
    widths = {(grid.top - grid.low).bit_length() for grid in grids} or {16}
    return f"activations of {max(widths)} bits" if len(widths) > 1 else f"{max(widths)}-bit activations"


def _code(write: Callable[[Network, str], str], network: Network, name: str) -> str:
    """The code of a network in one arithmetic; with parts or a stack, that of its encoders and layers, and what calls them."""
    if not network.parts and network.stack is None:
        return write(network, name)
    networks = {f"{name}_part{index}": part.encoder for index, part in enumerate(network.parts) if part.encoder is not None}
    lines = []
    for prefix, each in {**networks, f"{name}_vector": replace(network, parts=(), stack=None)}.items():
        action = "float" if prefix in networks else f"{name}_action"
        lines += [f"#define {prefix.upper()}_STORAGE {name.upper()}_STORAGE", f"#define {prefix.upper()}_LINKAGE static"]
        lines += [
            f"typedef {'uint8_t' if each.image else 'float'} {prefix}_observation;",
            f"typedef {action} {prefix}_action;",
        ]
        lines += [f"typedef {name}_state {prefix}_state;"] * bool(each.lstms) + [write(each, prefix)]
    return "\n".join([*lines, "", assemble_code(network, name) if network.stack is None else stack_code(network, name)])


def _parts(network: Network, name: str, *, pack: bool, quantized: bool, integers: bool, simd: bool) -> dict[str, object]:
    weights = sum(int(np.count_nonzero(layer.weight)) for layer in network.every_layer)
    networks = (*network.encoders.values(), network)
    bits = max(form.width for each in networks for form in choose_forms(each, pack=pack))
    given = arguments(network, name)
    typed = given[0].part is None or not given[0].part.key
    return {
        "NAME": name,
        "UPPER": name.upper(),
        "VERSION": __version__,
        "SUMMARY": f"{len(network.every_layer)} layers, {weights} weights.",
        "ARGUMENTS": declare(given, name),
        "INPUTS": "\n   ".join(argument.describe(network) for argument in given),
        "OBSERVATION": f"typedef {given[0].kind} {name}_observation;\n" if typed else "",
        **copy_parts(network, name),
        "ACTIONS": prod(network.head.shape),
        "DEFAULT": f"{f'{bits}-bit' if quantized else 'float'} weights, float activations",
        "INTEGER": "      "
        + (f"the hidden layers in integers: {bits}-bit weights, {_activations(network)}" if integers else "not in this file"),
        "SIMD": "         "
        + (
            "8-bit hidden activations in vectors: AVX-512 VBMI, AVX2 or NEON (-O3 -march=native)"
            if simd
            else "not in this file"
        ),
        "ACTION": "int32_t" if network.head.kind == "argmax" else "float",
        "COUNT": COUNT,
        **state_parts(network, name),
    }
