"""A trace as the kernels read it: an array of instructions, with memory for every value."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from sb3_sparse.engine.kernels import library
from sb3_sparse.engine.kernels.structs import BLOCK, LANES, Flag, Op, Operand
from sb3_sparse.engine.kernels.structs import Instruction as Encoded
from sb3_sparse.engine.networks.memory import zeros
from sb3_sparse.engine.networks.structure import Dense
from sb3_sparse.engine.program.memory import Memory
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Instruction, Value


class Program:
    """
    Executable instructions. Build it again after the layout of parameters has changed.

    :param trace: The instructions.
    :param team: A second thread that takes every other block.
    """

    def __init__(self, trace: Trace, team: library.Team | None = None) -> None:
        batch_size = trace.batch_size
        kernels = library.load()
        self._run = kernels.engine_run if team is None else partial(_run_by_two, kernels, team)
        threads = 1 if team is None else 2
        self._noises = trace.noises
        self._panels = -(-batch_size // LANES)
        #: Of a single sample all lanes hold the same.
        self._flags = {Op.LINEAR: Flag.SAME_LANES} if batch_size == 1 else {}
        self._instructions = [i for i in _with_statistics(trace, self) if _is_needed(i)]
        self.statistics = zeros(max(len(trace.statistics), 1))
        self.names = list(trace.statistics)
        self._memory = Memory(self._instructions, trace.kept, self._panels, threads)
        sample = np.arange(self._panels * LANES).reshape(self._panels, 1, LANES)
        self._memory.rows(trace.share)[...] = (sample < batch_size) / batch_size
        self._scratch = zeros(threads * LANES * BLOCK * LANES if any(map(_needs_scratch, self._instructions)) else 0)
        self._encoded = (Encoded * len(self._instructions))(*map(self._encode, self._instructions))

    def run(self) -> dict[str, float]:
        """
        Draw the noises, and execute the instructions once.

        :return: The statistics by name
        """
        for noise in self._noises:
            noise.draw()
        code = self._run(self._encoded, len(self._encoded), self._panels)
        if code:
            raise RuntimeError(f"the kernels refuse {self._instructions[code - 1]}")
        return dict(zip(self.names, self.statistics.tolist(), strict=False))

    def rows(self, value: Value) -> np.ndarray:
        """
        :param value: A value that was kept.
        :return: Its numbers, a view of shape ``[panels, lanes, features]``
        """
        return self._memory.rows(value).transpose(0, 2, 1)

    def _encode(self, instruction: Instruction) -> Encoded:
        flags = instruction.flags | self._flags.get(instruction.op, 0)
        encoded = Encoded(op=instruction.op, flags=flags, n=instruction.n, k=instruction.k)
        for name in ("dst", "a", "b", "c"):
            value = getattr(instruction, name)
            if value is not None:
                setattr(encoded, name, self._memory.operand(value, broadcast=value.features == 1 and instruction.n > 1))
        if instruction.flat is not None:
            flat = instruction.flat()
            encoded.n, encoded.k, encoded.data = flat.n, flat.k, flat.data
            for name, address in flat.operands.items():
                setattr(encoded, name, Operand(address, 0, 0, -1))
        elif instruction.weights is not None:
            encoded.layer = ctypes.addressof(instruction.weights.description)
        if instruction.data is not None:
            encoded.data = instruction.data()
        elif _needs_scratch(instruction):
            encoded.data = self._scratch.ctypes.data
        encoded.x[: len(instruction.x)] = instruction.x
        return encoded


def _run_by_two(kernels: ctypes.CDLL, team: library.Team, *program: Any) -> int:
    return int(kernels.engine_run_by_two(*program, team.address))


def _with_statistics(trace: Trace, program: Program) -> list[Instruction]:
    """The instructions, and at their end the sums that are logged."""
    sums = [
        Instruction(Op.SUM_BATCH, a=value, n=1, data=lambda i=i: int(program.statistics.ctypes.data) + 4 * i)  # type: ignore[misc]
        for i, value in enumerate(trace.statistics.values())
    ]
    return [*trace.instructions, *sums]


#: Instructions that depend on the present layout: whether they are needed.
_NEEDED: dict[Op, Callable[[Any], bool]] = {
    Op.REFRESH: lambda i: i.weights.needs_refresh,
    Op.FAKE_QUANTIZE: lambda i: i.weights.bits is not None and i.weights.grid is None,
    Op.TO_STEPS: lambda i: i.weights.grid is not None,
    Op.KEEP_LARGEST: lambda i: i.weights.keeps_largest,
    Op.MASK: lambda i: i.parameters.is_masked,
    Op.POLYAK: lambda i: not i.parameters.is_apart,
    Op.POLYAK_INDEXED: lambda i: i.parameters.is_apart,
}


def _is_needed(instruction: Instruction) -> bool:
    return instruction.op not in _NEEDED or _NEEDED[instruction.op](instruction)


def _needs_scratch(instruction: Instruction) -> bool:
    weights = instruction.weights
    return instruction.op is Op.LINEAR_WEIGHT_GRADIENT and weights is not None and isinstance(weights.structure, Dense)
