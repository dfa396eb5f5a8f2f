"""What a worker of a search is, in whatever process: a workshop, and the warnings that come with its results."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch as th

from sb3_sparse.distillation.search.workers.trial import OutOfTime
from sb3_sparse.distillation.search.workers.workshop import Workshop

#: A name of a method of :class:`Workshop`, and its arguments.
Work = tuple[str, tuple[Any, ...]]
#: Makes what a worker needs, given whether the search has been interrupted.
Make = Callable[[Callable[[], bool]], Workshop]
#: Texts of warnings with their categories.
Doubts = list[tuple[str, type[Warning]]]


class Worker:
    """
    A worker in a process of its own, with one torch thread.

    :param make: See :data:`Make`.
    :param is_over: Whether the search has been interrupted.
    """

    def __init__(self, make: Make, is_over: Callable[[], bool]) -> None:
        th.set_num_threads(1)
        #: What there was no result for yet.
        self._doubts: Doubts = []
        with _recorded(self._doubts):
            self._workshop = make(is_over)

    def do(self, work: Work) -> tuple[Any, Doubts]:
        """
        :param work: What is to be done.
        :return: The result, and all warnings since the last one: the process that asked for it shows them
        """
        doubts, self._doubts = self._doubts, []
        with _recorded(doubts):
            result = attempt(self._workshop, work)
        return result, doubts

    def close(self) -> None:
        """End its work."""
        self._workshop.close()


def attempt(workshop: Workshop, work: Work) -> Any:
    """
    :param workshop: Who does it.
    :param work: What is to be done.
    :return: The result; None if its time was up
    """
    try:
        return getattr(workshop, work[0])(*work[1])
    except OutOfTime:
        return None


@contextmanager
def _recorded(doubts: Doubts) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        yield
    for each in caught:
        # Of a class that the other process may not have, what it is derived from.
        kind = next(kind for kind in each.category.__mro__ if kind.__module__ == "builtins")
        doubts.append((str(each.message), kind))
