"""Plain text tables."""

from collections.abc import Sequence


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """
    :param rows: Rows of as many cells, the heading first.
    :return: The table: first column to the left, the others to the right
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
