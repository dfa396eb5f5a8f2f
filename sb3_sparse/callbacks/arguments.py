"""Checks of a user's arguments, which are turned into plain Python numbers and names that can be saved as JSON."""

from functools import partial
from numbers import Integral, Real

from sb3_sparse.sparsity import Distribution, Saliency


def check_moment(name: str, when: float | int) -> float | int:
    """
    :param name: Name of an argument.
    :param when: Its value: a share of the run if a float, a number of environment steps if an int.
    :return: The same value
    :raises ValueError: if it lies before the run, or is a float outside [0, 1]
    """
    if not isinstance(when, Real) or isinstance(when, bool):
        raise ValueError(f"{name}={when!r} is not a moment of a run: give a share as a float, or steps as an int")
    if when < 0:
        raise ValueError(f"{name}={when} lies before the run")
    if isinstance(when, Integral):
        return int(when)
    if not when <= 1.0:
        raise ValueError(f"{name}={when} is not a share of a run: a float lies in [0, 1], steps are given as an int")
    return float(when)


def check_count(name: str, value: int, *, least: int) -> int:
    """
    :param name: Name of an argument.
    :param value: Its value; a float is accepted if it is whole.
    :param least: The smallest value allowed.
    :return: The same as an int
    :raises ValueError: if it is not a whole number, or too small
    """
    if not isinstance(value, Real) or isinstance(value, bool) or value % 1 != 0 or value < least:
        hint = " (YAML reads 1e3 as text: write 1000)" if isinstance(value, str) else ""
        raise ValueError(f"{name}={value!r} must be a whole number, at least {least}{hint}")
    return int(value)


def name_of(chosen: str | Saliency | Distribution) -> str:
    """
    :param chosen: A function or its name.
    :return: The name, with the arguments of a ``functools.partial``
    """
    if isinstance(chosen, partial):
        return f"{name_of(chosen.func)}({', '.join(map(repr, (*chosen.args, *sorted(chosen.keywords.items()))))})"
    return chosen if isinstance(chosen, str) else getattr(chosen, "__name__", repr(chosen))
