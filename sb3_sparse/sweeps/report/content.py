"""The sections of a report: the verdicts, the figures, the numbers, and how they were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sb3_sparse.sweeps.report.blocks import MISSING, NOTHING, Entry, Picture, Section, Table, estimate, number, percent, word
from sb3_sparse.sweeps.report.comparison import RULE, RULE_PUBLISHED, Aggregate, Comparison, judge, judged
from sb3_sparse.sweeps.report.published import Published
from sb3_sparse.sweeps.report.study import Group, Study

Comparisons = Mapping[tuple[str, str], Sequence[Comparison]]


def verdicts(study: Study, comparisons: Comparisons, published: Published | None) -> Section:
    """
    :param study: What a grid compares.
    :param comparisons: By task and label.
    :param published: The papers' numbers for it.
    :return: The largest sparsity without loss of each line on each task, next to the paper's
    """
    columns = {
        "task": "", "agent": "", "largest sparsity without loss": "",
        "loss that is not excluded": "lower end of the difference, as a share of score 1",
        "return": "of it, and its interval", "difference": "to the dense control", "n": "seeds", "note": "",
    }  # fmt: skip
    rows, claimed = [], published if published is not None and published.claims else None
    parts = [(task, label, part) for (task, label), line in comparisons.items() for part in judged(study, line)]
    lines = [(task, label) for task, label, _ in parts]
    for task, label, part in parts:
        verdict = judge(part)
        best = verdict.best
        own = part[0].group.sparsity is None and lines.count((task, label)) > 1
        row = [word(task), word(f"{label}, the recipe's sparsity" if own else label)]
        if best is None:
            row += [Entry(_nothing(part)), NOTHING, NOTHING, NOTHING, NOTHING]
        else:
            row += [percent(best.group.sparsity), _loss(best), estimate(best.mean), _difference(best), _count(best)]
        row.append(word(verdict.note))
        if claimed is not None:
            claim = claimed.claim(part[0].group)
            row.append(
                NOTHING if claim is None else Entry(f"{percent(claim['sparsity']).text} ({claim['env']})", claim["sparsity"])
            )
        rows.append(row)
    if claimed is not None:
        columns["the paper's claim"] = "and its environment"
    blocks: list[str | Table | Picture] = [Table(columns, rows), RULE]
    if any(each.published for _, _, part in parts for each in part):
        blocks.append(RULE_PUBLISHED)
    if published is not None:
        blocks.append(describe_paper(published))
    return Section("Largest sparsity without loss", blocks)


def numbers(comparisons: Comparisons, published: Published | None) -> Section:
    """
    :param comparisons: By task and label.
    :param published: The papers' numbers for it.
    :return: All settings, also those that are missing
    """
    columns = {
        "task": "", "agent": "", "sparsity": "as the grid sets it", "n": "seeds that are finished, of those of the grid",
        "return": "", "difference": "to the dense control", "score": "the control's mean return has 1",
        "better than dense": "probability of improvement", "weights that are left": "of each network, those that are not 0",
        "bytes": "of the exported file, mean", "CPU minutes": "of a cell, mean",
    }  # fmt: skip
    if published is not None and published.returns:
        columns["published return"] = "mean ± standard deviation, where it is given"
    rows = []
    for (task, label), line in comparisons.items():
        for each in line:
            row = [word(task), word(label), _sparsity(each.group), _count(each)]
            if each.mean is None:
                row += [MISSING] * 7
            else:
                row += [estimate(each.mean), _difference(each), estimate(each.score)]
                row += [describe(each) for describe in (_probability, _weights, _bytes, _minutes)]
            if published is not None and published.returns:
                row.append(_published(published.published_return(each.group)))
            rows.append(row)
    papers = [describe_paper(published)] if published is not None and published.returns else []
    return Section("All settings", [Table(columns, rows), *papers])


def over_tasks(aggregates: Mapping[str, Sequence[Aggregate]], tasks: int) -> Table:
    """
    :param aggregates: By label.
    :param tasks: Number of tasks of the grid.
    :return: Scores and probabilities of improvement over all tasks
    """
    columns = {
        "agent": "", "sparsity": "", "tasks": "that have a score, of those of the grid",
        "n": "seeds of them, of those of the grid on all its tasks", "score": "interquartile mean, of four scores at least",
        "better than dense": "probability of improvement",
    }  # fmt: skip
    rows = [
        [
            word(label),
            _sparsity(each.group),
            Entry(f"{each.tasks} of {tasks}", each.tasks),
            Entry(f"{each.seeds} of {each.planned}", each.seeds),
            estimate(each.iqm),
            estimate(each.improvement),
        ]
        for label, line in aggregates.items()
        for each in line
    ]
    return Table(columns, rows)


def describe_paper(published: Published) -> str:
    """
    :param published: A figure or table of a paper.
    :return: Where it is, and where its numbers are from
    """
    words = (published.paper, f"{published.place}.", f"Its numbers here are {published.source}.", published.note)
    return " ".join(filter(None, words))


def _nothing(part: Sequence[Comparison]) -> str:
    """What stands in the place of a largest sparsity without loss."""
    loses = {each.loses for each in part}
    return "not decided" if False in loses else "none" if True in loses else "not measured"


def _sparsity(group: Group) -> Entry:
    if group.sparsity is None and group.settings["kind"] == "distill":
        return Entry("the agent itself", -1.0)
    return percent(group.sparsity)


def _count(each: Comparison) -> Entry:
    n, planned = len(each.group.results), each.group.planned
    return Entry(str(n) if n == planned else f"{n} of {planned}", n)


def _loss(each: Comparison) -> Entry:
    return (
        NOTHING if each.relative is None else Entry(f"{number(100 * max(0.0, -each.relative), 1)} %", max(0.0, -each.relative))
    )


def _difference(each: Comparison) -> Entry:
    found = estimate(each.difference)
    return replace(found, text=f"{found.text} (published)") if each.published else found


def _probability(each: Comparison) -> Entry:
    return NOTHING if each.improvement is None else Entry(number(each.improvement.value, 2), each.improvement.value)


def _weights(each: Comparison) -> Entry:
    totals: dict[str, list[int]] = {}
    for result in each.group.results:
        for name, network in result["networks"].items():
            nonzero, total = totals.setdefault(name, [0, 0])
            totals[name] = [nonzero + network["nonzero"], total + network["total"]]
    shares = {name: nonzero / total for name, (nonzero, total) in totals.items() if total}
    text = ", ".join(f"{name} {100 * share:.3g} %" for name, share in shares.items())
    return Entry(text, min(shares.values(), default=None))


def _bytes(each: Comparison) -> Entry:
    sizes = [result["evaluations"][each.group.form].get("nbytes") for result in each.group.results]
    if None in sizes:
        return NOTHING
    return Entry(number(sum(sizes) / len(sizes), 0), sum(sizes) / len(sizes))


def _minutes(each: Comparison) -> Entry:
    times = [result["cpu_seconds"] for result in each.group.results]
    if None in times:
        return NOTHING
    minutes = sum(times) / len(times) / 60
    return Entry(number(minutes), minutes)


def _published(value: Mapping[str, Any] | None) -> Entry:
    if value is None:
        return NOTHING
    spread = "" if value.get("sd") is None else f" ± {number(value['sd'], 0 if value['mean'] >= 1000 else None)}"
    return Entry(f"{number(value['mean'])}{spread} ({value['env']})", value["mean"])
