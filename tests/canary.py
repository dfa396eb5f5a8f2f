"""A canary: something whose unpickling is heard."""

import pickle
from collections.abc import Callable

#: What was sung.
SONGS: list[str] = []


def sing() -> list[str]:
    """Code that a file names."""
    SONGS.append("sang")
    return SONGS


class Canary:
    """A pickle of it calls :func:`sing`. (Not a method of the list itself, of which a pickle would hold a copy.)"""

    def __reduce__(self) -> tuple[Callable[[], list[str]], tuple[()]]:
        return sing, ()


CANARY = pickle.dumps(Canary(), protocol=2)
