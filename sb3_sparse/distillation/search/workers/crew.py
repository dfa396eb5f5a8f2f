"""Those who work for a search, and what is common to them wherever they are."""

from __future__ import annotations

import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from sb3_sparse.agents.compression.latency import one_thread
from sb3_sparse.distillation.search.workers.worker import Doubts, Make, Work, attempt


class Crew(ABC):
    """
    Workers, each with a workshop of its own and one piece of work at a time.

    :param jobs: How many.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._shown: set[str] = set()

    @abstractmethod
    def run(self, works: Iterator[Work]) -> Iterator[tuple[Work, Any]]:
        """
        :param works: What is to be done; a piece is asked for when somebody is free, so the iterator may stop early.
        :return: Each piece with its result as it ends, None if its time was up. Warnings of other
            processes are given here, each text once
        """

    @abstractmethod
    def close(self) -> None:
        """Let everybody stop what they do."""

    def _warn(self, doubts: Doubts) -> None:
        for text, kind in doubts:
            if text not in self._shown:
                self._shown.add(text)
                warnings.warn(text, kind, stacklevel=3)


class ThisProcess(Crew):
    """
    The process that searches works by itself.

    :param make: Makes what it needs.
    """

    def __init__(self, make: Make) -> None:
        super().__init__(1)
        self._over = threading.Event()
        self._workshop = make(self._over.is_set)

    def run(self, works: Iterator[Work]) -> Iterator[tuple[Work, Any]]:
        """
        :param works: See :meth:`Crew.run`.
        :return: See there
        """
        with one_thread():
            for work in works:
                yield work, attempt(self._workshop, work)

    def close(self) -> None:
        """End its work."""
        self._over.set()
        self._workshop.close()
