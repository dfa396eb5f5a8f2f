"""What a report says of its grid: how much of it is there, how it was made, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sb3_sparse.sweeps.kinds import Cell
from sb3_sparse.sweeps.report.blocks import NOTHING, Entry, Section, Table, number, word
from sb3_sparse.sweeps.report.statistics import DRAWS
from sb3_sparse.sweeps.report.study import Study
from sb3_sparse.sweeps.stored import Stored

_METHODS = (
    "A return is the mean over the episodes of a seed, and n is the number of seeds. The last episodes begin with the same"
    " seeds for all agents, so an interval is about trainings and not about episodes, and that of an agent which the grid"
    " does not train has no width. Intervals of returns and of their differences are Student's and Welch's 95 % intervals"
    " over seeds. Where dense agents are compared with themselves in 8 bits, Welch's and those over all tasks are too wide. A"
    " score is a return on the"
    " scale on which the mean of the task's dense control has 1, and 0 is the return 0 or what the grid says. Of one setting"
    " the control's mean counts as known; over all tasks the control's seeds are resampled as well. Interquartile means pool"
    " the seeds of all tasks, so a task that lacks seeds counts less. They, probabilities of improvement (of a seed over one"
    " of the dense control on the same task, averaged over tasks) and their"
    f" 95 % percentile intervals by stratified bootstrap over seeds, {DRAWS:,} resamples, are those of Agarwal et al., Deep"
    " Reinforcement Learning at the Edge of the Statistical Precipice, NeurIPS 2021; that controls are"
    " resampled is ours. Such intervals are too narrow where a task has few seeds."
)


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
        took = f"{len(known)} of them took {number(sum(known) / 3600)} CPU hours; the others"
        words = [f"{took if known else 'They'} were trained elsewhere"]
    if source.changed:
        words.append(f"The recipe or agent of {len(source.changed)} of them is another one today: the commit below has theirs")
    return " ".join(f"{sentence}." for sentence in words)


def methods(study: Study) -> Section:
    """
    :param study: What a grid compares.
    :return: Statistics, settings, versions and machines
    """
    rows = [[word(name), word(_plain(value))] for name, value in _shared(study) if value not in (None, [])]
    rows += [[word(f"axis {name}"), word("; ".join(map(_plain, values)))] for name, values in study.grid.axes.items()]
    rows += [[word(f"report {name}"), word(_plain(value))] for name, value in study.grid.report.items() if name != "note"]
    rows += [[word(name), word("; ".join(values))] for name, values in _origins(study) if values]
    note = [study.grid.report["note"]] if "note" in study.grid.report else []
    return Section("How it was made", [*note, _METHODS, Table({"setting": "", "value": ""}, rows)])


def _shared(study: Study) -> Iterator[tuple[str, Any]]:
    """Settings that are the same for all cells of a kind."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for cell in study.grid.cells:
        kinds.setdefault(cell.kind, []).append(cell.settings)
    yield "kind", ", ".join(kinds)
    found = {
        kind: {name: value for name, value in cells[0].items() if all(each[name] == value for each in cells)}
        for kind, cells in kinds.items()
    }
    everywhere = [item for item in next(iter(found.values())).items() if all(item in each.items() for each in found.values())]
    yield from everywhere
    for kind, settings in found.items():
        yield from ((f"{name}, {kind}", value) for name, value in settings.items() if (name, value) not in everywhere)


def missing(study: Study) -> Section:
    """
    :param study: What a grid compares.
    :return: The cells without a result, seeds of one setting together, and how their processes died
    """
    columns = {"setting": "", "seeds": ""}
    if study.deaths:
        columns |= {"died": "times", "log": "in the folder cells"}
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in study.missing:
        # Of those that died each has a log.
        groups.setdefault((_setting(study, cell), cell.name if cell.name in study.deaths else ""), []).append(cell)
    rows = []
    for (setting, name), cells in groups.items():
        row = [word(setting), word(", ".join(str(cell.seed) for cell in cells))]
        if deaths := study.deaths.get(name, []):
            reason = f"{len(deaths)}, the last time {deaths[-1].splitlines()[0]}" if deaths[-1] else str(len(deaths))
            row += [Entry(reason, len(deaths)), word(f"{name}/log.txt")]
        elif study.deaths:
            row += [Entry("0", 0), NOTHING]
        rows.append(row)
    return Section("Missing cells", [Table(columns, rows)])


def _setting(study: Study, cell: Cell) -> str:
    kinds = {each.kind for each in study.grid.cells}
    return f"{'' if len(kinds) == 1 else f'{cell.kind} '}{cell}".rpartition(" seed=")[0]


def _origins(study: Study) -> Iterator[tuple[str, list[str]]]:
    """Not the times: the same results have the same report."""
    origins = [result["origin"] for result in study.results.values()]
    versions = (origin["versions"].items() for origin in origins)
    yield "versions", sorted({", ".join(f"{package} {version}" for package, version in each) for each in versions})
    commits = {origin["commit"] or "unknown" for origin in origins}
    yield "commit", sorted(f"{commit[:-1]} with changes" if commit.endswith("+") else commit for commit in commits)
    machines = (origin["machine"] for origin in origins)
    yield "machine", sorted({f"{machine['processor']}, {machine['cores']} cores" for machine in machines})
    imported = sum("imported" in origin for origin in origins)
    yield "imported", (
        [f"{imported} of {len(origins)} results, from runs of rl-zoo3 or another version of the code"] if imported else []
    )


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return ("; " if any(isinstance(part, Mapping) for part in value) else " ").join(map(_plain, value)) or "none"
    return "none" if value is None else str(value)
