"""Copies between the tensors of a model and flat vectors."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sb3_sparse.engine.kernels import library
from sb3_sparse.engine.kernels.structs import Instruction, Op, Operand
from sb3_sparse.engine.networks.memory import zeros


@dataclass(frozen=True)
class Place:
    """
    Where a tensor's entries are in a flat vector.

    :param tensor: The tensor, float32 and contiguous.
    :param vector: The flat vector.
    :param start: Index of its first entry there.
    :param size: Number of entries there.
    :param index: For each of them the index in the flattened tensor, or -1; None if they are in order.
    """

    tensor: Tensor
    vector: np.ndarray
    start: int
    size: int
    index: np.ndarray | None = None


class Copies:
    """
    Copies of many tensors at once, in both directions.

    :param places: The tensors and where they go.
    """

    def __init__(self, places: Iterable[Place]) -> None:
        self._places = list(places)
        self._library = library.load()
        self._differ = zeros(1)
        self._addresses: list[int] = []
        self._programs: dict[Op, ctypes.Array[Instruction]] = {}

    def read(self) -> None:
        """Copy the tensors into the vectors."""
        self._run(Op.GATHER)

    def write(self) -> None:
        """Copy the vectors into the tensors. Entries without a place keep their value."""
        self._run(Op.SCATTER)

    def differ(self) -> bool:
        """Whether a tensor is not what :meth:`write` would make it."""
        return self._count(Op.DIFFER)

    def miss(self) -> bool:
        """Whether a tensor has an entry that is not zero and has no place. All places need an index for it."""
        return self._count(Op.OUTSIDE)

    def _count(self, op: Op) -> bool:
        self._differ[0] = 0.0
        self._run(op)
        return bool(self._differ[0] != 0.0)

    def _run(self, op: Op) -> None:
        addresses = [place.tensor.data_ptr() for place in self._places]
        if addresses != self._addresses:
            # The first time, or somebody has given a parameter other memory.
            self._addresses = addresses
            self._programs.clear()
        if op not in self._programs:
            self._programs[op] = self._encode(op)
        program = self._programs[op]
        if len(program) and self._library.engine_run(program, len(program), 1):
            raise RuntimeError("the kernels refuse to copy")

    def _encode(self, op: Op) -> ctypes.Array[Instruction]:
        encoded = []
        for place, there in zip(self._places, self._addresses, strict=True):
            here, count = int(place.vector.ctypes.data) + 4 * place.start, int(self._differ.ctypes.data)
            operands = {
                Op.GATHER: (here, there),
                Op.SCATTER: (there, here),
                Op.DIFFER: (count, there, here),
                Op.OUTSIDE: (count, there),
            }[op]
            index = None if place.index is None else place.index.ctypes.data
            instruction = Instruction(op=op, n=place.size, data=index)
            if op is Op.OUTSIDE:
                instruction.n, instruction.k = place.tensor.numel(), place.size
            for name, address in zip(("dst", "a", "b"), operands, strict=False):
                setattr(instruction, name, Operand(address, 0, 0))
            encoded.append(instruction)
        return (Instruction * len(encoded))(*encoded)
