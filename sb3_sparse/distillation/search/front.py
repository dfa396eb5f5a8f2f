"""What a search has found: policies, what they take and what they play, and files of them."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecNormalize

from sb3_sparse.agents.compression.files import c_name
from sb3_sparse.distillation.search.candidates import Shape
from sb3_sparse.distillation.search.costs import Costs
from sb3_sparse.distillation.search.figure import save_figure
from sb3_sparse.distillation.search.target import Target, kept_return, pareto
from sb3_sparse.export.boards import BOARDS, describe_tools
from sb3_sparse.export.c.header import to_c
from sb3_sparse.runtime import load
from sb3_sparse.table import format_table

#: Draws of a bootstrap.
_DRAWS = 10_000


@dataclass(frozen=True)
class Point:
    """
    A policy.

    :param shape: Widths and sparsity of the student.
    :param bits: Bits of its weights.
    :param updates: Gradient updates that it was trained for.
    :param costs: What it takes.
    :param returns: Returns of its episodes.
    :param teacher: Returns of the teacher in the same episodes.
    :param file: Its compact file. The student itself is the ``.zip`` next to it.
    """

    shape: Shape
    bits: int
    updates: int
    costs: Costs
    returns: tuple[float, ...]
    teacher: tuple[float, ...]
    file: Path

    @property
    def bytes(self) -> int:
        """Bytes of the file."""
        return self.costs.bytes

    @property
    def flash(self) -> int:
        """Bytes of the C header in flash."""
        return self.costs.flash

    @property
    def us(self) -> float:
        """Microseconds of a call."""
        return self.costs.us

    @property
    def instructions(self) -> int | None:
        """Instructions of an action on the board, if they were counted."""
        return self.costs.instructions

    @property
    def mean_return(self) -> float:
        """Mean return."""
        return statistics.fmean(self.returns)

    @property
    def kept(self) -> float:
        """Share of the teacher's return."""
        return kept_return(self.mean_return, statistics.fmean(self.teacher))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the share, over episodes with the same seeds."""
        own, theirs = np.array(self.returns), np.array(self.teacher)
        rows = np.random.default_rng(0).integers(len(own), size=(_DRAWS, len(own)))
        means = theirs[rows].mean(axis=1)
        low, high = np.quantile(1 + (own[rows].mean(axis=1) - means) / np.maximum(np.abs(means), 1e-12), [0.025, 0.975])
        return float(low), float(high)

    def __str__(self) -> str:
        widths = "own widths" if self.shape.net_arch is None else "x".join(map(str, self.shape.net_arch))
        return f"{widths}, {100 * self.shape.sparsity:g} % sparse, {self.bits} bits"

    def to_dict(self) -> dict[str, Any]:
        """
        :return: The same as plain JSON
        """
        parts = {"net_arch": self.shape.net_arch, "sparsity": self.shape.sparsity, "bits": self.bits, "updates": self.updates}
        returns = {"mean_return": self.mean_return, "kept": self.kept, "interval": self.interval, "returns": self.returns}
        return {**parts, **asdict(self.costs), **returns}


@dataclass(frozen=True)
class Front:
    """
    What a search has found.

    :param target: What was wanted.
    :param evaluated: Policies that have played the fresh episodes, the smallest first.
    :param best: The one that was chosen by other episodes; the nearest to the target, if none reaches it.
    :param met: Whether it reaches the target, in the fresh episodes as well.
    :param seeds: Seeds of the fresh episodes.
    :param about: More about the search, as plain JSON.
    :param normalization: The statistics of the observations, if they are normalized.
    :param keeper: What keeps the files as long as this exists.
    """

    target: Target
    evaluated: tuple[Point, ...]
    best: Point
    met: bool
    seeds: tuple[int, ...]
    about: dict[str, Any] = field(default_factory=dict)
    normalization: VecNormalize | None = field(default=None, repr=False)
    keeper: object = field(default=None, repr=False)

    @property
    def points(self) -> list[Point]:
        """The Pareto front: policies that no other one beats in both bytes and return, the smallest first."""
        return pareto(self.evaluated, self.target.size)

    @property
    def verdict(self) -> str:
        """Whether the target is reached, and by what, in one sentence."""
        low, high = self.best.interval
        best = (
            f"{self.best} keeps {self.best.kept:.3f} ({low:.3f} to {high:.3f}) of the return with {self.best.bytes:,} bytes, "
            f"{self.best.flash:,} in flash, in {self.best.us:.2f} us"
        )
        if self.target.board is not None:
            best += f" and {_count(self.best)} {BOARDS[self.target.board].unit} on an emulated {self.target.board}"
        return f"{best}, over {len(self.seeds)} fresh episodes" if self.met else f"nothing {self.target}: the nearest, {best}"

    def save(self, folder: str | Path, *, name: str = "student", masks: bool = False) -> list[str]:
        """
        Write the chosen policy as ``<name>.sb3s``, ``<name>.h`` and ``<name>.zip``, to which ``<name>_vecnormalize.pkl``
        belongs if its observations are normalized, the front's compact files as ``front/*.sb3s``, ``fit.json`` and, where
        matplotlib is installed, ``front.png``.

        :param folder: Where to write; it is made if it does not exist.
        :param name: Name of the chosen policy's files.
        :param masks: Whether the header takes masks of the actions.
        :return: Names of the files
        """
        folder = Path(folder)
        (folder / "front").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.best.file, folder / f"{name}.sb3s")
        shutil.copyfile(self.best.file.with_suffix(".zip"), folder / f"{name}.zip")
        (folder / f"{name}.h").write_text(to_c(load(self.best.file).network, name=c_name(name), masks=masks, simd=False))
        statistics = folder / f"{name}_vecnormalize.pkl"
        statistics.unlink(missing_ok=True)
        if self.normalization is not None:
            self.normalization.save(str(statistics))
        files = {point: f"front/{point.shape}-{point.bits}bit-{point.updates}.sb3s" for point in self.points}
        for old in set((folder / "front").glob("*bit*.sb3s")) - {folder / file for file in files.values()}:
            # A file of an earlier search would not belong to the rest.
            old.unlink()
        for point, file in files.items():
            shutil.copyfile(point.file, folder / file)
        (folder / "fit.json").write_text(json.dumps(self._to_dict(files), indent=1, allow_nan=False) + "\n")
        written = [f"{name}.sb3s", f"{name}.h", f"{name}.zip", *[statistics.name] * statistics.exists(), "fit.json"]
        written += files.values()
        try:
            save_figure(folder / "front.png", self.evaluated, self.best, self.target, len(self.seeds))
        except ImportError as error:
            (folder / "front.png").unlink(missing_ok=True)
            print(f"no front.png: {error}", flush=True)
            return written
        return [*written, "front.png"]

    def _to_dict(self, files: Mapping[Point, str]) -> dict[str, Any]:
        points = [
            {**point.to_dict(), "front": point in files, "file": files.get(point), "best": point is self.best}
            for point in self.evaluated
        ]
        teacher = {"mean_return": statistics.fmean(self.best.teacher), "returns": self.best.teacher}
        found = {"target": asdict(self.target), "size": self.target.size, "met": self.met, "verdict": self.verdict}
        if self.target.board is not None:
            board = BOARDS[self.target.board]
            found["counted"] = {"unit": board.counted, "tools": describe_tools([board])}
        return {**self.about, **found, "seeds": self.seeds, "teacher": teacher, "points": points}

    def __str__(self) -> str:
        counted = [] if self.target.board is None else [BOARDS[self.target.board].unit]
        heading = ("", "weights", "bytes", "tables", "flash", "us", *counted, "return", "kept", "95 % interval", "updates")
        rows: list[Sequence[str]] = [heading]
        front = self.points
        for point in self.evaluated:
            low, high = point.interval
            mark = "> " if point is self.best else "* " if point in front else "  "
            sizes = (f"{size:,}" for size in (point.costs.weights, point.bytes, point.costs.tables, point.flash))
            returns = (f"{point.mean_return:,.1f}", f"{point.kept:.3f}", f"{low:.3f} to {high:.3f}", f"{point.updates:,}")
            rows.append((f"{mark}{point}", *sizes, f"{point.us:.2f}", *[_count(point) for _ in counted], *returns))
        mean = statistics.fmean(self.best.teacher)
        return (
            f"{format_table(rows)}\n> chosen, * on the front; {len(self.seeds)} episodes each, the teacher's mean {mean:,.1f}"
        )


def _count(point: Point) -> str:
    return "too many" if point.instructions is None else f"{point.instructions:,}"


class Unmet(ValueError):
    """
    Nothing reaches the target.

    :param front: What was found.
    """

    def __init__(self, front: Front) -> None:
        super().__init__(front.verdict)
        #: What was found.
        self.front = front


def choose(target: Target, selected: Sequence[Point], fresh: Mapping[Path, tuple[float, ...]], **rest: Any) -> Front:
    """
    The best by the episodes that choices are made by. Fresh episodes do not rank: one that misses the target in them makes way
    for the next.

    :param target: What is wanted.
    :param selected: Policies with the returns that choices are made by.
    :param fresh: Returns of fresh episodes by file, those of the teacher under ``Path()``.
    :param rest: Other fields of the front.
    :return: The front
    """
    teacher = fresh[Path()]
    points = {
        point.file: replace(point, returns=fresh[point.file], teacher=teacher) for point in selected if point.file in fresh
    }
    order = [points[point.file] for point in target.sort(selected) if point.file in points]
    reached = [point for point in order if target.shortfall(point) == 0]
    evaluated = tuple(sorted(points.values(), key=lambda point: (getattr(point, target.size), -point.kept)))
    best = reached[0] if reached else target.sort(evaluated)[0]
    return Front(target, evaluated, best, bool(reached), **rest)
