"""A report as a page of Markdown, next to its figures."""

from __future__ import annotations

from collections.abc import Sequence

from sb3_sparse.sweeps.report.blocks import Picture, Section, Table


def render_markdown(title: str, summary: str, sections: Sequence[Section]) -> str:
    """
    :param title: Title of the report.
    :param summary: Its first paragraph.
    :param sections: Its sections.
    :return: The page
    """
    blocks = [f"# {title}", summary]
    for section in sections:
        blocks += [f"## {section.title}", *map(_block, section.blocks)]
    return "\n\n".join(blocks) + "\n"


def _block(block: str | Table | Picture) -> str:
    if isinstance(block, str):
        return block
    if isinstance(block, Picture):
        return f"![{block.caption}]({block.name}.png)"
    lines = [list(block.columns), ["---"] * len(block.columns), *([entry.text for entry in row] for row in block.rows)]
    table = "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)
    meanings = [f"*{name}*: {meaning}" for name, meaning in block.columns.items() if meaning]
    return "\n\n".join([table, *(["; ".join(meanings) + "."] if meanings else [])])
