"""
What targets share: the parts of their templates, and the two files of C that most of them hold as well as the header.

A target is a table from paths to texts, both of which are templates: names between @ stand for parts. Each line that begins
with @INTEGERS@ is there only if the header has integer code, with @SIMD@ only if it has code for SIMD registers, and with
@REMEMBERS@ only if the policy remembers something. A file without any line is not written.

    @NAME@ @UPPER@      prefix of the functions, and of the macros
    @LIBRARY@           ``<name>_policy``, the name of the project: no build system and no C library has it already
    @CODE@              the C header
    @VERSION@ @SUMMARY@ the version of this package, and a sentence about the policy
    @DECLARE@           C: variables for an observation, an action and what the policy remembers
    @CALL@              C: what acts on them, or gives the values of all actions
    @READ@              C++: the observation is read from the array ``data``
    @INPUTS@ @OUTPUTS@  how many numbers an observation and an action have
    @KIND@              type of a number of an action, ``Float32`` or ``Int32``
"""

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import numpy as np

from sb3_sparse.export.c.ends import Argument, arguments
from sb3_sparse.export.c.header import without_simd
from sb3_sparse.export.c.integer.constants import without_integers
from sb3_sparse.runtime.network.records import Network
from sb3_sparse.version import __version__

#: Templates of files by path.
Target = Mapping[str, str]

#: What other files of a project include.
PUBLIC = """\
/* @SUMMARY@ Written by sb3_sparse @VERSION@.
   @LIBRARY@.c holds its code; the comment in @NAME@_code.h says what the arguments are. */
#define @UPPER@_EXTERN
#include "@NAME@_code.h"
"""
#: What is compiled.
SOURCE = """\
#define @UPPER@_LINKAGE
#define @UPPER@_SELF_TEST
#include "@NAME@_code.h"
"""


def make_parts(
    network: Network, name: str, code: str, *, simd: bool, masks: bool
) -> tuple[dict[str, object], dict[str, bool]]:
    """
    :param network: A network, as the header holds it.
    :param name: Prefix of all names.
    :param code: The C header.
    :param simd: Whether code for SIMD registers was asked for.
    :param masks: Whether the policy gives values, among which an action is chosen.
    :return: The parts of templates, and which of the conditional lines are there
    """
    given, remembers = arguments(network, name), network.remembers
    sizes = [_size(network, argument) for argument in given]
    outputs = prod(network.head.shape)
    names = [argument.name for argument in given]
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    weights = sum(int(np.count_nonzero(layer.weight)) for layer in network.every_layer)
    declared = [f"static {argument.kind} {argument.name}[{size}];" for argument, size in zip(given, sizes, strict=True)]
    output = "values" if masks else "action"
    choice = f" /* {name}_choose(values, allowed, choice) then takes the best that is allowed */" * masks
    declared += [f"static {name}_action {output}[{outputs}];", *[f"static {name}_state state;"] * remembers]
    reads = [
        f"for (size_t i = 0; i < {size}; i++) {argument.name}[i] = static_cast<{argument.kind}>(data[{start} + i]);"
        for argument, start, size in zip(given, starts, sizes, strict=True)
    ]
    parts: dict[str, object] = {
        "NAME": name,
        "UPPER": name.upper(),
        "LIBRARY": f"{name}_policy",
        "CODE": code,
        "VERSION": __version__,
        "SUMMARY": f"A policy of {len(network.every_layer)} layers and {weights} weights.",
        "DECLARE": "\n".join(declared),
        "CALL": f"{name}_act({', '.join([*['&state'] * remembers, *names, output])});{choice}",
        "READ": "\n".join(f"        {line}" for line in reads),
        "INPUTS": sum(sizes),
        "OUTPUTS": outputs,
        "KIND": "Int32" if network.head.kind == "argmax" else "Float32",
    }
    whole = replace(network, stack=None)
    integers, simd = without_integers(whole) is None, simd and without_simd(whole) is None
    return parts, {"INTEGERS": integers, "SIMD": simd, "REMEMBERS": remembers}


def _size(network: Network, argument: Argument) -> int:
    return prod(network.frame_shape if argument.part is None else argument.part.shape)
