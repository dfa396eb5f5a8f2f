"""A live line of a sweep: what is done of all cells, and when it will end. It looks at the folder alone."""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sb3_sparse.sweeps.folder import Folder
from sb3_sparse.sweeps.kinds import Cell
from sb3_sparse.sweeps.prices import Prices
from sb3_sparse.sweeps.runner import unfinished

#: Seconds between two looks.
_INTERVAL = 1.0


@contextmanager
def show_progress(cells: Sequence[Cell], folder: Folder, prices: Prices, jobs: int) -> Iterator[None]:
    """
    :param cells: The cells that run.
    :param folder: Their folder.
    :param prices: What they cost.
    :param jobs: Processes at a time.
    :return: A context in which the line is shown
    """
    stop = threading.Event()
    thread = threading.Thread(target=_show, args=(cells, folder, prices, jobs, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _show(cells: Sequence[Cell], folder: Folder, prices: Prices, jobs: int, stop: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    costs = {cell.name: prices.of(cell).seconds for cell in cells}
    total = sum(costs.values())
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[left]}"))
    begin, first = time.monotonic(), None
    with Progress(*columns, console=Console(file=sys.stderr)) as progress:
        task = progress.add_task("", total=total, left="")
        while True:
            stopped = stop.wait(_INTERVAL)
            left = {cell.name for cell in unfinished(cells, folder)}
            done = sum(cost * (folder.progress(name) if name in left else 1.0) for name, cost in costs.items())
            first = done if first is None else first
            text = f"{len(cells) - len(left)} of {len(cells)} cells"
            progress.update(task, completed=done, description=text, left=_left(total - done, done - first, begin, jobs))
            if stopped:
                return


def _left(remaining: float, gained: float, begin: float, jobs: int) -> str:
    """By the prices at first, and by what has been done as soon as that is something."""
    elapsed = time.monotonic() - begin
    speed = gained / elapsed if gained > 0.02 * remaining and elapsed > 10 else jobs
    return f"{duration(remaining / speed)} left" if remaining > 0 else ""


def duration(seconds: float) -> str:
    """
    >>> duration(5025.0), duration(42.0)
    ('1 h 24 min', '42 s')

    :param seconds: A time.
    :return: It in words
    """
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
