"""
Scores over the bytes of exported files: what a report has in the place of verdicts and returns over sparsity where its grid
says ``over: bytes``. A score is that of :meth:`~sb3_sparse.sweeps.report.study.Study.score`, the share of the control's return
where 0 is the return 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from sb3_sparse.sweeps.report.blocks import Entry, Table, number, percent, word
from sb3_sparse.sweeps.report.figures import choose_colors, make_legend, make_panels
from sb3_sparse.sweeps.report.published import Published
from sb3_sparse.sweeps.report.study import AGENT, Group, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Scores to keep.
_SCORES = (0.8, 0.9, 0.95, 0.98)
#: "*" is that of published networks. A report of more forms uses markers twice.
_MARKERS = "os^vDP<>Xp"
#: What the figure shows.
CAPTION = (
    "Score over bytes of the exported file, negative scores as 0; filled: trained with these bits. Gray: the best of all files"
    " of so many bytes."
)


@dataclass(frozen=True)
class File:
    """
    :param group: Agents of one setting in an exported form.
    :param nbytes: Mean bytes over its seeds.
    :param score: Mean score of them.
    """

    group: Group
    nbytes: float
    score: float

    @property
    def title(self) -> str:
        """Line, form and sparsity."""
        return f"{self.group.label}, {percent(self.group.sparsity).text}"


def find_files(study: Study, task: str) -> list[File]:
    """
    :param study: What a grid compares.
    :param task: One of its tasks.
    :return: What is exported there of agents that the grid makes and has a score, the smallest first
    """
    found = []
    for group in study.select(task=task):
        score = study.score(group)
        if group.form != AGENT and group.sparsity is not None and score is not None:
            sizes = [result["evaluations"][group.form]["nbytes"] for result in group.results]
            found.append(File(group, float(np.mean(sizes)), float(score.mean())))
    return sorted(found, key=lambda file: file.nbytes)


def find_front(files: Sequence[File]) -> list[File]:
    """
    :param files: Files, the smallest first.
    :return: Those with a higher score than every smaller one
    """
    front: list[File] = []
    for file in files:
        if not front or file.score > front[-1].score:
            front.append(file)
    return front


def make_tables(study: Study) -> list[Table]:
    """
    :param study: What a grid compares.
    :return: The smallest files that keep a score, of all and of the dense ones, and the front of each task
    """
    smallest, fronts = [], []
    for task in study.tasks:
        files = find_files(study, task)
        for score in _SCORES:
            kept = [file for file in files if file.score >= score]
            dense = [file for file in kept if file.group.sparsity == 0.0]
            smallest.append([word(task), Entry(f"{score:g}", score), *(_file(each) for each in (kept, dense))])
        for file in find_front(files):
            numbers = Entry(number(file.nbytes, 0), file.nbytes), Entry(number(file.score, 3), file.score)
            fronts.append([word(task), *numbers, word(file.title)])
    columns = {"task": "", "score": "at least", "smallest file": "", "smallest file of a dense network": ""}
    front = {"task": "", "bytes": "", "score": "higher than that of every smaller file", "agent": ""}
    return [Table(columns, smallest), Table(front, fronts)]


def draw_files(study: Study, published: Published | None) -> Figure:
    """
    :param study: What a grid compares.
    :param published: The numbers of others.
    :return: Score over bytes: one panel per task, one color per sparsity, one marker per form
    """
    figure, panels = make_panels(study.tasks, 2)
    files = {task: find_files(study, task) for task in study.tasks}
    everything = [file.group for each in files.values() for file in each]
    colors = choose_colors(sorted({group.sparsity for group in everything if group.sparsity is not None}), True)
    markers = dict(zip(dict.fromkeys(group.form for group in everything), cycle(_MARKERS), strict=False))
    for task, panel in zip(study.tasks, panels, strict=True):
        for file in files[task]:
            color = colors[file.group.sparsity]
            fill = color if file.group.settings.get("trained_bits") else "none"
            style = {"color": color, "markerfacecolor": fill, "markersize": 5}
            panel.plot(file.nbytes, max(0.0, file.score), markers[file.group.form], **style)
        front = find_front(files[task])
        panel.step([file.nbytes for file in front], [file.score for file in front], where="post", color="gray", linewidth=0.9)
        env = str(files[task][0].group.settings["env"]) if files[task] else ""
        for nbytes, keeps in published.published_files(env) if published is not None else []:
            panel.plot(nbytes, keeps, "*", color="tab:red", markersize=10, markerfacecolor="none", label="published")
        panel.axhline(1.0, color="gray", linewidth=0.9, linestyle="--")
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:.0f}")
        panel.set(xlabel="bytes", ylabel="score", ylim=(0.0, max(1.1, panel.get_ylim()[1])))
    for sparsity, color in colors.items():
        panels[0].plot([], [], color=color, label=percent(sparsity).text)
    for form, marker in markers.items():
        panels[0].plot([], [], marker, color="black", markerfacecolor="none", label=form)
    make_legend(figure, panels)
    return figure


def _file(files: Sequence[File]) -> Entry:
    return Entry(f"{number(files[0].nbytes, 0)} ({files[0].title})", files[0].nbytes) if files else Entry("none")
