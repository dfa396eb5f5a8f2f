"""A report as one HTML page that needs nothing else: style, script and figures are in it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from html import escape
from pathlib import Path

from sb3_sparse.sweeps.report.blocks import MISSING, Entry, Picture, Report, Section, Table

_HERE = Path(__file__).parent
#: Letters of an entry that stays on one line.
_SHORT = 40
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<h1>{title}</h1>
<p>{summary}</p>
{sections}
<script>
{script}</script>
</body>
</html>
"""


def render_html(report: Report, drawn: Mapping[str, str]) -> str:
    """
    :param report: A report.
    :param drawn: By the name of each picture: its SVG as an element.
    :return: The page
    """
    return _PAGE.format(
        title=escape(report.title),
        summary=_text(report.summary),
        sections="\n".join(map(partial(_section, drawn), report.sections)),
        style=(_HERE / "page.css").read_text(),
        script=(_HERE / "sort.js").read_text(),
    )


def _section(drawn: Mapping[str, str], section: Section) -> str:
    blocks = "\n".join(map(partial(_block, drawn), section.blocks))
    return f"<section>\n<h2>{escape(section.title)}</h2>\n{blocks}\n</section>"


def _block(drawn: Mapping[str, str], block: str | Table | Picture) -> str:
    if isinstance(block, Picture):
        return f"<figure>\n{drawn[block.name]}\n<figcaption>{_text(block.caption)}</figcaption>\n</figure>"
    if isinstance(block, str):
        return f"<p>{_text(block)}</p>"
    heads = "".join(map(_heading, block.columns, block.columns.values()))
    rows = "\n".join(f"<tr>{''.join(map(_entry, row))}</tr>" for row in block.rows)
    return f'<div class="table"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'


def _heading(name: str, meaning: str) -> str:
    below = f"<small>{escape(meaning)}</small>" if meaning else ""
    return f'<th scope="col"><button type="button">{escape(name)}</button>{below}</th>'


def _entry(entry: Entry) -> str:
    kind = ' class="missing"' if entry is MISSING else ' class="short"' if len(entry.text) <= _SHORT else ""
    value = "" if entry.value is None else f' data-value="{escape(str(entry.value))}"'
    return f"<td{kind}{value}>{escape(entry.text)}</td>"


def _text(text: str) -> str:
    """Escaped, with *emphasis* as in Markdown."""
    parts = escape(text).split("*")
    return "".join(f"<em>{part}</em>" if index % 2 else part for index, part in enumerate(parts))
