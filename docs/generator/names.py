"""Tables of the names that YAML knows, from the code's own tables and the first sentence of each docstring."""

import inspect
import re
from collections.abc import Mapping

from sb3_sparse.sparsity import DISTRIBUTIONS, SALIENCIES, SCHEDULES

from .markdown import table

FAMILIES: dict[str, Mapping[str, object]] = {
    "schedules": SCHEDULES,
    "saliencies": SALIENCIES,
    "distributions": DISTRIBUTIONS,
}


def names(family: str) -> str:
    """
    :param family: "schedules", "saliencies" or "distributions".
    :return: A table of its members: a new member of the code's table gets a row without a change here
    """
    rows = [(f"`{name}`", first_sentence(inspect.getdoc(member) or "")) for name, member in FAMILIES[family].items()]
    return table(("name", "what it is"), rows, align="ll")


def first_sentence(doc: str) -> str:
    """
    >>> first_sentence("A score,\\n\\n    |w|\\n\\nFurther on.")
    'A score, `|w|`'

    :param doc: A docstring.
    :return: Its first sentence as Markdown, with the formula where the sentence leads up to one
    """
    paragraphs = [" ".join(paragraph.split()) for paragraph in doc.split("\n\n")]
    sentence = re.split(r"(?<=[.!?])\s+(?=[A-Z])", paragraphs[0])[0]
    if sentence.endswith((",", ":")) and len(paragraphs) > 1:
        sentence = f"{sentence} ``{paragraphs[1]}``"
    sentence = re.sub(r":\w+:`~?([^`]*)`", r"``\1``", sentence)
    return sentence.replace("``", "`")
