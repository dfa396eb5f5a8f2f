"""The runtime's kernels for vector registers, with a plan for each family of them: 8-bit weights, 8-bit hidden activations."""

import re
from math import prod

import numpy as np

from sb3_sparse.export.c.tables import KERNELS, once
from sb3_sparse.runtime.backends.families import FAMILIES
from sb3_sparse.runtime.backends.int8 import INT8
from sb3_sparse.runtime.backends.plan import Plan
from sb3_sparse.runtime.network.records import Network

#: It computes what the backend does, and says in a header what to do instead.
SIMD = INT8.renamed("the code for SIMD registers", "leave the macro out")


def simd_code(network: Network, name: str) -> str:
    """
    :param network: A quantized network.
    :param name: Prefix of all names.
    :return: The runtime's kernels, the network's plans, and the function that calls them. The compiler takes the first family
        that its target has
    """
    plans = {family: Plan(network, family) for family in FAMILIES.values()}
    kernels = _inline((KERNELS / "kernels.h").read_text(), without=("activations.h", "panel.h"))
    actions, discrete = prod(network.head.shape), network.head.kind == "argmax"
    to = "whole" if discrete else "action"
    body = [
        f"{name.upper()}_STORAGE float x[{max(plan.scratch for plan in plans.values()) // 4}] __attribute__((aligned(64)));",
        *([f"int64_t whole[{actions}];"] if discrete else []),
        *([] if network.image and not discrete else ["int i;"]),
        *([] if network.image else [f"for (i = 0; i < {prod(network.shape)}; i++) x[i] = observation[i];"]),
        f"sb3s_act((const sb3s_plan *){name}_plan, {'observation' if network.image else 'NULL'}, x, {to}, NULL);",
        *([f"for (i = 0; i < {actions}; i++) action[i] = (int32_t)whole[i];"] if discrete else []),
    ]
    lines = [once("SB3S_KERNELS", kernels)]
    for index, (family, plan) in enumerate(plans.items()):
        lines += [f"#{'elif' if index else 'if'} defined(SB3S_{family.name.upper()})", _table(plan, name)]
    needs = ", or ".join(family.needs for family in plans)
    return "\n".join(
        [
            *lines,
            "#else",
            f'#error "8-bit activations need {needs}: compile with -O3 -march=native where the processor has one of them"',
            "#endif",
            f"{name.upper()}_LINKAGE void {name}_act(const {name}_observation *observation, {name}_action *action) {{",
            *(f"    {line}" for line in body),
            "}",
        ]
    )


def _table(plan: Plan, name: str) -> str:
    # Words take fewer characters than bytes. All families are of processors that have the lowest byte first.
    words = np.frombuffer(plan.data, "<u4")
    lines = [",".join(map(str, words[start : start + 12])) for start in range(0, len(words), 12)]
    return f"static const uint32_t {name}_plan[] __attribute__((aligned(64))) = {{\n" + ",\n".join(lines) + "};"


def _inline(code: str, without: tuple[str, ...] = ()) -> str:
    """Code with its includes replaced by the included headers of the runtime, but for some."""

    def included(match: re.Match[str]) -> str:
        return "" if match[1] in without else _inline((KERNELS / match[1]).read_text(), without)

    return re.sub('#include "(.*)"', included, code)
