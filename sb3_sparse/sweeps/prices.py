"""What cells will cost, from cells that are finished."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sb3_sparse.sweeps.folder import Folder
from sb3_sparse.sweeps.kinds import Cell, find_kind


@dataclass(frozen=True)
class Price:
    """
    :param seconds: CPU seconds of a cell; it has one thread.
    :param measured: Whether finished cells say so, or the table of usual speeds.
    """

    seconds: float
    measured: bool


class Prices:
    """
    The price of any cell: its kind's seconds for a start, and its steps at the speed of the finished cells that resemble it
    most. The first of its ``rates`` has to be the same, and of those cells the ones count that share most of the others.

    :param folder: Where finished cells are.
    """

    def __init__(self, folder: Folder) -> None:
        self._measured: list[tuple[Cell, float]] = []
        for name in sorted(folder.finished()):
            result = folder.read(name)
            try:
                assert result is not None
                self._measured.append((find_kind(result["kind"]).read(result["settings"]), float(result["cpu_seconds"])))
            except (KeyError, TypeError, ValueError):
                # Another version's cell, or an imported one whose time is not known.
                continue

    def of(self, cell: Cell) -> Price:
        """
        :param cell: A cell.
        :return: Its price
        """
        start, each = cell.usual
        found = [(_alike(cell, other), other.work, seconds) for other, seconds in self._measured if other.kind == cell.kind]
        most = max((shared for shared, _, _ in found), default=0)
        if not most:
            return Price(start + each * cell.work, False)
        alike = [(work, seconds) for shared, work, seconds in found if shared == most]
        total = sum(work for work, _ in alike)
        if not total or not cell.work:
            return Price(sum(seconds for _, seconds in alike) / len(alike), True)
        start = min(start, *(seconds for _, seconds in alike))
        return Price(start + sum(seconds - start for _, seconds in alike) / total * cell.work, True)

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
