"""The AVX-512 VBMI kernels of the runtime with their plan: 8-bit weights, 8-bit hidden activations."""

import re
from math import prod

import numpy as np

from sb3_sparse.export.c.tables import KERNELS, once
from sb3_sparse.runtime.backends.families import VBMI
from sb3_sparse.runtime.backends.plan import Plan
from sb3_sparse.runtime.network.records import Network


def vbmi_code(network: Network, name: str) -> str:
    """
    :param network: A quantized network.
    :param name: Prefix of all names.
    :return: The runtime's kernels, the network's plan, and the function that calls them
    """
    block = Plan(network, VBMI)
    kernels = _inline((KERNELS / "kernels.h").read_text(), without=("activations.h", "avx2.h", "neon.h", "panel.h"))
    data = np.frombuffer(block.data, np.uint8)
    lines = [", ".join(map(str, data[start : start + 32])) for start in range(0, len(data), 32)]
    actions, discrete = prod(network.head.shape), network.head.kind == "argmax"
    to = "whole" if discrete else "action"
    body = [
        f"{name.upper()}_STORAGE float x[{block.scratch // 4}] __attribute__((aligned(64)));",
        *([f"int64_t whole[{actions}];"] if discrete else []),
        *([] if network.image and not discrete else ["int i;"]),
        *([] if network.image else [f"for (i = 0; i < {prod(network.shape)}; i++) x[i] = observation[i];"]),
        f"sb3s_act((const sb3s_plan *){name}_plan, {'observation' if network.image else 'NULL'}, x, {to}, NULL);",
        *([f"for (i = 0; i < {actions}; i++) action[i] = (int32_t)whole[i];"] if discrete else []),
    ]
    return "\n".join(
        [
            once("SB3S_KERNELS", kernels),
            "#ifndef SB3S_VBMI",
            '#error "no AVX-512 VBMI and VNNI: compile with -march=native on a processor that has them"',
            "#endif",
            f"static const unsigned char {name}_plan[] __attribute__((aligned(64))) = {{\n    " + ",\n    ".join(lines) + "};",
            f"{name.upper()}_LINKAGE void {name}_act(const {name}_observation *observation, {name}_action *action) {{",
            *(f"    {line}" for line in body),
            "}",
        ]
    )


def _inline(code: str, without: tuple[str, ...] = ()) -> str:
    """Code with its includes replaced by the included headers of the runtime, but for some."""

    def included(match: re.Match[str]) -> str:
        return "" if match[1] in without else _inline((KERNELS / match[1]).read_text(), without)

    return re.sub('#include "(.*)"', included, code)
