"""What a grid compares: the tasks, the lines of a figure, their sparsities and their dense control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import Any

import numpy as np

from sb3_sparse.sweeps.folder import Folder
from sb3_sparse.sweeps.grid import Grid
from sb3_sparse.sweeps.kinds import Cell
from sb3_sparse.sweeps.report.statistics import Floats
from sb3_sparse.sweeps.stored import Stored

#: The form of SB3's own ``predict``; the others are exported policies.
AGENT = "agent"
_KEYS = ("control", "lowest", "published", "over", "note")
#: What the first figure of a report has below its returns; the first one is the default.
_OVER = ("sparsity", "bytes")


@dataclass(frozen=True, eq=False)
class Group:
    """
    All seeds of one setting, played in one form.

    :param task: The environment, or the agent that the cells begin with.
    :param line: What a line of a figure shares: values of the settings that are neither task, sparsity nor seed.
    :param form: The agent, or the bits of what is exported of it.
    :param sparsity: Sparsity as the grid sets it; None for that of the recipe, or for the agent that is distilled.
    :param settings: Kind and settings of its first cell.
    :param planned: Number of its cells.
    :param results: Results of those that are finished.
    """

    task: str
    line: str
    form: str
    sparsity: float | None
    settings: Mapping[str, Any]
    planned: int
    results: tuple[Mapping[str, Any], ...]

    @property
    def label(self) -> str:
        """Line and form."""
        return ", ".join(filter(None, (self.line, "as trained" if self.form == AGENT else self.form)))

    @cached_property
    def returns(self) -> Floats:
        """Mean return of each seed, shape ``[seeds]``."""
        return np.array([np.mean(result["evaluations"][self.form]["returns"]) for result in self.results], dtype=np.float64)


class Study:
    """
    :param grid: A grid.
    :param source: Its results: a folder, or what is stored of them.
    :raises ValueError: if a result is damaged, or the grid's entry ``report`` does not fit
    """

    def __init__(self, grid: Grid, source: Folder | Stored) -> None:
        for key in grid.report:
            if key not in _KEYS:
                raise ValueError(f"'{key}' is not a part of report, which has: {', '.join(_KEYS)}")
        if not isinstance(grid.report.get("note", ""), str):
            raise ValueError(f"report: note has to be text, got {grid.report['note']!r}")
        if grid.report.get("over", _OVER[0]) not in _OVER:
            raise ValueError(f"report: over has to be one of {', '.join(_OVER)}, got {grid.report['over']!r}")
        self.grid, self.source = grid, source
        self.results = {cell.name: result for cell in grid.cells if (result := source.read(cell.name)) is not None}
        self.missing = tuple(cell for cell in grid.cells if cell.name not in self.results)
        self.deaths = {cell.name: deaths for cell in self.missing if (deaths := source.deaths(cell.name))}
        self._lowest = self._find_lowest()
        self._settings = {cell.name: {"kind": cell.kind, **cell.settings} for cell in grid.cells}
        self._line = _line_settings(list(self._settings.values()))
        self.groups = tuple(self._make_groups())
        self.tasks = tuple(dict.fromkeys(group.task for group in self.groups))
        self.labels = tuple(dict.fromkeys(group.label for group in self.groups))
        self._chosen = self._find_chosen()
        self._controls = {group: self._find_control(group) for group in self.groups}

    def control(self, group: Group) -> Group | None:
        """
        :param group: A group.
        :return: The dense agents that it is compared with, never in an exported form; None where there are none
        """
        return self._controls[group]

    def select(self, *, task: str | None = None, label: str | None = None) -> list[Group]:
        """
        :param task: One of the tasks, or all.
        :param label: One of the labels, or all.
        :return: Their groups by sparsity
        """
        found = [group for group in self.groups if task in (None, group.task) and label in (None, group.label)]
        return sorted(found, key=lambda group: -1.0 if group.sparsity is None else group.sparsity)

    def lowest(self, group: Group) -> float:
        """
        :param group: A group.
        :return: The return that has score 0 on its task: 0, or what the grid says
        """
        return self._lowest.get(str(group.settings.get("env", "")), 0.0)

    def score(self, group: Group, of: Group | None = None) -> Floats | None:
        """
        Returns on a scale on which the mean of the group's dense control has 1, and 0 is :meth:`lowest`.

        :param group: A group.
        :param of: The group whose returns are put on this scale; None for the group itself.
        :return: A score per seed; None without results of the group or of its control, or where that is not above 0
        """
        control, lowest = self.control(group), self.lowest(group)
        if control is None or not control.results or not group.results or control.returns.mean() <= lowest:
            return None
        scores: Floats = ((of or group).returns - lowest) / (control.returns.mean() - lowest)
        return scores

    def _make_groups(self) -> list[Group]:
        """
        :raises ValueError: if an agent would count twice
        """
        cells: dict[tuple[str, str, str, float | None], list[Cell]] = {}
        for cell in self.grid.cells:
            settings = self._settings[cell.name]
            line = ", ".join(filter(None, (_word(name, settings[name]) for name in self._line if name in settings)))
            for form in dict.fromkeys((AGENT, *(f"{bits} bits" for bits in settings.get("bits", ())))):
                cells.setdefault((_task(settings), line, form, settings.get("sparsity")), []).append(cell)
        for members in cells.values():
            if len({cell.seed for cell in members}) < len(members):
                raise ValueError(
                    f"several cells differ in bits alone, such as {members[0]}: they are one training, so give all bits as one"
                    " list in fixed, as in bits: [8, 4]"
                )
        return [
            Group(
                *key,
                settings=self._settings[members[0].name],
                planned=len(members),
                results=tuple(
                    result
                    for cell in members
                    if (result := self.results.get(cell.name)) is not None and key[2] in result["evaluations"]
                ),
            )
            for key, members in cells.items()
        ]

    def _find_lowest(self) -> dict[str, float]:
        lowest = self.grid.report.get("lowest", {})
        if not isinstance(lowest, dict) or not all(map(_is_return, lowest.values())):
            raise ValueError(f"report: lowest has to be a mapping of environments to returns, got {lowest!r}")
        known = self.grid.envs | {str(cell.settings.get("env")) for cell in self.grid.cells}
        if unknown := sorted(map(str, lowest.keys() - known)):
            raise ValueError(f"report: lowest names {unknown[0]}, and the grid has {', '.join(sorted(known))}")
        return {env: float(value) for env, value in lowest.items()}

    def _find_chosen(self) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        """Settings of groups, and those of their control. The first that fit a group count."""
        chosen = self.grid.report.get("control")
        if chosen is None:
            sparsities = {group.sparsity for group in self.groups}
            dense = [sparsity for sparsity in (0.0, None) if sparsity in sparsities and len(sparsities) > 1]
            return [({}, {"sparsity": dense[0]})] if dense else []
        known = dict.fromkeys(name for group in self.groups for name in group.settings)
        found: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
        for entry in chosen if isinstance(chosen, list) else [chosen]:
            of = entry.get("of", {}) if isinstance(entry, dict) else None
            if not isinstance(of, dict) or not {*of, *entry} - {"of"} <= known.keys():
                raise ValueError(
                    f"report: control has to be a mapping of settings, which are {', '.join(known)}, got {entry!r}"
                )
            settings = {name: value for name, value in entry.items() if name != "of"}
            for each in (of, settings):
                if not any(_fits(group, each) for group in self.groups):
                    raise ValueError(f"report: control {each} fits no cell of this size of the grid")
            found.append((of, settings))
        return found

    def _find_control(self, group: Group) -> Group | None:
        chosen = next((settings for of, settings in self._chosen if _fits(group, of)), None)
        if chosen is None:
            return None
        same = [other for other in self.groups if other.task == group.task and other.form == AGENT]
        found = [other for other in same if _fits(other, chosen)]
        shared = [name for name in self._line if name not in chosen]
        nearest = [other for other in found if all(other.settings.get(name) == group.settings.get(name) for name in shared)]
        # One that the grid names, and that does not follow the lines, as an agent before its distillation, is that of all.
        named = self.grid.report.get("control") is not None
        candidates = nearest or (found if named else [])
        if len(candidates) > 1:
            raise ValueError(f"report: control {chosen} fits {len(candidates)} settings of {group.task}: name more of them")
        return candidates[0] if candidates else None


def _is_return(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _fits(group: Group, settings: Mapping[str, Any]) -> bool:
    return all(name in group.settings and group.settings[name] == value for name, value in settings.items())


def _line_settings(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings that vary among cells of the same task and kind, and the kind, if that does. Bits are forms of one line."""

    def varies(name: str) -> bool:
        found: dict[tuple[str, str], set[str]] = {}
        for each in settings:
            if name in each:
                found.setdefault((_task(each), each["kind"] if name != "kind" else ""), set()).add(repr(each[name]))
        return max(map(len, found.values())) > 1

    names = dict.fromkeys(name for each in settings for name in each)
    return [name for name in names if name not in ("seed", "sparsity", "env", "bits") and varies(name)]


def _task(settings: Mapping[str, Any]) -> str:
    """A kind of cells may have no environment, and has a single task then."""
    env = str(settings.get("env", ""))
    agent = settings.get("agent")
    if agent is None:
        return env
    name = str(agent).removesuffix(".zip")
    return name if env in name else f"{name}, {env}"


def _word(name: str, value: object) -> str:
    if isinstance(value, bool):
        return name if value else f"no {name}"
    if isinstance(value, list):
        return " ".join(map(str, value)) if name == "hyperparams" else f"{name} {' '.join(map(str, value)) or 'none'}"
    if value is None or (name, value) == ("precision", "float32"):
        return ""
    return value if isinstance(value, str) else f"{name} {value}"
