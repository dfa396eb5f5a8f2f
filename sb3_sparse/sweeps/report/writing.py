"""``sb3-sparse benchmark report``: from the results of a grid to its pages and figures."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sb3_sparse.sweeps.folder import Folder, write_whole
from sb3_sparse.sweeps.grid import Grid
from sb3_sparse.sweeps.report import content, provenance
from sb3_sparse.sweeps.report.blocks import Picture, Report, Section
from sb3_sparse.sweeps.report.comparison import aggregate, compare, judged
from sb3_sparse.sweeps.report.content import Comparisons
from sb3_sparse.sweeps.report.figures import draw_aggregates, draw_curves, draw_returns, save_figure
from sb3_sparse.sweeps.report.html import render_html
from sb3_sparse.sweeps.report.markdown import render_markdown
from sb3_sparse.sweeps.report.over_bytes import CAPTION, draw_files, make_tables
from sb3_sparse.sweeps.report.published import PUBLISHED, Published, read_published
from sb3_sparse.sweeps.report.study import Study
from sb3_sparse.sweeps.stored import Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_report(grid: Grid, source: Folder | Stored) -> None:
    """
    :param grid: A grid.
    :param source: Its results, as far as there are some.
    :raises ValueError: if a result is damaged, or the grid's entry ``report`` does not fit
    """
    Study(grid, source)
    # Outside of a checkout the numbers are missing, and the cells run all the same.
    if PUBLISHED.is_file() and (name := grid.report.get("published")) is not None:
        read_published(name)


def make_report(grid: Grid, source: Folder | Stored) -> Report:
    """
    :param grid: A grid.
    :param source: Its results: a folder, or what is stored of them.
    :return: The report
    :raises ValueError: if nothing is finished, a result is damaged, or the grid's entry ``report`` does not fit
    """
    if find_spec("matplotlib") is None:
        raise ValueError("a report needs matplotlib: pip install matplotlib")
    study = Study(grid, source)
    if not study.results:
        raise ValueError(f"no cell of {grid.name} (size {grid.size}) is finished in {source.root}: sb3-sparse benchmark run")
    published = None if (name := grid.report.get("published")) is None else read_published(name)
    compared = {
        (task, label): [compare(study, group, published) for group in groups]
        for task in study.tasks
        for label in study.labels
        if (groups := study.select(task=task, label=label))
    }

    parts = _over_bytes if grid.report.get("over") == "bytes" else _over_sparsities
    sections = list(parts(study, compared, published))
    curves = draw_curves(study)
    if curves is not None:
        text = "Return of the evaluations during training: mean over seeds and its 95 % interval."
        sections.append(Section("Learning curves", [_picture(study, "curves", curves, text)]))
    sections.append(content.numbers(compared, published))
    if study.missing:
        sections.append(provenance.missing(study))
    sections.append(provenance.methods(study))
    return Report(grid.title, provenance.summary(study), sections)


def _over_sparsities(study: Study, compared: Comparisons, published: Published | None) -> Iterator[Section]:
    if any(judged(study, line) for line in compared.values()):
        yield content.verdicts(study, compared, published)
    if any(each.group.sparsity for line in compared.values() for each in line):
        text = "Mean return over seeds and its 95 % interval, over sparsity. Gray: the dense control and its interval."
        if any(each.published for line in compared.values() for each in line):
            text += " Dotted: one published dense agent."
        yield Section("Return by sparsity", [_picture(study, "returns", draw_returns(study, published), text)])
    aggregates = {label: found for label in study.labels if (found := aggregate(study, label))}
    if aggregates:
        text = "Scores and probabilities of improvement over the tasks, with their 95 % intervals."
        figure, table = draw_aggregates(aggregates), content.over_tasks(aggregates, len(study.tasks))
        pictures = [] if figure is None else [_picture(study, "tasks", figure, text)]
        yield Section("Over all tasks", [*pictures, table])


def _over_bytes(study: Study, compared: Comparisons, published: Published | None) -> Iterator[Section]:
    figure = _picture(study, "bytes", draw_files(study, published), CAPTION)
    paper = [] if published is None else [content.describe_paper(published)]
    yield Section("Score over bytes", [figure, *paper, *make_tables(study)])


def _picture(study: Study, kind: str, figure: Figure, caption: str) -> Picture:
    return Picture(f"{study.grid.name}-{study.grid.size}-{kind}", caption, figure)


def write_report(grid: Grid, source: Folder | Stored, out: Path) -> list[Path]:
    """
    Write the report of a grid: ``GRID-SIZE.html``, ``GRID-SIZE.md``, and each figure as PNG and SVG.

    :param grid: A grid.
    :param source: Its results: a folder, or what is stored of them.
    :param out: The folder of the report.
    :return: The two pages
    :raises ValueError: as :func:`make_report`
    """
    report = make_report(grid, source)
    drawn = {picture.name: save_figure(picture.figure, out / picture.name) for picture in report.pictures}
    pages = [out / f"{grid.name}-{grid.size}{ending}" for ending in (".html", ".md")]
    for page, text in zip(pages, (render_html(report, drawn), render_markdown(report)), strict=True):
        write_whole(page, text, durable=False)
    return pages
