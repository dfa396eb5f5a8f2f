"""The figures of a report. Needs the optional matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sb3_sparse.sweeps.folder import write_whole
from sb3_sparse.sweeps.report.comparison import Aggregate
from sb3_sparse.sweeps.report.published import Published
from sb3_sparse.sweeps.report.statistics import Estimate, estimate_mean
from sb3_sparse.sweeps.report.study import AGENT, Group, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "osD^v<>P*X"
#: How far a line is moved, so that its intervals can be told from those of the last.
_ASIDE = 0.05
#: Panels next to each other, by default and at most.
_COLUMNS, _MOST = 3, 4


def draw_returns(study: Study, published: Published | None) -> Figure:
    """
    :param study: What a grid compares.
    :param published: The papers' numbers for it.
    :return: Return over sparsity: one panel per task, one line per line and form, the control dashed
    """
    figure, panels = make_panels(study.tasks)
    for task, panel in zip(study.tasks, panels, strict=True):
        groups = study.select(task=task)
        places = _places(groups)
        for index, label in enumerate(study.labels):
            found = [group for group in study.select(task=task, label=label) if group.sparsity in places and group.results]
            points = [(places[group.sparsity], estimate_mean(group.returns)) for group in found]
            _error_bars(panel, points, label, index)
            claim = published.claim(found[0]) if published is not None and found else None
            if claim is not None and claim["sparsity"] in places:
                place = places[claim["sparsity"]]
                panel.axvline(place, color=f"C{index}", linewidth=0.9, linestyle=":", label=f"the paper's claim, {label}")
        empty = [places[group.sparsity] for group in groups if group.sparsity in places and not group.results]
        if empty:
            low, ends = [0.03] * len(empty), panel.get_xaxis_transform()
            panel.plot(empty, low, "x", color="tab:red", markersize=5, transform=ends, label="missing")
        for control in dict.fromkeys(each for group in groups if (each := study.control(group)) is not None):
            value = None if published is None else published.stand_in(control)
            if value is not None:
                panel.axhline(value["mean"], color="gray", linewidth=0.9, linestyle=":", label="published return, dense")
            if not control.results:
                continue
            dense = estimate_mean(control.returns)
            panel.axhline(dense.value, color="gray", linewidth=0.9, linestyle="--", label="dense control")
            if dense.interval is not None:
                panel.axhspan(*dense.interval, color="gray", alpha=0.15, linewidth=0)
        panel.set_xticks(list(places.values()), [_percent(sparsity) for sparsity in places])
        panel.set(xlabel="sparsity", ylabel="return")
    make_legend(figure, panels)
    return figure


def draw_curves(study: Study) -> Figure | None:
    """
    :param study: What a grid compares.
    :return: Return over steps: one panel per task and line with one curve per sparsity, or, where no line has several
        sparsities, one per task with one curve per line; None if no agent was evaluated in training
    """
    trained = [group for group in study.select() if group.form == AGENT and _curve(group)[0]]
    several = len({(group.line, group.sparsity) for group in trained}) > len({group.line for group in trained})
    controls = {group: control for group in trained if (control := study.control(group)) is not None and control in trained}
    drawn: dict[str, list[Group]] = {}
    for group in trained:
        drawn.setdefault(", ".join(filter(None, (group.task, group.line if several else ""))), []).append(group)
    # A dense control that is a line of its own is in the panels of the others.
    drawn = {
        title: groups for title, groups in drawn.items() if not several or not set(groups) <= set(controls.values())
    } or drawn
    if not drawn:
        return None
    # A row for each task where that fits.
    kinds = len({group.line for groups in drawn.values() for group in groups}) if several else 1
    figure, panels = make_panels(list(drawn), kinds if 1 < kinds <= _MOST else _COLUMNS)
    colors = choose_colors([group.sparsity if several else group.line for group in trained], several)
    for groups, panel in zip(drawn.values(), panels, strict=True):
        for group in groups:
            label = _sparse(group.sparsity) if several else group.line or group.form
            _draw_curve(panel, group, label, colors[group.sparsity if several else group.line], "-")
        for control in dict.fromkeys(controls[group] for group in groups if group in controls):
            if control not in groups:
                _draw_curve(panel, control, "dense control", "gray", "--")
        panel.set(xlabel="steps", ylabel="return")
    make_legend(figure, panels)
    return figure


def draw_aggregates(aggregates: Mapping[str, Sequence[Aggregate]]) -> Figure | None:
    """
    :param aggregates: By label.
    :return: Interquartile mean of the scores, and probability of improvement, over sparsity; None without sparsities
    """
    places = _places([each.group for line in aggregates.values() for each in line])
    if not places:
        return None
    figure, panels = make_panels(("interquartile mean of scores", "probability of improvement over dense"))
    for index, (label, line) in enumerate(aggregates.items()):
        drawn = [each for each in line if each.group.sparsity in places]
        _error_bars(panels[0], [(places[each.group.sparsity], each.iqm) for each in drawn], label, index)
        improvements = [(places[each.group.sparsity], each.improvement) for each in drawn if each.improvement is not None]
        _error_bars(panels[1], improvements, label, index)
    for panel, level in zip(panels, (1.0, 0.5), strict=True):
        panel.axhline(level, color="gray", linewidth=0.9, linestyle="--")
        panel.set_xticks(list(places.values()), [_percent(sparsity) for sparsity in places])
        panel.set(xlabel="sparsity")
    make_legend(figure, panels)
    return figure


def save_figure(figure: Figure, stem: Path) -> str:
    """
    :param figure: A figure.
    :param stem: Where to write it, without ``.png`` and ``.svg``.
    :return: The SVG as an element of an HTML page, whose names begin with that of the file
    """
    from matplotlib import rc_context

    vector = StringIO()
    # Letters stay letters, and the same results make the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": stem.name}):
        figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
    # Where everything is has been computed; it takes half of the time.
    figure.set_layout_engine("none")
    write_whole(stem.with_name(f"{stem.name}.png"), draw_png(figure), durable=False)
    text = vector.getvalue()
    write_whole(stem.with_name(f"{stem.name}.svg"), text, durable=False)
    element = text[text.index("<svg") :]
    for before in ('id="', "url(#", 'href="#'):
        element = element.replace(before, f"{before}{stem.name}-")
    return element


def draw_png(figure: Figure) -> bytes:
    """
    :param figure: A figure.
    :return: The PNG
    """
    raster = BytesIO()
    figure.savefig(raster, format="png", dpi=110, metadata={"Software": None})
    return raster.getvalue()


def make_panels(titles: Sequence[str], columns: int = _COLUMNS) -> tuple[Figure, list[Axes]]:
    # Without pyplot there is no state and no display.
    from matplotlib.figure import Figure

    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(max(4.2 * columns, 6.0), 2.9 * rows + 0.7), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in panels[len(titles) :]:
        panel.remove()
    for panel, title in zip(panels, titles, strict=False):
        panel.set_title(title, fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels[: len(titles)]


def _places(groups: Sequence[Group]) -> dict[Any, int]:
    """Sparsities stand at equal distances, as in the papers."""
    return {sparsity: place for place, sparsity in enumerate(sorted({group.sparsity for group in groups} - {None}))}  # type: ignore[type-var]


def _error_bars(panel: Axes, points: Sequence[tuple[int, Estimate]], label: str, index: int) -> None:
    if not points:
        return
    values = [estimate.value for _, estimate in points]
    bounds = [estimate.interval or (estimate.value, estimate.value) for _, estimate in points]
    errors = [[abs(value - bound[side]) for value, bound in zip(values, bounds, strict=True)] for side in (0, 1)]
    panel.errorbar(
        [place + _ASIDE * index for place, _ in points], values, yerr=errors, label=label, color=f"C{index}",
        marker=_MARKERS[index % len(_MARKERS)], markersize=4, linewidth=1.1, elinewidth=0.8, capsize=2,
    )  # fmt: skip


def _draw_curve(panel: Axes, group: Group, label: str, color: Any, style: str) -> None:
    steps, means = _curve(group)
    estimates = [estimate_mean(column) for column in means.T]
    panel.plot(steps, [each.value for each in estimates], color=color, linewidth=1.1, linestyle=style, label=label)
    low, high = ([(each.interval or (each.value,) * 2)[side] for each in estimates] for side in (0, 1))
    panel.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)


def _curve(group: Group) -> tuple[list[int], np.ndarray[Any, np.dtype[np.float64]]]:
    """The steps at which all seeds were evaluated, and the mean return of each seed there."""
    curves = [dict(zip(each["curve"]["steps"], each["curve"]["returns"], strict=True)) for each in group.results]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    return steps, np.array([[np.mean(curve[step]) for step in steps] for curve in curves])


def choose_colors(keys: Sequence[Any], ordered: bool) -> dict[Any, Any]:
    """By sparsity in the order of a scale, by line in that of matplotlib."""
    from matplotlib import colormaps

    unique = list(dict.fromkeys(keys))
    scale = colormaps["viridis"](np.linspace(0.0, 0.9, len(unique)))
    return {key: scale[index] if ordered else f"C{index}" for index, key in enumerate(unique)}


def make_legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One for all panels."""
    entries = {label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    # At this size a letter takes about 0.07 inches, and what is in front of a label half an inch.
    width = 0.07 * max(map(len, entries), default=0) + 0.5
    columns = min(4, max(1, int(figure.get_figwidth() / width)))
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def _percent(sparsity: float) -> str:
    return f"{100 * sparsity:g} %"


def _sparse(sparsity: float | None) -> str:
    return "the recipe's sparsity" if sparsity is None else f"{_percent(sparsity)} sparse"
