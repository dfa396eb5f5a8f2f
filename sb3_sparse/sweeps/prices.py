"""What cells will cost, from cells that are finished."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite

from sb3_sparse.sweeps.folder import Folder
from sb3_sparse.sweeps.kinds import Cell, find_kind

#: How much a speed counts that finished cells correct: as this share of the steps that are priced.
_BEFORE = 0.1


@dataclass(frozen=True)
class Price:
    """
    :param seconds: CPU seconds of a cell; it has one thread.
    :param measured: Whether finished cells say so more than the table of usual speeds.
    """

    seconds: float
    measured: bool


class Prices:
    """
    The price of any cell: its kind's seconds for a start, and its steps at a speed. The speed is the usual one at first.
    Finished cells with the same first of their ``rates`` correct it, those that share more of them correct that, and so on;
    each time, what they have done counts by its steps, and the speed before as much as a share of the steps of the cell. So a
    short training says little of a long one.

    :param folder: Where finished cells are.
    """

    def __init__(self, folder: Folder) -> None:
        self._measured: list[tuple[Cell, int, float]] = []
        #: Cells that have a result of any version.
        self.known: set[Cell] = set()
        for name in sorted(folder.finished()):
            try:
                result = folder.read(name)
                assert result is not None
                cell = find_kind(result["kind"]).read(result["settings"])
                self.known.add(cell)
                work, seconds = cell.work, float(result["cpu_seconds"])
            except (KeyError, TypeError, ValueError):
                # Another version's cell, one whose recipe is gone, an imported one whose time is not known, or a damaged
                # one of another grid.
                continue
            if isfinite(seconds):
                self._measured.append((cell, work, seconds))

    def of(self, cell: Cell) -> Price:
        """
        :param cell: A cell.
        :return: Its price
        """
        start, each = cell.usual
        found = [(_alike(cell, other), work, seconds) for other, work, seconds in self._measured if other.kind == cell.kind]
        # A cell without steps, as an agent that is played alone, has the time of its kind.
        found = [(shared, work, seconds) for shared, work, seconds in found if shared and bool(work) == bool(cell.work)]
        if not found:
            return Price(start + each * cell.work, False)
        if not cell.work:
            most = max(shared for shared, _, _ in found)
            alike = [seconds for shared, _, seconds in found if shared == most]
            return Price(sum(alike) / len(alike), True)
        start = min(start, *(seconds for _, _, seconds in found))
        before = _BEFORE * cell.work
        for level in sorted({shared for shared, _, _ in found}):
            alike = [seconds - start for shared, _, seconds in found if shared >= level]
            work = sum(work for shared, work, _ in found if shared >= level)
            each = (sum(alike) + each * before) / (work + before)
        return Price(start + each * cell.work, sum(work for _, work, _ in found) >= before)

    def total(self, cells: Iterable[Cell]) -> float:
        """
        :param cells: Cells.
        :return: CPU seconds of all
        """
        return sum(self.of(cell).seconds for cell in cells)


def affordable(cells: Sequence[Cell], prices: Prices, seconds: float, jobs: int) -> list[Cell]:
    """
    :param cells: Cells in their order.
    :param prices: What they cost.
    :param seconds: Time that there is.
    :param jobs: Processes at a time.
    :return: The first of them that fit
    """
    chosen: list[Cell] = []
    ends = [0.0] * jobs
    for cell in cells:
        first = ends.index(min(ends))
        ends[first] += prices.of(cell).seconds
        if ends[first] > seconds:
            break
        chosen.append(cell)
    return chosen


def _alike(cell: Cell, other: Cell) -> int:
    """How many of the rates are the same; 0 if the first is not."""
    pairs = list(zip(cell.rates, other.rates, strict=True))
    return sum(one == two for one, two in pairs) if pairs[0][0] == pairs[0][1] else 0
