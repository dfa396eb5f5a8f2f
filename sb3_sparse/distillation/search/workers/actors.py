"""
Actors of a Ray cluster that work for a search. When one is lost, with its node or alone, another one begins as soon as there
is room. The next one that is free takes the lost work over, from its last checkpoint in the search's folder.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sb3_sparse.cores import count_cores
from sb3_sparse.distillation.search.workers.crew import Crew
from sb3_sparse.distillation.search.workers.worker import Doubts, Make, Work, Worker
from sb3_sparse.parent import end_with

#: How often the same piece of work may be lost. A lost node takes several pieces with it, but each of them once.
_LOSSES = 3
#: The thread of an actor that is free while another one works.
_ASIDE = "aside"


class _Actor:
    """All but :meth:`stop` is done by one thread, in the order of the calls."""

    def __init__(self, make: Make) -> None:
        self._make, self._over = make, threading.Event()

    def begin(self) -> None:
        # Its parent is its node. Without that it is lost to the others, and must not go on with what they have taken over.
        end_with(os.getppid())
        self._worker = Worker(self._make, self._over.is_set)

    def answer(self) -> None:
        """Asked before each work: a free actor may have been lost unnoticed."""

    def do(self, work: Work) -> tuple[Any, Doubts]:
        return self._worker.do(work)

    def stop(self) -> None:
        self._over.set()

    def close(self) -> None:
        self._worker.close()


@dataclass
class _Piece:
    """
    A piece of work.

    :param work: The work; None for the beginning of an actor.
    :param given: Whether its actor has it; before, that has to answer.
    :param losses: How often it was lost.
    """

    work: Work | None = None
    given: bool = False
    losses: int = 0


class Actors(Crew):
    """
    Actors with one core each. Those that there is no room for yet begin later.

    :param jobs: How many.
    :param make: Makes what one needs; all paths in it are those of a folder that all nodes share.
    :raises ValueError: if Ray is missing
    """

    def __init__(self, jobs: int, make: Make) -> None:
        super().__init__(jobs)
        count_cores("ray")
        import ray

        self._ray, self._make = ray, make
        self._kind = ray.remote(num_cpus=1, concurrency_groups={_ASIDE: 1})(_Actor)
        self._free: list[Any] = []
        #: Actors and what they are at, by the reference to its result.
        self._running: dict[Any, tuple[Any, _Piece]] = {}
        for _ in range(jobs):
            self._begin(_Piece())

    def run(self, works: Iterator[Work]) -> Iterator[tuple[Work, Any]]:
        """
        :param works: See :meth:`Crew.run`.
        :return: See there
        :raises ValueError: if the same work is lost too often
        """
        pieces, lost = map(_Piece, works), list[_Piece]()
        while True:
            while self._free and (piece := lost.pop() if lost else next(pieces, None)):
                actor = self._free.pop()
                self._running[actor.answer.remote()] = actor, piece
            if self._free and not any(piece.work for _, piece in self._running.values()):
                return
            (reference, *_), _ = self._ray.wait(list(self._running))
            try:
                found = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:
                # What the work itself has raised; its actor is at hand as before.
                raise error.cause from error
            except self._ray.exceptions.RayError as error:
                _, piece = self._running.pop(reference)
                # A free actor takes nothing with it.
                piece.losses += piece.given
                if piece.losses == _LOSSES:
                    raise ValueError(
                        f"Ray has lost {_LOSSES} workers at the same work of the search: take loky with jobs=1 to see why"
                    ) from error
                # A beginning that was lost is tried again; in place of another piece, somebody new begins.
                if piece.work is not None:
                    piece.given = False
                    lost.append(piece)
                    piece = _Piece()
                self._begin(piece)
                continue
            actor, piece = self._running.pop(reference)
            if not piece.given:
                piece.given = True
                self._running[actor.do.remote(piece.work)] = actor, piece
                continue
            self._free.append(actor)
            if piece.work is not None:
                self._warn(found[1])
                yield piece.work, found[0]

    def _begin(self, piece: _Piece) -> None:
        actor = self._kind.remote(self._make)
        piece.given = True
        self._running[actor.begin.remote()] = actor, piece

    def close(self) -> None:
        """Let everybody stop what they do, and wait for those who have begun."""
        working = [*self._free, *(actor for actor, piece in self._running.values() if piece.work)]
        for actor in working:
            actor.stop.options(concurrency_group=_ASIDE).remote()
        if references := [actor.close.remote() for actor in working]:
            self._ray.wait(references, num_returns=len(references))
        for actor in (*self._free, *(actor for actor, _ in self._running.values())):
            self._ray.kill(actor)
