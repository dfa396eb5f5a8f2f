"""A search from its first trainings to the episodes of its finalists."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import time

from sb3_sparse.agents import Progress
from sb3_sparse.distillation.experience.environments import Seeds
from sb3_sparse.distillation.search.candidates import Shape, spread
from sb3_sparse.distillation.search.costs import Costs
from sb3_sparse.distillation.search.crew import Crew, Work
from sb3_sparse.distillation.search.front import Front, Point, choose
from sb3_sparse.distillation.search.plan import UNIT, WORTH, Rung, fill, fit_into, is_cut, make_rungs, measure_price
from sb3_sparse.distillation.search.results import Result, longest, read_result
from sb3_sparse.distillation.search.target import Target, pareto
from sb3_sparse.distillation.search.workshop import Trial

#: Episodes that choices are made by.
SELECTION = 20
#: A student may take so much more than the one that has not been trained: its weights leave fewer or more neurons.
_SLACK = 0.25
#: What may be missing of the return in a rung, if there are so many behind it.
_MISSING = (0.0, 0.03, 0.1)
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
        #: Results of trainings by name, and returns of the teacher in the episodes that choices are made by.
        self._results: dict[str, Result] = {}
        self._teacher: tuple[float, ...] = ()
        #: Seconds of one of them.
        self._episode_seconds = 0.0

    def run(self) -> Front:
        """
        :return: What was found: by one student at least, however little time there is
        """
        selection = self.seeds.selection(SELECTION)
        ((_, (returns, seconds)),) = self.crew.run(iter([("play", (None, selection, math.inf))]))
        self._teacher, self._episode_seconds = tuple(returns), seconds / len(selection)
        admissible, possible = self._admissible()
        plan = make_rungs(len(admissible), self.updates)[: None if possible else 1]
        rungs = self._train(admissible, plan)
        self._take_earlier(admissible)
        front = self._evaluate()
        # Finalists that have not played may have been left out as well.
        front.about["cut"] |= is_cut(plan, rungs)
        front.about.update(possible=possible, rungs=[[rung.count, rung.updates] for rung in rungs])
        return front

    # What can reach the target.

    def _admissible(self) -> tuple[dict[Shape, tuple[int, ...]], bool]:
        """Students with the bits in which they may be within the limits, and whether there are some."""
        if not self.target.is_limited:
            return dict.fromkeys(self.shapes, tuple(self.bits)), True
        foreseen: dict[tuple[Shape, int], Costs] = {}
        works: Iterator[Work] = (("foresee", (shape, tuple(self.bits))) for shape in self.shapes)
        for (_, (shape, bits)), costs in self.crew.run(works):
            foreseen |= {(shape, each): cost for each, cost in zip(bits, costs, strict=True)}
        excess = {key: self.target.excess(foreseen[key]) for key in ((s, b) for s in self.shapes for b in self.bits)}
        within = {key for key, value in excess.items() if value <= _SLACK}
        possible = bool(within)
        # Of a target that nothing can reach, the nearest.
        within = within or {min(excess, key=lambda key: excess[key])}
        chosen = {shape: tuple(bits for bits in self.bits if (shape, bits) in within) for shape in self.shapes}
        if self.verbose:
            print(f"{len(within)} of {len(excess)} policies may be within the limits", flush=True)
        return {shape: bits for shape, bits in chosen.items() if bits}, possible

    # Training.

    def _train(self, admissible: Mapping[Shape, tuple[int, ...]], plan: Sequence[Rung]) -> list[Rung]:
        """
        Train what was planned, or what there is time for. Before each rung, the longer ones of the plan are fitted anew into
        the time that is left: what turns out to take less time than was feared becomes longer trainings of more students.
        In the first one of several, students are in the most of their bits alone. When no other one fits, the next students
        come in.
        """
        shapes = spread(list(admissible))
        students = {shape: admissible[shape] if len(plan) == 1 else (max(admissible[shape]),) for shape in shapes}
        if self.seconds < math.inf:
            self._take_earlier(admissible)
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
            students = {**ranked, **admissible, **{shape: ranked[shape] for shape in ranked if shape in chosen and done[1:]}}
        return done

    def _fit(self, plan: Sequence[Rung], done: Sequence[Rung], students: Mapping[Shape, tuple[int, ...]]) -> list[Rung]:
        """What is left of the plan in the time that is left, or what to fill that with."""
        trained = max((rung.updates for rung in done), default=0)
        rungs = [rung for rung in plan if rung.updates > trained]
        if self.seconds == math.inf or not is_cut(plan, done):
            return rungs
        bits = statistics.fmean(map(len, islice(students.values(), rungs[0].count if rungs else 1)))
        price, seconds = measure_price(list(self._results.values()), bits), self._training_end - time()
        return fit_into(rungs, seconds, price, self.crew.jobs, trained) or fill(seconds, price, self.crew.jobs, trained)

    def _rank(self, slack: float) -> dict[Shape, tuple[int, ...]]:
        """
        Students by their longest trainings, the most promising first, with the bits to go on with: the best ones, and others
        in which no policy is both smaller and better.
        """
        results = list(self._results.values())
        points = [point for point in self._points() if point.updates == longest(results, point.shape)]
        front = pareto(points, self.target.size)
        found: dict[Shape, tuple[int, ...]] = {}
        for point in self.target.rank(points, slack):
            if point.shape not in found or point in front:
                found[point.shape] = (*found.get(point.shape, ()), point.bits)
        return found

    def _rung(self, students: Mapping[Shape, tuple[int, ...]], updates: int, progress: Progress | None) -> int:
        """Train students for so many updates, unless they have been; how many there are now."""
        deadline = self._training_end if self._results else math.inf
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

    def _take_earlier(self, admissible: Mapping[Shape, tuple[int, ...]]) -> None:
        """All that has been trained in this folder, also by another search or in bits that did not go on."""
        for file in sorted(self._folder_of("").glob("*/result.json")):
            result = read_result(file.parent)
            result = None if result is None else result.within(admissible.get(result.shape, ()))
            if result is not None and result.policies:
                self._results[file.parent.name] = result

    def _folder_of(self, name: str) -> Path:
        return self.folder / "candidates" / name

    @property
    def _training_end(self) -> float:
        """When the episodes of the finalists have to begin."""
        if self.seconds == math.inf:
            return math.inf
        policies = (_FINALISTS + 1) / self.crew.jobs
        seconds = 1.3 * policies * self.episodes * self._episode_seconds
        return self._end - min(seconds, _EVALUATION * self.seconds)

    # Choosing.

    def _points(self) -> list[Point]:
        """All policies that there are, with the returns that choices are made by."""
        return [
            Point(
                result.shape,
                policy.bits,
                result.updates,
                policy.costs,
                policy.selection,
                self._teacher,
                self._folder_of(name) / f"{policy.bits}.sb3s",
            )
            for name, result in self._results.items()
            for policy in result.policies
        ]

    def _evaluate(self) -> Front:
        """Let the finalists play fresh episodes."""
        points = self._points()
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
