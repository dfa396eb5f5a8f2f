"""Processes of this machine that work for a search."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing.util import Finalize
from typing import Any

from sb3_sparse.distillation.search.workers.crew import Crew
from sb3_sparse.distillation.search.workers.worker import Doubts, Make, Work, Worker
from sb3_sparse.parent import end_with

_worker: Worker | None = None


def _begin(make: Make, over: Any, parent: int) -> None:
    """A process begins. Ctrl-C is for the one that started it, which says so; without that one there is nothing to do."""
    global _worker
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker = Worker(make, over.is_set)
    # When the process ends, whose atexit handlers do not run.
    Finalize(None, _worker.close, exitpriority=0)


def _do(work: Work) -> tuple[Any, Doubts]:
    assert _worker is not None
    return _worker.do(work)


class Processes(Crew):
    """
    Processes of this machine.

    :param jobs: How many.
    :param make: Makes what one needs.
    :param inherited: Whether processes inherit what is in memory; otherwise everything must be importable.
    """

    def __init__(self, jobs: int, make: Make, *, inherited: bool) -> None:
        super().__init__(jobs)
        context = multiprocessing.get_context("fork" if inherited else "spawn")
        self._over = context.Event()
        self._executor = ProcessPoolExecutor(jobs, context, _begin, (make, self._over, os.getpid()))

    def run(self, works: Iterator[Work]) -> Iterator[tuple[Work, Any]]:
        """
        :param works: See :meth:`Crew.run`.
        :return: See there
        :raises ValueError: if a process dies
        """
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

    def close(self) -> None:
        """Let everybody stop what they do, and wait for them."""
        self._over.set()
        self._executor.shutdown(wait=True, cancel_futures=True)
