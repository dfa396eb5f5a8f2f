"""
A question that one command asks:

    python -m benchmarks.ROOM.NAME [--quick] [--json PATH] [--png PATH] [options of its own]

A benchmark measures, shows what it has found, and may draw it; everything else is here. A measurement that takes long may be a
generator of what it has so far, which is stored each time.
"""

import argparse
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch as th
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.shared.store import Result, store

Measure = Callable[[Namespace], Result | Iterator[Result]]


class Option(NamedTuple):
    """
    An option of one benchmark.

    :param name: Its name, such as "--rounds", or "agents" for an argument without a name.
    :param default: Its value by default.
    :param help: What it is.
    :param quick: Its value with ``--quick``, unless it is given; None for the same one.
    :param kwargs: Other arguments of ``add_argument``.
    """

    name: str
    default: Any
    help: str
    quick: Any = None
    kwargs: Mapping[str, Any] = {}

    @property
    def key(self) -> str:
        """Its name among the parsed arguments."""
        return self.name.lstrip("-").replace("-", "_")


def option(name: str, default: Any, help: str, *, quick: Any = None, **kwargs: Any) -> Option:
    """
    :param name: See :class:`Option`, as of all others.
    :return: The option; its values have the type of the default unless another is given
    """
    if isinstance(default, bool):
        kwargs.setdefault("action", "store_const")
        kwargs.setdefault("const", True)
    elif isinstance(default, (int, float, str, Path)):
        kwargs.setdefault("type", type(default))
        help = f"{help} ({default}{'' if quick is None else f'; quick: {quick}'})"
    return Option(name, default, help, quick, kwargs)


def make_parser(description: str | None, options: Sequence[Option], quick: str) -> argparse.ArgumentParser:
    """
    :param description: What the benchmark is, its docstring.
    :param options: Its own options.
    :param quick: What a quick check leaves out.
    :return: The parser, which every benchmark and tool of this folder has
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for each in options:
        parser.add_argument(each.name, help=each.help, **each.kwargs)
    parser.add_argument("--quick", action="store_true", help=f"{quick}: a check, not a result")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to store the result")
    return parser


def parse(parser: argparse.ArgumentParser, options: Sequence[Option]) -> Namespace:
    """
    :param parser: See :func:`make_parser`.
    :param options: The same options.
    :return: The arguments of the command line; what is not given has its default, or its quick value
    """
    args = parser.parse_args()
    for each in options:
        if getattr(args, each.key) in (None, []):
            setattr(args, each.key, each.quick if args.quick and each.quick is not None else each.default)
    return args


def ask(
    measure: Measure,
    *options: Option,
    show: Callable[[Result], Iterable[object]],
    draw: Callable[[Result], Figure | Mapping[str, Figure]] | None = None,
    quick: str = "few rounds",
) -> None:
    """
    Measure, store, print and draw.

    :param measure: Finds the result for the arguments of the command line; a generator yields all that it has so far.
    :param options: Options beside ``--quick``, ``--json`` and ``--png``.
    :param show: What is printed of the result.
    :param draw: Draws the result; several figures have names that are added to that of the file.
    :param quick: What a quick check leaves out.
    """
    parser = make_parser(measure.__globals__["__doc__"], options, quick)
    if draw is not None:
        parser.add_argument("--png", type=Path, metavar="PATH", help="where to draw the figure")
    args = parse(parser, options)
    th.set_num_threads(1)
    result: Result = {}
    try:
        found = measure(args)
        for result in [found] if isinstance(found, dict) else found:
            if args.json:
                store(args.json, result)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    console = Console(width=150)
    for block in show(result):
        console.print(block)
    if draw is not None and args.png:
        save(draw(result), args.png)


def save(figures: Figure | Mapping[str, Figure], png: Path) -> None:
    """
    :param figures: One figure, or several by name.
    :param png: Where to write it; with several, where their names are added.
    """
    named = {png: figures} if isinstance(figures, Figure) else {Path(f"{png}_{name}.png"): figures[name] for name in figures}
    for path, figure in named.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
        print(f"figure: {path}")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """
    :param title: What is above.
    :param columns: Names of the columns.
    :param rows: What is in them.
    :return: A table for the terminal, with the first column on the left and numbers on the right
    """
    found = Table(title=title)
    for index, column in enumerate(columns):
        found.add_column(column, justify="right" if index else "left")
    for row in rows:
        found.add_row(*map(str, row))
    return found


def ratio_table(title: str, over: str, result: Result, extra: Mapping[str, Mapping[str, object]] | None = None) -> Table:
    """
    :param title: What is above.
    :param over: What the ratios are over.
    :param result: Has ``ratios`` and ``intervals`` by name.
    :param extra: Other columns: values by the same names, some of which may have no ratio.
    :return: A table of all of them
    """
    extra = extra or {}
    rows = []
    for name in dict.fromkeys([*(name for values in extra.values() for name in values), *result["ratios"]]):
        ratio = result["ratios"].get(name)
        bounds = result["intervals"].get(name) if ratio is not None else None
        interval = "" if bounds is None else f"{bounds[0]:.3f} - {bounds[1]:.3f}"
        others = (values.get(name, "") for values in extra.values())
        rows.append((name, "" if ratio is None else f"{ratio:.3f}", interval, *others))
    return table(title, ("", over, "95 % interval", *extra), rows)
