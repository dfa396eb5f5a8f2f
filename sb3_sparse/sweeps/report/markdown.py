"""A report as a page of Markdown, next to its figures."""

from __future__ import annotations

from sb3_sparse.sweeps.report.blocks import Picture, Report, Table


def render_markdown(report: Report, pictures: str = "") -> str:
    """
    :param report: A report.
    :param pictures: Where its pictures are, seen from the page: nothing, or a folder with a slash behind it.
    :return: The page
    """
    blocks = [f"# {report.title}", report.summary]
    for section in report.sections:
        blocks += [f"## {section.title}", *(_block(block, pictures) for block in section.blocks)]
    return "\n\n".join(blocks) + "\n"


def _block(block: str | Table | Picture, pictures: str) -> str:
    if isinstance(block, str):
        return block
    if isinstance(block, Picture):
        return f"![{block.caption}]({pictures}{block.name}.png)"
    lines = [list(block.columns), ["---"] * len(block.columns), *([entry.text for entry in row] for row in block.rows)]
    table = "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)
    meanings = [f"*{name}*: {meaning}" for name, meaning in block.columns.items() if meaning]
    return "\n\n".join([table, *(["; ".join(meanings) + "."] if meanings else [])])
