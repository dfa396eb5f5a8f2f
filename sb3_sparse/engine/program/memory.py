"""
Memory for the values of a program.

The kernels walk through consecutive instructions on panels block by block. A value that is used within one such run only
needs memory for one block, which other values of the run may use before and after it: so the working set of a run stays in
the cache. All other values hold the whole batch, and share memory where their lives do not overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from sb3_sparse.engine.kernels.structs import BLOCK, LANES, PANEL, Operand
from sb3_sparse.engine.networks.memory import zeros
from sb3_sparse.engine.networks.structure import ROWS
from sb3_sparse.engine.program.value import Instruction, Value

#: Floats. Panels do not lie a multiple of this apart: the same feature of all of them would compete for one set of the cache.
CACHE_WAY = 1024

#: Positions of the first and the last instruction that use a value.
Life = tuple[int, int]


class Memory:
    """
    The memory of all values.

    :param instructions: The instructions in order.
    :param kept: Values that keep their memory, of the whole batch, from the first instruction to the last.
    :param panels: Number of panels.
    :param threads: Number of threads: each has a block in work.
    """

    def __init__(self, instructions: list[Instruction], kept: list[Value], panels: int, threads: int = 1) -> None:
        self._panels = panels
        #: Panels that the memory of a value that only lives in its block has room for.
        self._room = BLOCK * threads
        roots = {value.place()[0] for value in kept}
        #: Of each value with memory of its own.
        lives: dict[Value, Life] = {root: (0, len(instructions)) for root in roots}
        users: dict[Value, set[Life]] = {}
        runs = _runs(instructions)
        for position, instruction in enumerate(instructions):
            for value in instruction.values():
                root, _ = value.place()
                first, last = lives.get(root, (position, position))
                lives[root] = first, max(last, position)
                users.setdefault(root, set()).add(runs[position])
        panel = {run for run, instruction in zip(runs, instructions, strict=True) if instruction.op in PANEL}
        local = {
            root: life for root, life in lives.items() if root not in roots and len(users[root]) == 1 and users[root] <= panel
        }
        # A run begins anew with every block, so a whole batch lives from the beginning of a run to the end of another.
        ends = [*runs, (len(instructions), len(instructions))]
        whole = {root: (ends[first][0], ends[last][1]) for root, (first, last) in lives.items() if root not in local}
        self._local, panel_size = _places(local, _rows)
        self._whole, whole_size = _places(whole, lambda root: _rows(root) * (1 if root.single else panels))
        #: Floats between two panels of the values of one block.
        self._stride = panel_size + (CACHE_WAY + CACHE_WAY // 4 + LANES - panel_size % CACHE_WAY)
        self._first = whole_size
        self._arena = zeros(whole_size + self._stride * min(self._room, panels))

    def operand(self, value: Value, *, broadcast: bool) -> Operand:
        """What the kernels need to know to find a value."""
        root, first = value.place()
        if root in self._local:
            place, panel, mask = self._first + self._local[root], self._stride, self._room - 1
        else:
            place, panel, mask = self._whole[root], 0 if root.single else _rows(root), -1
        address = self._arena.ctypes.data + 4 * (place + first * LANES)
        return Operand(address, panel, 0 if broadcast else LANES, mask)

    def rows(self, value: Value) -> np.ndarray:
        """A value that holds the whole batch, as a view of shape ``[panels, features, lanes]``."""
        root, first = value.place()
        start = self._whole[root]
        panels = self._arena[start : start + _rows(root) * self._panels].reshape(self._panels, -1, LANES)
        return panels[:, first : first + value.features]


def _rows(root: Value) -> int:
    """Floats of a panel of a value."""
    return -(-root.features // ROWS) * ROWS * LANES


def _runs(instructions: list[Instruction]) -> list[Life]:
    """For each position the first and the last position of its run of panel instructions."""
    bounds: list[Life] = []
    start = 0
    for position, instruction in enumerate(instructions):
        if instruction.op not in PANEL:
            bounds += [(start, position - 1)] * (position - start) + [(position, position)]
            start = position + 1
    return bounds + [(start, len(instructions) - 1)] * (len(instructions) - start)


def _places(lives: dict[Value, Life], size_of: Callable[[Value], int]) -> tuple[dict[Value, int], int]:
    """First fit in the order of first use: the place of each value, and the size of the memory."""
    free: list[tuple[int, int]] = []
    end = 0
    places: dict[Value, int] = {}
    releases: list[tuple[int, Value]] = []
    for root, (first, last) in sorted(lives.items(), key=lambda item: item[1]):
        for release in [r for r in releases if r[0] < first]:
            releases.remove(release)
            free = _merge([*free, (places[release[1]], size_of(release[1]))])
        size = size_of(root)
        for number, (start, length) in enumerate(free):
            if length >= size:
                places[root] = start
                free[number : number + 1] = [(start + size, length - size)] if length > size else []
                break
        else:
            places[root], end = end, end + size
        if not root.single:
            releases.append((last, root))
    return places, end


def _merge(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, length in sorted(ranges):
        if merged and sum(merged[-1]) == start:
            merged[-1] = merged[-1][0], merged[-1][1] + length
        else:
            merged.append((start, length))
    return merged
