"""What a report is made of, whatever it is written as: HTML or Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from sb3_sparse.sweeps.report.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Entry:
    """
    An entry of a table.

    :param text: What is shown.
    :param value: What a table is sorted by; None for what is missing, which stands last.
    """

    text: str
    value: float | str | None = None


MISSING = Entry("missing")
NOTHING = Entry("")


@dataclass(frozen=True)
class Table:
    """
    :param columns: Names of the columns, and what they mean where the name does not say it.
    :param rows: Rows of as many entries.
    """

    columns: Mapping[str, str]
    rows: Sequence[Sequence[Entry]]


@dataclass(frozen=True)
class Picture:
    """
    :param name: Name of its files without ``.png`` and ``.svg``.
    :param caption: What it shows.
    :param figure: The figure.
    """

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Section:
    """
    :param title: Its heading.
    :param blocks: Paragraphs, tables and pictures.
    """

    title: str
    blocks: Sequence[str | Table | Picture]


@dataclass(frozen=True)
class Report:
    """
    :param title: Its title.
    :param summary: Its first paragraph.
    :param sections: Its sections.
    """

    title: str
    summary: str
    sections: Sequence[Section]

    @property
    def pictures(self) -> list[Picture]:
        """Those of all sections."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Picture)]


def word(text: str) -> Entry:
    """
    :param text: A word.
    :return: An entry that is sorted by it
    """
    return Entry(text, text)


def number(value: float, digits: int | None = None) -> str:
    """
    >>> number(-1234.56), number(12.345), number(0.0314)
    ('\N{MINUS SIGN}1,235', '12.3', '0.031')

    :param value: A number.
    :param digits: Digits after the point; by default as its size asks for.
    :return: The number, with commas between thousands
    """
    text = f"{abs(value):,.{_digits(value) if digits is None else digits}f}"
    return f"{_MINUS if value < 0 and text.strip('0.,') else ''}{text}"


def percent(share: float | None) -> Entry:
    """
    :param share: A share; None for the sparsity that a recipe has.
    :return: "90 %"
    """
    return (
        Entry("the recipe's", -1.0)
        if share is None
        else Entry(f"{number(100 * share, 0 if share == round(share, 2) else 1)} %", share)
    )


def estimate(found: Estimate | None) -> Entry:
    """
    :param found: An estimate, if there is one.
    :return: "value [low, high]"
    """
    if found is None:
        return NOTHING
    if found.interval is None:
        return Entry(number(found.value), found.value)
    digits = min(_digits(found.value), _digits(max(map(abs, found.interval))))
    low, high = (number(bound, digits) for bound in found.interval)
    return Entry(f"{number(found.value, digits)} [{low}, {high}]", found.value)


def _digits(value: float) -> int:
    if not isfinite(value) or abs(value) >= 1000:
        return 0
    return 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 or value == 0.0 else 3
