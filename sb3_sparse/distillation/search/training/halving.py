"""Successive halving at work: it trains what was planned, or what there is time for, and says who goes on."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from time import time

from sb3_sparse.agents import Progress
from sb3_sparse.distillation.search.candidates import Shape
from sb3_sparse.distillation.search.front import Point
from sb3_sparse.distillation.search.results import Result, longest, read_result
from sb3_sparse.distillation.search.target import Target, pareto
from sb3_sparse.distillation.search.training.plan import UNIT, WORTH, Rung, fill, fit_into, is_cut, measure_price
from sb3_sparse.distillation.search.workers import Crew, Trial, Work

#: What may be missing of the return in a rung, if there are so many behind it.
_MISSING = (0.0, 0.03, 0.1)


@dataclass
class Halving:
    """
    The trainings of a search.

    :param crew: Who works.
    :param folder: Where finished trainings are.
    :param target: What is wanted.
    :param admissible: Students with the bits in which they may be within the limits.
    :param teacher: Returns of the teacher in the episodes that choices are made by.
    :param end: When trainings have to be done, as ``time.time()`` counts; infinite for never.
    :param verbose: Whether to show how far it is.
    """

    crew: Crew
    folder: Path
    target: Target
    admissible: Mapping[Shape, tuple[int, ...]]
    teacher: tuple[float, ...]
    end: float
    verbose: bool

    #: Results of trainings by name.
    _results: dict[str, Result] = field(init=False, default_factory=dict)

    def run(self, plan: Sequence[Rung]) -> list[Rung]:
        """
        Train what was planned, or what there is time for. Before each rung, the longer ones of the plan are fitted anew into
        the time that is left: what turns out to take less time than was feared becomes longer trainings of more students.
        In the first one of several, students are in the most of their bits alone. When no other one fits, the next students
        come in.

        :param plan: The rungs that were planned, the shortest first.
        :return: The rungs that were trained; their points are there, and those of earlier searches in this folder
        """
        students = {shape: bits if len(plan) == 1 else (max(bits),) for shape, bits in self.admissible.items()}
        if self.end < math.inf:
            self._take_earlier()
            # The first ones are short, and say how fast this goes.
            self._rung(dict(islice(students.items(), self.crew.jobs)), UNIT, None)
        progress = Progress("updates", 1) if self.verbose else None
        done: list[Rung] = []
        while rungs := self._fit(plan, done, students):
            if progress is not None:
                progress.total = sum(rung.count * rung.updates for rung in (*done, *rungs))
            rung, results = rungs[0], list(self._results.values())
            fills = any(rung.updates <= each.updates for each in done)
            # An earlier search may have trained some of them for as long, or nearly.
            short = {
                shape: bits
                for shape, bits in students.items()
                if rung.updates >= WORTH * longest(results, shape, () if fills else bits)
            }
            chosen = dict(islice((short if fills else students).items(), rung.count))
            left = {shape: bits for shape, bits in chosen.items() if shape in short}
            trained = len(chosen) - len(left) + self._rung(left, rung.updates, progress)
            if not trained:
                break
            done.append(Rung(trained, rung.updates))
            ranked = self._rank(_MISSING[min(len(rungs) - 1, len(_MISSING) - 1)])
            # Others may come in, and those of the first rung go on in all bits.
            going_on = {shape: ranked[shape] for shape in ranked if shape in chosen and done[1:]}
            students = {**ranked, **self.admissible, **going_on}
        self._take_earlier()
        return done

    def points(self) -> list[Point]:
        """
        :return: All policies that there are, with the returns that choices are made by
        """
        return [
            Point(
                result.shape,
                policy.bits,
                result.updates,
                policy.costs,
                policy.selection,
                self.teacher,
                self._folder_of(name) / f"{policy.bits}.sb3s",
            )
            for name, result in self._results.items()
            for policy in result.policies
        ]

    def _fit(self, plan: Sequence[Rung], done: Sequence[Rung], students: Mapping[Shape, tuple[int, ...]]) -> list[Rung]:
        """What is left of the plan in the time that is left, or what to fill that with."""
        trained = max((rung.updates for rung in done), default=0)
        rungs = [rung for rung in plan if rung.updates > trained]
        if self.end == math.inf or not is_cut(plan, done):
            return rungs
        bits = statistics.fmean(map(len, islice(students.values(), rungs[0].count if rungs else 1)))
        price, seconds = measure_price(list(self._results.values()), bits), self.end - time()
        return fit_into(rungs, seconds, price, self.crew.jobs, trained) or fill(seconds, price, self.crew.jobs, trained)

    def _rank(self, slack: float) -> dict[Shape, tuple[int, ...]]:
        """
        Students by their longest trainings, the most promising first, with the bits to go on with: the best ones, and others
        in which no policy is both smaller and better.
        """
        results = list(self._results.values())
        points = [point for point in self.points() if point.updates == longest(results, point.shape)]
        front = pareto(points, self.target.size)
        found: dict[Shape, tuple[int, ...]] = {}
        for point in self.target.rank(points, slack):
            if point.shape not in found or point in front:
                found[point.shape] = (*found.get(point.shape, ()), point.bits)
        return found

    def _rung(self, students: Mapping[Shape, tuple[int, ...]], updates: int, progress: Progress | None) -> int:
        """Train students for so many updates, unless they have been; how many there are now."""
        deadline = self.end if self._results else math.inf
        trials = [Trial(shape, updates, bits, deadline) for shape, bits in students.items()]
        begun = 0 if progress is None else progress.done
        done = 0
        for trial, result in self._results_of(trials):
            if result is None:
                continue
            done += 1
            self._results[trial.name] = result
            if progress is not None:
                progress.advance(begun + done * updates)
        return done

    def _results_of(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Result | None]]:
        left = []
        for trial in trials:
            found = read_result(self._folder_of(trial.name))
            found = None if found is None else found.within(trial.bits)
            if found is None or len(found.policies) < len(set(trial.bits)):
                left.append(trial)
            else:
                yield trial, found
        works: Iterator[Work] = (("train", (trial,)) for trial in left if time() < trial.deadline)
        for (_, (trial,)), result in self.crew.run(works):
            yield trial, result

    def _take_earlier(self) -> None:
        """All that has been trained in this folder, also by another search or in bits that did not go on."""
        for file in sorted(self._folder_of("").glob("*/result.json")):
            result = read_result(file.parent)
            result = None if result is None else result.within(self.admissible.get(result.shape, ()))
            if result is not None and result.policies:
                self._results[file.parent.name] = result

    def _folder_of(self, name: str) -> Path:
        return self.folder / "candidates" / name
