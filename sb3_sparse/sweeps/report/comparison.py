"""Each group against its dense control, and the verdict of each line: the largest sparsity without loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sb3_sparse.sweeps.report.published import Published
from sb3_sparse.sweeps.report.statistics import (
    Estimate,
    Floats,
    estimate_difference,
    estimate_difference_to_one,
    estimate_improvement,
    estimate_iqm,
    estimate_mean,
)
from sb3_sparse.sweeps.report.study import Group, Study

#: A loss, as a share of the control's return, that an interval has to exclude for a verdict that decides.
DECIDES = 0.2
#: Scores of an interquartile mean, of which it leaves out a quarter at each end.
FEWEST = 4
RULE = (
    "A sparsity is without loss if the 95 % interval of the difference to the dense control, by Welch's t over the mean"
    " returns of the seeds, contains zero or lies above. A wide interval contains zero as well: where it does not exclude a"
    f" loss of {100 * DECIDES:.0f} % of what lies between the return that has score 0 and the control's mean, it is too wide"
    " to decide. The intervals are not corrected for the number of comparisons."
)
#: Of comparisons with a published return.
RULE_PUBLISHED = (
    "Where the grid has fewer than two seeds of its dense control, and the return of one dense agent is published, the"
    " difference is to this agent, marked *published*. Its interval supposes that dense agents differ among each other as ours"
    " do (Crawford and Howell 1998). One agent, trained elsewhere, is no control, so there is no verdict."
)


@dataclass(frozen=True)
class Comparison:
    """
    :param group: A group.
    :param mean: Its mean return over seeds; None if nothing is finished.
    :param difference: To the mean return of its control; None without a control or for the control itself.
    :param improvement: Probability that one of its seeds is better than one of the control.
    :param relative: Lower end of the difference's interval over the distance of the control's mean from the return that has
        score 0.
    :param score: Its mean score, see :meth:`~sb3_sparse.sweeps.report.study.Study.score`; None for the control itself.
    :param published: Whether the difference is to one published agent, for want of a control.
    """

    group: Group
    mean: Estimate | None
    difference: Estimate | None = None
    improvement: Estimate | None = None
    relative: float | None = None
    score: Estimate | None = None
    published: bool = False

    @property
    def loses(self) -> bool | None:
        """Whether it is worse than the control; None where there is no interval, or no control but a published agent."""
        if self.published or self.difference is None or self.difference.interval is None:
            return None
        # What is not a number is never without loss.
        return not self.difference.interval[1] >= 0.0

    @property
    def decides(self) -> bool:
        """Whether the interval excludes a loss of more than :data:`DECIDES`."""
        return self.relative is not None and self.relative >= -DECIDES


def compare(study: Study, group: Group, published: Published | None = None) -> Comparison:
    """
    :param study: What a grid compares.
    :param group: One of its groups.
    :param published: Published numbers for it.
    :return: The group against its control, or where that has fewer than two seeds, against one published agent
    """
    if not group.results:
        return Comparison(group, None)
    mean, control = estimate_mean(group.returns), study.control(group)
    if control is None or control is group:
        return Comparison(group, mean)
    dense = None if published is None else published.stand_in(control)
    if dense is not None:
        difference = estimate_difference_to_one(group.returns, dense["mean"])
        relative = _relative(study, group, difference, dense["mean"])
        return Comparison(group, mean, difference, relative=relative, published=True)
    if not control.results:
        return Comparison(group, mean)
    difference = estimate_difference(group.returns, control.returns)
    relative = _relative(study, group, difference, float(control.returns.mean()))
    improvement, score = estimate_improvement([group.returns], [control.returns]), study.score(group)
    return Comparison(group, mean, difference, improvement, relative, None if score is None else estimate_mean(score))


def judged(study: Study, line: Sequence[Comparison]) -> list[list[Comparison]]:
    """
    :param study: What a grid compares.
    :param line: The comparisons of one line on one task.
    :return: Those that have one verdict together: the sparsities that the grid sets, and that which a recipe has, if the dense
        control is another line or has a sparsity of the grid. A control is not judged
    """

    def is_sparse(group: Group) -> bool:
        control = study.control(group)
        return control is not None and (control.line, control.sparsity) != (group.line, None)

    others = [each for each in line if study.control(each.group) is not each.group]
    parts = [each for each in others if each.group.sparsity], [each for each in others if each.group.sparsity is None]
    return [part for part in (parts[0], [each for each in parts[1] if is_sparse(each.group)]) if part]


@dataclass(frozen=True)
class Verdict:
    """
    :param best: The group of the largest sparsity without loss; None if there is none.
    :param note: What limits it, or why there is none.
    """

    best: Comparison | None
    note: str


def judge(comparisons: Sequence[Comparison]) -> Verdict:
    """
    Apply :data:`RULE`.

    :param comparisons: Those of one line on one task, as :func:`judged` has them.
    :return: The verdict
    """
    sparse = sorted((each for each in comparisons if each.group.sparsity != 0.0), key=lambda each: each.group.sparsity or 0.0)
    if not sparse:
        return Verdict(None, "no sparsities")
    known = [each for each in sparse if each.loses is not None]
    if not known and any(each.published for each in sparse):
        return Verdict(None, "not judged: one published agent is no control")
    if not known:
        return Verdict(None, "not measured: it takes a control and two seeds of each")
    unknown = [each for each in sparse if each.loses is None]
    kept = [each for each in known if not each.loses]
    notes = []
    if unknown:
        notes.append(f"{_list(unknown)} not measured")
    if not kept:
        return Verdict(None, "; ".join(["a loss at every sparsity that was measured", *notes]))
    wide, kept = [each for each in kept if not each.decides], [each for each in kept if each.decides]
    lost = [each for each in known if each.loses]
    if not kept:
        losses = [f"a loss at {_list(lost)}"] if lost else []
        which = f" of {_list(wide)}" if lost else ""
        return Verdict(None, "; ".join([*losses, *notes, f"the intervals{which} are wide"]))
    if wide:
        notes.append(f"{_list(wide)} not decided")
    if kept[-1].difference is not None and kept[-1].difference.interval == (0.0, 0.0):
        notes.append("all returns are those of the control: the agents act alike, or a ceiling of the task hides differences")
    lower = [each for each in lost if (each.group.sparsity or 0.0) < (kept[-1].group.sparsity or 0.0)]
    if lower:
        notes.append(f"a loss at {_list(lower)}")
    return Verdict(kept[-1], "; ".join(notes))


@dataclass(frozen=True)
class Aggregate:
    """
    One sparsity of a line over the tasks that have a score there.

    :param group: One of its groups.
    :param tasks: Number of tasks with a score.
    :param seeds: Number of scores: the seeds of those tasks.
    :param planned: Number of seeds of all tasks that the grid has here.
    :param iqm: Interquartile mean of the scores. Its interval counts the spread of the controls as well, but for controls
        themselves.
    :param improvement: Probability of improvement over the controls; None for controls.
    """

    group: Group
    tasks: int
    seeds: int
    planned: int
    iqm: Estimate
    improvement: Estimate | None


def aggregate(study: Study, label: str) -> list[Aggregate]:
    """
    :param study: What a grid compares.
    :param label: One of its labels.
    :return: Its sparsities that have as many scores as an interquartile mean takes
    """
    groups = study.select(label=label)
    found = []
    for sparsity in dict.fromkeys(group.sparsity for group in groups):
        same = [group for group in groups if group.sparsity == sparsity]
        scored = [(group, score) for group in same if (score := study.score(group)) is not None]
        if sum(len(score) for _, score in scored) < FEWEST:
            continue
        pairs = [(group, control) for group, _ in scored if (control := study.control(group)) not in (None, group)]
        dense = [_dense_scores(study, group) for group, _ in scored]
        ours, theirs = [group.returns for group, _ in pairs], [control.returns for _, control in pairs if control is not None]
        improvement = estimate_improvement(ours, theirs) if pairs else None
        scores = [score for _, score in scored]
        counts = len(scored), sum(map(len, scores)), sum(group.planned for group in same)
        found.append(Aggregate(scored[0][0], *counts, estimate_iqm(scores, dense), improvement))
    return found


def _dense_scores(study: Study, group: Group) -> Floats:
    """Scores of its control; for a control itself score 1 as it is, twice, since one seed has no interval."""
    control = study.control(group)
    scores = np.ones(2) if control is group else study.score(group, of=control)
    assert scores is not None
    return scores


def _relative(study: Study, group: Group, difference: Estimate, level: float) -> float | None:
    """None as well for a control that is not above the lowest return of its task, where the grid names one."""
    lowest = study.lowest(group)
    height = level - lowest
    if difference.interval is None or height == 0.0 or (height < 0.0 and lowest != 0.0):
        return None
    return difference.interval[0] / abs(height)


def _list(comparisons: Sequence[Comparison]) -> str:
    return ", ".join("it" if each.group.sparsity is None else f"{100 * each.group.sparsity:g} %" for each in comparisons)
