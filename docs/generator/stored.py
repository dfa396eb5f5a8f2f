"""The stored results that every number of the documentation comes from."""

import json
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@cache
def stored(name: str) -> dict[str, Any]:
    """
    :param name: Name of a file in ``benchmarks/results``, without its ending.
    :return: Its content
    """
    return json.loads((RESULTS / f"{name}.json").read_text())


#: What to add to bytes of files that were stored before version 5 of the format.
BEFORE_LAYOUTS = (
    "in a version before 5. A file of today chooses [layouts of its weights](../guide/format.md#weights-from-version-5-on)"
    " where they make it smaller"
)


def require(holds: bool, claim: str) -> None:
    """
    Guard a sentence that a person wrote about results: when new results contradict it, the pages cannot be generated.

    :param holds: Whether the stored results still say so.
    :param claim: The sentence.
    :raises ValueError: if they do not
    """
    if not holds:
        raise ValueError(f"the stored results no longer support this sentence; rewrite it: {claim}")
