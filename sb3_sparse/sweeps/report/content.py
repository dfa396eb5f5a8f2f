"""The sections of a report: the verdicts, the figures, the numbers, and how they were made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sb3_sparse.sweeps.report.blocks import MISSING, NOTHING, Entry, Picture, Section, Table, estimate, number, percent, word
from sb3_sparse.sweeps.report.comparison import RULE, Aggregate, Comparison, judge
from sb3_sparse.sweeps.report.published import Published
from sb3_sparse.sweeps.report.statistics import DRAWS
from sb3_sparse.sweeps.report.study import Study
from sb3_sparse.sweeps.stored import Stored

_METHODS = (
    "A return is the mean over the episodes of a seed, and n is the number of seeds. Intervals of returns and of their"
    " differences are Student's and Welch's 95 % intervals over seeds; Welch's is too wide for agents that are compared with"
    " themselves in 8 bits. A score is a return on the scale on which the mean of the task's dense control has 1, and 0 is the"
    " return 0 or what the grid says; the control's mean counts as known. Interquartile means, probabilities of improvement"
    " (of a seed over one of the dense control on the same task, averaged over tasks) and their 95 % percentile intervals by"
    f" stratified bootstrap over seeds, {DRAWS:,} resamples, are those of Agarwal et al., Deep Reinforcement Learning at the"
    " Edge of the Statistical Precipice, NeurIPS 2021."
)
Comparisons = Mapping[tuple[str, str], Sequence[Comparison]]


def summary(study: Study) -> str:
    """
    :param study: What a grid compares.
    :return: One paragraph: what was measured, and how much of it is there
    """
    cells, missing = len(study.grid.cells), len(study.missing)
    seeds = len({cell.seed for cell in study.grid.cells})
    counts = ((len(study.tasks), "task"), (seeds, "seed"), (cells, "cell"))
    words = ", ".join(f"{number(count, 0)} {noun}{'' if count == 1 else 's'}" for count, noun in counts)
    text = f"{words} (size {study.grid.size}), of which "
    text += "all are finished" if not missing else f"{_are(cells - missing)} finished and {_are(missing)} missing"
    steps = sum(result["steps"] for result in study.results.values())
    text += f". The finished ones have {number(steps, 0)} steps or updates."
    return f"{text} {_stored(study.source, study)}".rstrip() if isinstance(study.source, Stored) else text


def _are(count: int) -> str:
    return f"{number(count, 0)} {'is' if count == 1 else 'are'}"


def _stored(source: Stored, study: Study) -> str:
    """What can be said of stored results alone: a sweep that was interrupted has taken longer, but has the same report."""
    times = [result["cpu_seconds"] for result in study.results.values()]
    known = [seconds for seconds in times if seconds is not None]
    words = [f"They took {number(sum(known) / 3600)} CPU hours"]
    if len(known) < len(times):
        words = [f"{len(known)} of them took {number(sum(known) / 3600)} CPU hours; the others were trained elsewhere"]
    if source.changed:
        words.append(f"The recipe or agent of {len(source.changed)} of them is another one today: the commit below has theirs")
    return " ".join(f"{sentence}." for sentence in words)


def verdicts(study: Study, comparisons: Comparisons, published: Published | None) -> Section:
    """
    :param study: What a grid compares.
    :param comparisons: By task and label.
    :param published: The papers' numbers for it.
    :return: The largest sparsity without loss of each line on each task, next to the paper's
    """
    columns = {
        "task": "", "agent": "", "largest sparsity without loss": "", "return": "of it, and its interval",
        "difference": "to the dense control", "loss that is not excluded": "", "n": "seeds", "note": "",
    }  # fmt: skip
    rows = []
    for (task, label), line in comparisons.items():
        if not any(each.group.sparsity for each in line):
            continue
        verdict = judge(line)
        best = verdict.best
        row = [word(task), word(label)]
        if best is None:
            row += [Entry("none" if any(each.loses for each in line) else "not measured"), NOTHING, NOTHING, NOTHING, NOTHING]
        else:
            row += [percent(best.group.sparsity), estimate(best.mean), estimate(best.difference), _loss(best), _count(best)]
        row.append(word(verdict.note))
        if published is not None:
            claim = published.claim(line[0].group)
            row.append(
                NOTHING if claim is None else Entry(f"{percent(claim['sparsity']).text} ({claim['env']})", claim["sparsity"])
            )
        rows.append(row)
    if published is not None:
        columns["the paper's claim"] = "and its environment"
    blocks: list[str | Table | Picture] = [Table(columns, rows), RULE]
    if published is not None:
        blocks.append(_paper(published))
    return Section("Largest sparsity without loss", blocks)


def numbers(comparisons: Comparisons, published: Published | None) -> Section:
    """
    :param comparisons: By task and label.
    :param published: The papers' numbers for it.
    :return: All settings, also those that are missing
    """
    columns = {
        "task": "", "agent": "", "sparsity": "as the grid sets it", "n": "seeds that are finished, of those of the grid",
        "return": "", "difference": "to the dense control", "better than dense": "probability of improvement",
        "weights that are left": "of each network", "bytes": "of the exported file, mean",
    }  # fmt: skip
    if published is not None and published.returns:
        columns["published return"] = "mean ± standard deviation, where it is given"
    rows = []
    for (task, label), line in comparisons.items():
        for each in line:
            row = [word(task), word(label), percent(each.group.sparsity), _count(each)]
            if each.mean is None:
                row += [MISSING] * 5
            else:
                row += [estimate(each.mean), estimate(each.difference), _probability(each), _weights(each), _bytes(each)]
            if published is not None and published.returns:
                row.append(_published(published.published_return(each.group)))
            rows.append(row)
    papers = [_paper(published)] if published is not None and published.returns else []
    return Section("All settings", [Table(columns, rows), *papers])


def over_tasks(aggregates: Mapping[str, Sequence[Aggregate]], tasks: int) -> Table:
    """
    :param aggregates: By label.
    :param tasks: Number of tasks of the grid.
    :return: Scores and probabilities of improvement over all tasks
    """
    columns = {
        "agent": "", "sparsity": "", "tasks": "that have a score, of those of the grid", "score": "interquartile mean",
        "better than dense": "probability of improvement",
    }  # fmt: skip
    rows = [
        [
            word(label),
            percent(each.group.sparsity),
            Entry(f"{each.tasks} of {tasks}", each.tasks),
            estimate(each.iqm),
            estimate(each.improvement),
        ]
        for label, line in aggregates.items()
        for each in line
    ]
    return Table(columns, rows)


def methods(study: Study) -> Section:
    """
    :param study: What a grid compares.
    :return: Statistics, settings, versions and machines
    """
    settings = [cell.settings for cell in study.grid.cells]
    shared = {name: value for name, value in settings[0].items() if all(each[name] == value for each in settings)}
    rows = [[word("kind"), word(study.grid.cells[0].kind)]]
    rows += [[word(name), word(_plain(value))] for name, value in shared.items() if value not in (None, [])]
    rows += [[word(f"axis {name}"), word("; ".join(map(_plain, values)))] for name, values in study.grid.axes.items()]
    rows += [[word(f"report {name}"), word(_plain(value))] for name, value in study.grid.report.items()]
    rows += [[word(name), word("; ".join(values))] for name, values in _origins(study) if values]
    return Section("How it was made", [_METHODS, Table({"setting": "", "value": ""}, rows)])


def missing(study: Study) -> Section:
    """
    :param study: What a grid compares.
    :return: The cells without a result, and how their processes died
    """
    columns = {"cell": ""}
    if study.deaths:
        columns |= {"died": "times", "log": "in the folder cells"}
    rows = []
    for cell in study.missing:
        row = [word(str(cell))]
        if deaths := study.deaths.get(cell.name, []):
            reason = f"{len(deaths)}, the last time {deaths[-1].splitlines()[0]}" if deaths[-1] else str(len(deaths))
            row += [Entry(reason, len(deaths)), word(f"{cell.name}/log.txt")]
        elif study.deaths:
            row += [Entry("0", 0), NOTHING]
        rows.append(row)
    return Section("Missing cells", [Table(columns, rows)])


def _paper(published: Published) -> str:
    words = (published.paper, f"{published.place}.", f"Its numbers here are {published.source}.", published.note)
    return " ".join(filter(None, words))


def _origins(study: Study) -> Iterator[tuple[str, list[str]]]:
    """Not the times: the same results have the same report."""
    origins = [result["origin"] for result in study.results.values()]
    versions = (origin["versions"].items() for origin in origins)
    yield "versions", sorted({", ".join(f"{package} {version}" for package, version in each) for each in versions})
    yield "commit", sorted({origin["commit"] or "unknown" for origin in origins})
    machines = (origin["machine"] for origin in origins)
    yield "machine", sorted({f"{machine['processor']}, {machine['cores']} cores" for machine in machines})
    imported = sum("imported" in origin for origin in origins)
    yield "imported", [f"{imported} of {len(origins)} results were made elsewhere"] if imported else []


def _count(each: Comparison) -> Entry:
    n, planned = len(each.group.results), each.group.planned
    return Entry(str(n) if n == planned else f"{n} of {planned}", n)


def _loss(each: Comparison) -> Entry:
    return (
        NOTHING if each.relative is None else Entry(f"{number(100 * max(0.0, -each.relative), 1)} %", max(0.0, -each.relative))
    )


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


def _published(value: Mapping[str, Any] | None) -> Entry:
    if value is None:
        return NOTHING
    spread = "" if value.get("sd") is None else f" ± {number(value['sd'], 0 if value['mean'] >= 1000 else None)}"
    return Entry(f"{number(value['mean'])}{spread} ({value['env']})", value["mean"])


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
