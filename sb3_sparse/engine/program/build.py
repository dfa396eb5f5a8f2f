"""
A trace as the kernels read it: an array of instructions, with memory for every value.

The kernels run through consecutive instructions on panels one panel at a time. A value that is used within one such run only
needs memory for one panel, which other values of the run may use before and after it. So the working set of a run stays in the
cache. All other values hold the whole batch, and share memory where their lives do not overlap.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from sb3_sparse.engine.kernels import library
from sb3_sparse.engine.kernels.structs import LANES, PANEL, Op, Operand
from sb3_sparse.engine.kernels.structs import Instruction as Encoded
from sb3_sparse.engine.networks.memory import zeros
from sb3_sparse.engine.networks.structure import ROWS, Dense
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Instruction, Value


class Program:
    """
    Executable instructions. Build it again after the layout of parameters has changed.

    :param trace: The instructions.
    """

    def __init__(self, trace: Trace) -> None:
        batch_size = trace.batch_size
        self._library = library.load()
        self._noises = trace.noises
        self._panels = -(-batch_size // LANES)
        self._instructions = [i for i in _with_statistics(trace, self) if _is_needed(i)]
        self.statistics = zeros(max(len(trace.statistics), 1))
        self.names = list(trace.statistics)
        self._memory = _Memory(self._instructions, trace.kept, self._panels)
        sample = np.arange(self._panels * LANES).reshape(self._panels, 1, LANES)
        self._memory.rows(trace.share)[...] = (sample < batch_size) / batch_size
        dense = [i.weights.inputs for i in self._instructions if _needs_scratch(i) and i.weights is not None]
        self._scratch = zeros(-(-max(dense, default=0) // LANES) * LANES * self._panels * LANES)
        self._encoded = (Encoded * len(self._instructions))(*map(self._encode, self._instructions))

    def run(self) -> dict[str, float]:
        """
        Draw the noises, and execute the instructions once.

        :return: The statistics by name
        """
        for noise in self._noises:
            noise.draw()
        code = self._library.engine_run(self._encoded, len(self._encoded), self._panels)
        if code:
            raise RuntimeError(f"the kernels refuse {self._instructions[code - 1]}")
        return dict(zip(self.names, self.statistics.tolist(), strict=False))

    def rows(self, value: Value, count: int) -> np.ndarray:
        """
        :param value: A value that was kept.
        :param count: Number of samples.
        :return: Its numbers, of shape ``[count, features]``
        """
        panels = self._memory.rows(value)
        return np.ascontiguousarray(panels.transpose(0, 2, 1).reshape(-1, value.features)[:count])

    def _encode(self, instruction: Instruction) -> Encoded:
        encoded = Encoded(op=instruction.op, flags=instruction.flags, n=instruction.n, k=instruction.k)
        for name in ("dst", "a", "b", "c"):
            value = getattr(instruction, name)
            if value is not None:
                setattr(encoded, name, self._memory.operand(value, broadcast=value.features == 1 and instruction.n > 1))
        if instruction.flat is not None:
            flat = instruction.flat()
            encoded.n, encoded.k, encoded.data = flat.n, flat.k, flat.data
            for name, address in flat.operands.items():
                setattr(encoded, name, Operand(address, 0, 0))
        elif instruction.weights is not None:
            encoded.layer = ctypes.addressof(instruction.weights.description)
        if instruction.data is not None:
            encoded.data = instruction.data()
        elif _needs_scratch(instruction):
            encoded.data = self._scratch.ctypes.data
        encoded.x[: len(instruction.x)] = instruction.x
        return encoded


def _with_statistics(trace: Trace, program: Program) -> list[Instruction]:
    """The instructions, and at their end the sums that are logged."""
    sums = [
        Instruction(Op.SUM_BATCH, a=value, n=1, data=lambda i=i: int(program.statistics.ctypes.data) + 4 * i)  # type: ignore[misc]
        for i, value in enumerate(trace.statistics.values())
    ]
    return [*trace.instructions, *sums]


#: Instructions that depend on the present layout: whether they are needed.
_NEEDED: dict[Op, Callable[[Any], bool]] = {
    Op.REFRESH: lambda i: i.weights.needs_transposed,
    Op.FAKE_QUANTIZE: lambda i: i.weights.bits is not None,
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


class _Memory:
    """
    The memory of all values.

    :param instructions: The instructions in order.
    :param kept: Values that keep their memory, of the whole batch, from the first instruction to the last.
    :param panels: Number of panels.
    """

    def __init__(self, instructions: list[Instruction], kept: list[Value], panels: int) -> None:
        self._panels = panels
        #: For each value with memory of its own: the positions of the first and the last instruction that use it.
        roots = {value.place()[0] for value in kept}
        lives: dict[Value, tuple[int, int]] = {root: (0, len(instructions)) for root in roots}
        runs: dict[Value, set[int]] = {}
        run = 0
        for position, instruction in enumerate(instructions):
            panel = instruction.op in PANEL
            run += not panel
            for value in instruction.values():
                root, _ = value.place()
                first, last = lives.get(root, (position, position))
                lives[root] = first, max(last, position)
                # A negative number stands for an instruction on the whole batch.
                runs.setdefault(root, set()).add(run if panel else -1 - run)
        self._whole = {root for root in lives if root in roots or len(runs[root]) > 1 or min(runs[root]) < 0}
        self._run_of = _runs(instructions)
        self._arena, self._places = self._allocate(lives)

    def _allocate(self, lives: dict[Value, tuple[int, int]]) -> tuple[np.ndarray, dict[Value, int]]:
        """First fit in the order of first use."""
        free: list[tuple[int, int]] = []
        end = 0
        places: dict[Value, int] = {}
        releases: list[tuple[int, Value]] = []
        for root in self._whole if self._run_of else ():
            # A run begins anew with every panel, so a whole batch lives from the beginning of a run to the end of another.
            first, last = lives[root]
            lives[root] = self._run_of[first][0], self._run_of[min(last, len(self._run_of) - 1)][1]
        for root, (first, last) in sorted(lives.items(), key=lambda item: item[1]):
            for release in sorted((r for r in releases if r[0] < first), key=lambda r: r[0]):
                releases.remove(release)
                free = _merge([*free, (places[release[1]], self._size(release[1]))])
            size = self._size(root)
            for number, (start, length) in enumerate(free):
                if length >= size:
                    places[root] = start
                    free[number : number + 1] = [(start + size, length - size)] if length > size else []
                    break
            else:
                places[root], end = end, end + size
            releases.append((10**9 if root.single else last, root))
        return zeros(end), places

    def _size(self, root: Value) -> int:
        rows = -(-root.features // ROWS) * ROWS
        return rows * LANES * (self._panels if root in self._whole and not root.single else 1)

    def _strides(self, root: Value) -> tuple[int, int]:
        rows = -(-root.features // ROWS) * ROWS
        return (rows * LANES if root in self._whole and not root.single else 0), LANES

    def operand(self, value: Value, *, broadcast: bool) -> Operand:
        """What the kernels need to know to find a value."""
        root, first = value.place()
        panel, feature = self._strides(root)
        address = self._arena.ctypes.data + 4 * (self._places[root] + first * LANES)
        return Operand(address, panel, 0 if broadcast else feature)

    def rows(self, value: Value) -> np.ndarray:
        """A value that holds the whole batch, as a view of shape ``[panels, features, lanes]``."""
        root, first = value.place()
        rows = -(-root.features // ROWS) * ROWS
        start = self._places[root]
        panels = self._arena[start : start + self._size(root)].reshape(-1, rows, LANES)
        return panels[:, first : first + value.features]


def _runs(instructions: list[Instruction]) -> list[tuple[int, int]]:
    """For each position the first and the last position of its run of panel instructions."""
    bounds: list[tuple[int, int]] = []
    start = 0
    for position, instruction in enumerate(instructions):
        if instruction.op not in PANEL:
            bounds += [(start, position - 1)] * (position - start) + [(position, position)]
            start = position + 1
    return bounds + [(start, len(instructions) - 1)] * (len(instructions) - start)


def _merge(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, length in sorted(ranges):
        if merged and sum(merged[-1]) == start:
            merged[-1] = merged[-1][0], merged[-1][1] + length
        else:
            merged.append((start, length))
    return merged
