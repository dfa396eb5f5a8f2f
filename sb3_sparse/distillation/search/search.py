"""A search from its first trainings to the episodes of its finalists."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import time

from sb3_sparse.agents import Progress
from sb3_sparse.distillation.experience.environments import Seeds
from sb3_sparse.distillation.search.candidates import Shape, spread
from sb3_sparse.distillation.search.costs import Costs
from sb3_sparse.distillation.search.front import Front, Point, choose
from sb3_sparse.distillation.search.target import Target, pareto
from sb3_sparse.distillation.search.training import Halving, is_cut, make_rungs
from sb3_sparse.distillation.search.workers import Crew, Work

#: Episodes that choices are made by.
SELECTION = 20
#: Most of a budget that goes into what untrained students take.
_FORESIGHT = 0.25
#: A student may take so much more than the one that has not been trained: its weights leave fewer or more neurons.
_SLACK = 0.25
#: Most finalists besides the best ones, and the best.
_FINALISTS, _BEST = 8, 4
#: Most of a budget that the episodes of finalists take.
_EVALUATION = 0.35


@dataclass
class Search:
    """
    A search.

    :param crew: Who works.
    :param folder: Where finished trainings are.
    :param target: What is wanted.
    :param shapes: The students.
    :param bits: Their bits.
    :param updates: Updates of the last ones.
    :param seeds: Seeds of episodes.
    :param episodes: Fresh episodes of each finalist.
    :param seconds: Seconds that it may take; infinite for any.
    :param verbose: Whether to show how far it is.
    """

    crew: Crew
    folder: Path
    target: Target
    shapes: Sequence[Shape]
    bits: Sequence[int]
    updates: int
    seeds: Seeds
    episodes: int
    seconds: float
    verbose: bool

    def __post_init__(self) -> None:
        self._end = time() + self.seconds

    def run(self) -> Front:
        """
        :return: What was found: by one student at least, however little time there is
        """
        selection = self.seeds.selection(SELECTION)
        ((_, (returns, seconds)),) = self.crew.run(iter([("play", (None, selection, math.inf))]))
        admissible, possible = self._admissible()
        plan = make_rungs(len(admissible), self.updates)[: None if possible else 1]
        end = self._training_end(seconds / len(selection))
        halving = Halving(self.crew, self.folder, self.target, admissible, tuple(returns), end, self.verbose)
        rungs = halving.run(plan)
        front = self._evaluate(halving.points())
        # Finalists that have not played may have been left out as well.
        front.about["cut"] |= is_cut(plan, rungs)
        front.about.update(possible=possible, rungs=[[rung.count, rung.updates] for rung in rungs])
        return front

    def _admissible(self) -> tuple[dict[Shape, tuple[int, ...]], bool]:
        """
        Students with the bits in which they may be within the limits, the safe ones first and each part spread, and whether
        there are some. What there is no time to foresee may be.
        """
        shapes = spread(self.shapes)
        if not self.target.is_limited:
            return dict.fromkeys(shapes, tuple(self.bits)), True
        until = time() + _FORESIGHT * self.seconds
        progress = Progress("students foreseen", len(shapes)) if self.verbose else None
        foreseen: dict[tuple[Shape, int], Costs] = {}
        works: Iterator[Work] = (("foresee", (shape, tuple(self.bits))) for shape in shapes if time() < until)
        for (_, (shape, bits)), costs in self.crew.run(works):
            foreseen |= {(shape, each): cost for each, cost in zip(bits, costs, strict=True)}
            if progress is not None:
                progress.advance(len(foreseen) // len(self.bits))
        keys = [(shape, bits) for shape in shapes for bits in self.bits]
        excess = {key: self.target.excess(foreseen[key]) if key in foreseen else _SLACK for key in keys}
        within = {key for key, value in excess.items() if value <= _SLACK}
        possible = bool(within)
        # Of a target that nothing can reach, the nearest.
        within = within or {min(excess, key=lambda key: excess[key])}
        chosen = {shape: tuple(bits for bits in self.bits if (shape, bits) in within) for shape in shapes}
        if self.verbose:
            print(f"{len(within)} of {len(excess)} policies may be within the limits", flush=True)
        safe = {shape for shape, bits in chosen.items() if any(excess[shape, each] <= 0 for each in bits)}
        order = [*spread([shape for shape in self.shapes if shape in safe]), *(shape for shape in shapes if shape not in safe)]
        return {shape: chosen[shape] for shape in order if chosen[shape]}, possible

    def _training_end(self, episode: float) -> float:
        """When the episodes of the finalists have to begin, of which one takes so many seconds."""
        if self.seconds == math.inf:
            return math.inf
        policies = (_FINALISTS + 1) / self.crew.jobs
        seconds = 1.3 * policies * self.episodes * episode
        return self._end - min(seconds, _EVALUATION * self.seconds)

    def _evaluate(self, points: Sequence[Point]) -> Front:
        """Let the finalists play fresh episodes."""
        ranked = self.target.sort(points)
        front = self.target.sort(pareto(points, self.target.size))
        finalists = list(dict.fromkeys(point.file for point in (*ranked[:_BEST], *front)))[:_FINALISTS]
        fresh = self.seeds.fresh(self.episodes)
        # The teacher and the best have to be there.
        files = [(None, math.inf), (finalists[0], math.inf), *((file, self._end) for file in finalists[1:])]
        progress = Progress("policies", len(files)) if self.verbose else None
        returns: dict[Path, tuple[float, ...]] = {}
        works: Iterator[Work] = (("play", (file, fresh, deadline)) for file, deadline in files)
        for (_, (file, *_)), found in self.crew.run(works):
            if found is not None:
                returns[file or Path()] = tuple(found[0])
            if progress is not None:
                progress.advance(len(returns))
        about = {"cut": len(returns) < len(files), "selection_seeds": self.seeds.selection(SELECTION)}
        return choose(self.target, points, returns, seeds=tuple(fresh), about=about)
