"""The processes of a search, and the work that they take one piece after the other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from multiprocessing.util import Finalize
from typing import Any

import torch as th

from sb3_sparse.distillation.search.workers.workshop import OutOfTime, Workshop
from sb3_sparse.parent import end_with

#: A name of a method of :class:`Workshop`, and its arguments.
Work = tuple[str, tuple[Any, ...]]

#: Texts of warnings with their categories.
_Doubts = list[tuple[str, type[Warning]]]

_workshop: Workshop | None = None
#: What a process has been warned of while it began.
_doubts: _Doubts = []


def _begin(make: Callable[[Callable[[], bool]], Workshop], over: Any, parent: int) -> None:
    """A process begins. Ctrl-C is for the one that started it, which says so; without that one there is nothing to do."""
    global _workshop
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    th.set_num_threads(1)
    with _recorded(_doubts):
        _workshop = make(over.is_set)
    # When the process ends, whose atexit handlers do not run.
    Finalize(None, _workshop.close, exitpriority=0)


def _do(work: Work) -> tuple[Any, _Doubts]:
    """The result, and all warnings since the last one: the process that asked for it shows them."""
    assert _workshop is not None
    doubts, _doubts[:] = _doubts[:], []
    with _recorded(doubts):
        result = _try(_workshop, work)
    return result, doubts


@contextmanager
def _recorded(doubts: _Doubts) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        yield
    for each in caught:
        # Of a class that the other process may not have, what it is derived from.
        kind = next(kind for kind in each.category.__mro__ if kind.__module__ == "builtins")
        doubts.append((str(each.message), kind))


def _try(workshop: Workshop, work: Work) -> Any:
    try:
        return getattr(workshop, work[0])(*work[1])
    except OutOfTime:
        return None


class Crew:
    """
    Processes that work for a search, one torch thread each.

    :param jobs: How many; with 1 this process does it.
    :param make: Makes what a process needs, given whether the search has been interrupted.
    :param inherited: Whether processes inherit what is in memory; otherwise everything must be importable.
    """

    def __init__(self, jobs: int, make: Callable[[Callable[[], bool]], Workshop], *, inherited: bool) -> None:
        self.jobs = jobs
        self._own: Workshop | None = None
        self._shown: set[str] = set()
        self._executor: ProcessPoolExecutor | None = None
        if jobs == 1:
            self._over: Any = threading.Event()
            self._own = make(self._over.is_set)
        else:
            context = multiprocessing.get_context("fork" if inherited else "spawn")
            self._over = context.Event()
            self._executor = ProcessPoolExecutor(jobs, context, _begin, (make, self._over, os.getpid()))

    def run(self, works: Iterator[Work]) -> Iterator[tuple[Work, Any]]:
        """
        :param works: What is to be done; a piece is asked for when somebody is free, so the iterator may stop early.
        :return: Each piece with its result as it ends, None if its time was up. Warnings of other
            processes are given here, each text once
        """
        if self._own is not None:
            with _one_thread():
                for work in works:
                    yield work, _try(self._own, work)
            return
        assert self._executor is not None
        running: dict[Future[Any], Work] = {}
        while True:
            for each in islice(works, self.jobs - len(running)):
                running[self._executor.submit(_do, each)] = each
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                try:
                    result, doubts = future.result()
                except BrokenExecutor as error:
                    raise ValueError("a process of the search has died: give jobs=1 to see why") from error
                self._warn(doubts)
                yield running.pop(future), result

    def _warn(self, doubts: _Doubts) -> None:
        for text, kind in doubts:
            if text not in self._shown:
                self._shown.add(text)
                warnings.warn(text, kind, stacklevel=3)

    def close(self) -> None:
        """Let everybody stop what they do."""
        self._over.set()
        if self._own is not None:
            self._own.close()
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = th.get_num_threads()
    th.set_num_threads(1)
    try:
        yield
    finally:
        th.set_num_threads(threads)
