"""Numbers and tables as Markdown."""

from collections.abc import Iterable, Sequence

MINUS = "\N{MINUS SIGN}"


def number(value: float, digits: int = 0) -> str:
    """
    >>> number(-1234.56, 1)
    '\N{MINUS SIGN}1,234.6'

    :param value: A number.
    :param digits: Digits after the point.
    :return: The number, with commas between thousands
    """
    text = f"{abs(value):,.{digits}f}"
    return f"{MINUS if value < 0 and text.strip('0.,') else ''}{text}"


def interval(bounds: Sequence[float] | None, digits: int = 0) -> str:
    """
    :param bounds: Lower and upper bound, or None where there is not an interval.
    :param digits: Digits after the point.
    :return: "[low, high]", or nothing
    """
    return "" if bounds is None else f"[{number(bounds[0], digits)}, {number(bounds[1], digits)}]"


def estimate(value: float, bounds: Sequence[float] | None, digits: int = 0) -> str:
    """
    :param value: An estimate.
    :param bounds: Its interval, or None.
    :param digits: Digits after the point.
    :return: "value [low, high]"
    """
    return f"{number(value, digits)} {interval(bounds, digits)}".rstrip()


def percent(share: float) -> str:
    """
    :param share: A share, 0.9 for instance.
    :return: "90 %"
    """
    return f"{100 * share:.0f} %"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, align: str | None = None) -> str:
    """
    :param head: Names of the columns.
    :param rows: Cells; pipes in them are escaped.
    :param align: One letter for each column, "l" or "r"; by default the first is left and the others are right.
    :return: A Markdown table
    """
    align = align or "l" + "r" * (len(head) - 1)
    rules = [{"l": "---", "r": "--:"}[letter] for letter in align]
    lines = [head, rules, *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def bullets(items: Iterable[str]) -> str:
    """
    :param items: Sentences.
    :return: A list of them
    """
    return "\n".join(f"* {item}" for item in items)
