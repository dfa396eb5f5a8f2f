"""The pages of grids: the report of what ``sb3-sparse benchmark store`` has written, and nothing else."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import takewhile
from typing import Any

from sb3_sparse.sweeps import Grid, Stored, read_grid
from sb3_sparse.sweeps.grid import GRIDS
from sb3_sparse.sweeps.report import make_report
from sb3_sparse.sweeps.report.blocks import Report, Section
from sb3_sparse.sweeps.report.comparison import Comparison, compare
from sb3_sparse.sweeps.report.figures import draw_png
from sb3_sparse.sweeps.report.markdown import render_markdown
from sb3_sparse.sweeps.report.published import read_published
from sb3_sparse.sweeps.report.study import AGENT, Group, Study

from .page import NOTE
from .stored import RESULTS


def grids() -> list[str]:
    """
    :return: The grids that have stored results, with their sizes: ``GRID-SIZE``
    """
    return sorted(file.stem for file in RESULTS.glob("*.jsonl"))


def page_name(name: str) -> str:
    """
    :param name: A grid and its size.
    :return: Name of its page
    """
    return name.removesuffix("-full")


@cache
def _read(name: str) -> tuple[Grid, Stored]:
    grid = read_grid(*name.rsplit("-", 1), check=False)
    return grid, Stored(grid, RESULTS)


@cache
def report(name: str) -> Report:
    """
    :param name: A grid and its size.
    :return: Its report, and how to make it again
    """
    grid_name, _, size = name.rpartition("-")
    found = make_report(*_read(name))
    options = f"{grid_name}{'' if size == 'full' else f' --size {size}'}"
    commands = "\n".join(f"sb3-sparse benchmark {part} {options}" for part in ("run", "store"))
    text = (GRIDS / f"{grid_name}.yml").read_text()
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    comment = "\n".join(line[2:] for line in lines)
    again = Section(
        "How to make it again",
        [
            *(["Its file says of the full size:"] if comment and size != "full" else []),
            *([f"```text\n{comment}\n```"] if comment else []),
            f"```bash\n{commands}\npython docs/generate.py\n```",
            f"The grid is [{grid_name}.yml](../../benchmarks/grids/{grid_name}.yml), its results are"
            f" [{name}.jsonl](../../benchmarks/results/{name}.jsonl), and [the guide](../guide/sweeps.md#the-report) explains"
            " the report.",
        ],
    )
    return replace(found, sections=[*found.sections, again])


def comparison(name: str, form: str = AGENT, **settings: object) -> Comparison:
    """
    :param name: A grid and its size.
    :param form: The agent, or the bits of what is exported of it.
    :param settings: Settings that one group of its cells has.
    :return: This group against its dense control
    :raises ValueError: if there is not exactly one
    """
    fitting = [
        each
        for each in comparisons(name)
        if each.group.form == form and all(each.group.settings.get(key) == value for key, value in settings.items())
    ]
    if len(fitting) != 1:
        raise ValueError(f"{len(fitting)} groups of {name} have {settings} in the form {form}")
    return fitting[0]


def count_runs(steps: int) -> tuple[int, float]:
    """
    :param steps: A number of steps or updates.
    :return: How many trainings of at least so many the grids have stored, and their CPU hours, as far as they are known
    """
    read = map(_read, grids())
    results = {cell.name: stored.read(cell.name) for grid, stored in read for cell in grid.cells}
    long = [result for result in results.values() if result is not None and result["steps"] >= steps]
    return len(long), sum(result["cpu_seconds"] or 0.0 for result in long) / 3600


def siblings(own: Mapping[str, Any]) -> Group:
    """
    :param own: An agent of ``trained.json``.
    :return: All seeds with its task, recipe and sparsity, in 8 bits
    """
    settings = {key: own[key] for key in ("env", "recipe", "sparsity")}
    return comparison("sac_from_scratch-full", "8 bits", hyperparams=[], **settings).group


def dense_agents(env: str) -> list[float]:
    """
    :param env: A task of ``sac_from_scratch``.
    :return: Returns of its dense agents, in floats
    """
    study = _study("sac_from_scratch-full")
    group = next(control for group in study.groups if group.task == env and (control := study.control(group)) is not None)
    return [float(value) for value in group.returns]


@cache
def _study(name: str) -> Study:
    return Study(*_read(name))


@cache
def comparisons(name: str) -> list[Comparison]:
    """
    :param name: A grid and its size.
    :return: All its groups against their dense control
    """
    study, entry = _study(name), repeats(name)
    published = None if entry is None else read_published(entry)
    return [compare(study, group, published) for group in study.groups]


def repeats(name: str) -> str | None:
    """
    :param name: A grid and its size.
    :return: The entry of ``benchmarks/published.yml`` that it repeats
    """
    entry: str | None = _read(name)[0].report.get("published")
    return entry


def render(name: str) -> str:
    """
    :param name: A grid and its size.
    :return: Its page
    """
    return render_markdown(report(name), "../../benchmarks/results/").replace("\n\n", f"\n\n{NOTE}\n\n", 1)


def draw(name: str) -> Iterator[str]:
    """
    Draw the figures of a page. They are not compared: each version of matplotlib draws others.

    :param name: A grid and its size.
    :return: The files that have changed
    """
    for picture in report(name).pictures:
        file = RESULTS / f"{picture.name}.png"
        drawn = draw_png(picture.figure)
        if not file.is_file() or file.read_bytes() != drawn:
            file.write_bytes(drawn)
            yield file.name
