"""What a policy takes: bytes of its file and of flash, time, and instructions on a board. Measured, also before a training."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from sb3_sparse.agents import measure_latency
from sb3_sparse.agents.observations import Observation, length
from sb3_sparse.distillation.learning.network import read_network
from sb3_sparse.distillation.search.candidates import Shape
from sb3_sparse.distillation.student import make_student
from sb3_sparse.export import CompressedPolicy, compress
from sb3_sparse.export.boards import BOARDS, DoesNotFit, measure_policy
from sb3_sparse.export.c.header import to_c
from sb3_sparse.export.c.tables import NBYTES
from sb3_sparse.runtime.network.records import Network
from sb3_sparse.sparsity import erk, magnitude, prune

#: Bytes of a header's code where no compiler for Thumb is there to tell. Networks of linear layers need 600 to 900.
CODE = 1024
COMPILER = ("arm-none-eabi-gcc", "-std=c99", "-O2", "-mthumb", "-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
_SIZE = "arm-none-eabi-size"
_ACT = '#include "policy.h"\nvoid act(const policy_observation *o, policy_action *a) { policy_act(o, a); }\n'
#: Observations that calls are timed with.
_TIMED = 64


@dataclass(frozen=True)
class Costs:
    """
    What a policy takes.

    :param bytes: Bytes of the compact file.
    :param tables: Bytes of the constant tables of its C header, in integer arithmetic if it has that.
    :param flash: The same with the code.
    :param weights: Weights that are not zero.
    :param us: Median time of a call on this machine, in microseconds.
    :param board: Name of the emulated board that its instructions were counted on; None if they were not.
    :param instructions: Instructions of an action there, see :func:`count_instructions`.
    """

    bytes: int
    tables: int
    flash: int
    weights: int
    us: float
    board: str | None = None
    instructions: int | None = None

    #: Of a policy without a return.
    kept = 0.0


def measure_costs(policy: CompressedPolicy, observations: Observation, board: str | None = None) -> Costs:
    """
    :param policy: An exported policy.
    :param observations: Observations as the environment gives them, ``[n, ...]``.
    :param board: Name of a board to count instructions on; None for none.
    :return: What it takes
    """
    network = policy.network
    flash, tables = flash_bytes(network)
    few = np.linspace(0, length(observations) - 1, _TIMED).astype(int)
    timed = {key: value[few] for key, value in observations.items()} if isinstance(observations, dict) else observations[few]
    latency = measure_latency({"policy": policy.predict}, timed)
    weights = sum(int(np.count_nonzero(layer.weight)) for layer in network.every_layer)
    instructions = None if board is None else count_instructions(network, board)
    return Costs(policy.nbytes, tables, flash, weights, float(np.median(latency.times["policy"])), board, instructions)


def foresee_costs(
    model: BaseAlgorithm,
    shape: Shape,
    bits: int,
    observations: Observation,
    normalization: VecNormalize | None,
    board: str | None = None,
) -> Costs:
    """
    :param model: The teacher.
    :param shape: A student's shape.
    :param bits: Its bits.
    :param observations: As in :func:`measure_costs`.
    :param normalization: The statistics of its observations, if they are normalized.
    :param board: As in :func:`measure_costs`.
    :return: What a student of this shape takes before it is trained: one with as many weights in each layer, at random
    """
    student, generator = make_student(model, shape.net_arch), th.Generator().manual_seed(0)
    weights = {name: p.data for name, p in read_network(student).named_parameters() if p.dim() > 1}
    for weight in weights.values():
        weight.copy_(th.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5)
    if shape.sparsity:
        masks = {name: th.ones_like(weight, dtype=th.bool) for name, weight in weights.items()}
        masks = prune(masks, magnitude(weights), erk(magnitude(weights), shape.sparsity))
        for name, weight in weights.items():
            weight *= masks[name]
    return measure_costs(compress(student, bits, observations, normalization=normalization), observations, board)


def count_instructions(network: Network, board: str) -> int | None:
    """
    :param network: An exported network with one observation.
    :param board: Name of a board whose tools are installed.
    :return: Instructions of an action of its C header under QEMU, the mean over the header's test vectors, in integer
        arithmetic if it has that; None if the policy is too large or too slow for the emulated board
    :raises ValueError: if test vectors of the header fail there
    """
    text = to_c(network, simd=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "policy.h").write_text(text)
        try:
            taken = measure_policy(folder, BOARDS[board], ["-DPOLICY_INTEGER"] * _has_integers(text))
        except DoesNotFit:
            return None
    if taken.self_test:
        raise ValueError(
            f"{taken.self_test} of the C header's test vectors fail on the emulated board {board}: report this as a bug"
        )
    return taken.instructions


def flash_bytes(network: Network) -> tuple[int, int]:
    """
    :param network: An exported network.
    :return: Bytes of its C header in flash, without test vectors and libraries: tables and code, and tables alone
    """
    text = to_c(network, simd=False)
    integers = _has_integers(text)
    tables = _table_bytes(text, integers=integers)
    return _compiled_bytes(text, integers=integers) or tables + CODE, tables


def _has_integers(text: str) -> bool:
    return "#elif defined(POLICY_INTEGER)\n" in text and "there are no integers in this file" not in text


def _table_bytes(text: str, *, integers: bool) -> int:
    part = text[text.index("#elif defined(POLICY_INTEGER)\n") :]
    own, _, rest = part.partition("\n#else\n")
    if not integers:
        own = rest[: rest.index("#ifdef POLICY_SELF_TEST")] if "#ifdef POLICY_SELF_TEST" in rest else rest
    found = re.findall(r"^static const (\w+) SB3S_FLASH \w+\[\] = \{(.*?)\};", own, flags=re.DOTALL | re.MULTILINE)
    return sum(NBYTES[kind] * (values.count(",") + 1) for kind, values in found)


def _compiled_bytes(text: str, *, integers: bool) -> int | None:
    """None where there is no compiler, or the policy takes more than one observation."""
    if shutil.which(COMPILER[0]) is None or shutil.which(_SIZE) is None:
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "policy.h").write_text(text)
        (folder / "act.c").write_text(_ACT)
        flags = ["-DPOLICY_INTEGER"] * integers
        command = [*COMPILER, *flags, "-c", str(folder / "act.c"), "-o", str(folder / "act.o")]
        if subprocess.run(command, capture_output=True).returncode:
            return None
        listed = subprocess.run([_SIZE, "-A", str(folder / "act.o")], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return sum(int(row[1]) for row in rows if len(row) == 3 and row[0].startswith((".text", ".rodata")))
