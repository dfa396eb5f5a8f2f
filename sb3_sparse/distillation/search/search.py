"""A search from its first trainings to the episodes of its finalists."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import time
from typing import Any

from sb3_sparse.agents import Progress
from sb3_sparse.distillation.search.candidates import Shape
from sb3_sparse.distillation.search.costs import Costs
from sb3_sparse.distillation.search.crew import Crew, Work
from sb3_sparse.distillation.search.environments import Seeds
from sb3_sparse.distillation.search.front import Front, Point, choose
from sb3_sparse.distillation.search.plan import UNIT, Rung, fit_into, make_rungs
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
        self._results: dict[str, dict[str, Any]] = {}
        self._teacher: tuple[float, ...] = ()
        #: Seconds of one of them.
        self._episode_seconds = 0.0
        #: Whether anything was left out for lack of time.
        self._cut = False

    def run(self) -> Front:
        """
        :return: What was found
        :raises ValueError: if there was no time for a single student
        """
        selection = self.seeds.selection(SELECTION)
        ((_, (returns, seconds)),) = self.crew.run(iter([("play", (None, selection, math.inf))]))
        self._teacher, self._episode_seconds = tuple(returns), seconds / len(selection)
        admissible, possible = self._admissible()
        rungs = self._train(admissible, make_rungs(len(admissible), self.updates)[: None if possible else 1])
        self._take_earlier(admissible)
        if not self._results:
            raise ValueError("the budget ended before the first student: give more minutes")
        front = self._evaluate({"possible": possible})
        front.about["rungs"] = [[rung.count, rung.updates] for rung in rungs]
        return front

    # What can reach the target.

    def _admissible(self) -> tuple[dict[Shape, tuple[int, ...]], bool]:
        """Students with the bits in which they may be within the limits, and whether there are some."""
        if self.target.flash is None and self.target.us is None:
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

    def _train(self, admissible: dict[Shape, tuple[int, ...]], rungs: list[Rung]) -> list[Rung]:
        """Train the rungs; those that there was time for."""
        shapes = _spread(list(admissible))
        if self.seconds < math.inf:
            # The first ones are short, and say how fast this goes.
            self._rung(shapes[: self.crew.jobs], UNIT, admissible, None)
        progress = Progress("updates", sum(rung.count * rung.updates for rung in rungs)) if self.verbose else None
        done: list[Rung] = []
        while rungs:
            if self.seconds < math.inf:
                shorter = fit_into(rungs, self._training_end - time(), self._per_update, self.crew.jobs)
                self._cut |= shorter != rungs
                rungs = shorter
                if progress is not None:
                    progress.total = sum(rung.count * rung.updates for rung in (*done, *rungs))
            rung = rungs.pop(0)
            slack = _MISSING[min(len(rungs), len(_MISSING) - 1)]
            trained = self._rung(shapes[: rung.count], rung.updates, admissible, progress)
            done.append(Rung(trained, rung.updates))
            ranked = self.target.sort([point for point in self._points() if point.updates == rung.updates], slack)
            shapes = list(dict.fromkeys(point.shape for point in ranked)) or shapes
        return done

    def _rung(
        self, shapes: Sequence[Shape], updates: int, admissible: dict[Shape, tuple[int, ...]], progress: Progress | None
    ) -> int:
        """Train students for so many updates, unless they have been; how many there are now."""
        deadline = self._training_end if self._results else math.inf
        trials = [Trial(shape, updates, admissible[shape], deadline) for shape in shapes]
        begun = 0 if progress is None else progress.done
        done = 0
        for trial, result in self._results_of(trials):
            if result is None:
                self._cut = True
                continue
            done += 1
            self._results[trial.name] = result
            if progress is not None:
                progress.advance(begun + done * updates)
        return done

    def _results_of(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, dict[str, Any] | None]]:
        left = []
        for trial in trials:
            found = self._finished(trial.name, trial.bits)
            if found is None:
                left.append(trial)
            else:
                yield trial, found
        works: Iterator[Work] = (("train", (trial,)) for trial in left if time() < trial.deadline)
        for (_, (trial,)), result in self.crew.run(works):
            yield trial, result

    def _finished(self, name: str, bits: Sequence[int]) -> dict[str, Any] | None:
        """What an earlier search with the same identity has come to, in these bits; None if one of them is missing."""
        file = self.folder / "candidates" / name / "result.json"
        if not file.is_file():
            return None
        result = _in_bits(json.loads(file.read_text()), bits)
        return result if len(result["policies"]) == len(set(bits)) else None

    def _take_earlier(self, admissible: dict[Shape, tuple[int, ...]]) -> None:
        """Students that another search in this folder has trained, which cost no time."""
        for file in sorted((self.folder / "candidates").glob("*/result.json")):
            name, result = file.parent.name, json.loads(file.read_text())
            result = _in_bits(result, admissible.get(_shape_of(result), ()))
            if result["policies"] and name not in self._results:
                self._results[name] = result

    @property
    def _per_update(self) -> float:
        """Seconds of a training over its updates, in the longest that there have been."""
        longest = max(result["updates"] for result in self._results.values())
        return statistics.fmean(
            result["seconds"] / longest for result in self._results.values() if result["updates"] == longest
        )

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
        found = []
        for name, result in self._results.items():
            shape = _shape_of(result)
            for policy in result["policies"]:
                file = self.folder / "candidates" / name / f"{policy['bits']}.sb3s"
                costs, returns = Costs(**policy["costs"]), tuple(policy["selection"])
                found.append(Point(shape, policy["bits"], result["updates"], costs, returns, self._teacher, file))
        return found

    def _evaluate(self, about: dict[str, Any]) -> Front:
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
        about |= {"cut": self._cut or len(returns) < len(files), "selection_seeds": self.seeds.selection(SELECTION)}
        return choose(self.target, points, returns, seeds=tuple(fresh), about=about)


def _shape_of(result: dict[str, Any]) -> Shape:
    arch = result["shape"]["net_arch"]
    return Shape(None if arch is None else tuple(arch), result["shape"]["sparsity"])


def _in_bits(result: dict[str, Any], bits: Sequence[int]) -> dict[str, Any]:
    """The result of a training without the policies of other bits."""
    return {**result, "policies": [policy for policy in result["policies"] if policy["bits"] in bits]}


def _spread(shapes: list[Shape]) -> list[Shape]:
    """An order of which every beginning is spread over all of them."""
    order, step = [], 1 << max(0, (len(shapes) - 1).bit_length())
    while step:
        order += [index for index in islice(range(0, len(shapes), step), len(shapes)) if index not in order]
        step //= 2
    return [shapes[index] for index in order]
