"""Arguments of ``distill`` and ``fit`` that nothing below would refuse in a sentence."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real
from typing import TypeVar

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecNormalize

T = TypeVar("T")


def check_model(model: object, normalization: object, work: str) -> None:
    """
    :param model: What a user gave as a trained agent.
    :param normalization: And as the ``VecNormalize`` that it was trained in.
    :param work: Name of the function that takes it.
    :raises ValueError: if it is no model, or that is neither a ``VecNormalize`` nor None
    """
    if not isinstance(model, BaseAlgorithm):
        raise ValueError(f"{work} takes a model, such as SAC.load(...), and was given a {type(model).__name__}")
    if normalization is not None and not isinstance(normalization, VecNormalize):
        raise ValueError(f"normalization must be a VecNormalize, not a {type(normalization).__name__}")


def check_whole(name: str, number: object, least: int) -> None:
    """
    :param name: Name of an argument.
    :param number: What a user gave.
    :param least: The least that it may be.
    :raises ValueError: if it is not a whole number of at least that
    """
    if isinstance(number, bool) or not isinstance(number, Integral) or int(number) < least:
        raise ValueError(f"{name}={number!r} must be a whole number of at least {least:,}")


def check_number(name: str, number: object, least: float) -> None:
    """
    :param name: Name of an argument.
    :param number: What a user gave.
    :param least: What it has to be larger than.
    :raises ValueError: if it is not a number larger than that
    """
    if isinstance(number, bool) or not isinstance(number, Real) or not float(number) > least:
        raise ValueError(f"{name}={number!r} must be more than {least:g}")


def read_list(name: str, given: Iterable[T], example: str) -> list[T]:
    """
    :param name: Name of an argument.
    :param given: What a user gave.
    :param example: One that would be right.
    :return: Its elements
    :raises ValueError: if it is not a list or the like
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ValueError(f"{name}={given!r} must be a list, such as {example}")
    return list(given)


def read_widths(given: object) -> list[int]:
    """
    :param given: What a user gave as ``net_arch``.
    :return: The widths of hidden layers
    :raises ValueError: if it is not a list of positive whole numbers
    """
    widths = list(given) if isinstance(given, list | tuple) else []
    if not widths or not all(isinstance(width, int) and not isinstance(width, bool) and width > 0 for width in widths):
        raise ValueError(f"net_arch={given!r} must be a list of widths, such as [64, 64]")
    return widths


def read_callbacks(given: MaybeCallback) -> list[BaseCallback]:
    """
    :param given: What a user gave: callbacks as SB3's ``learn`` takes them.
    :return: They in a list
    :raises ValueError: if there is something else among them
    """
    if given is None:
        return []
    several = given if isinstance(given, list | tuple) else [given]
    found = [ConvertCallback(each) if callable(each) else each for each in several]
    for each in found:
        if not isinstance(each, BaseCallback):
            raise ValueError(f"callback={each!r} is no callback of SB3: give a BaseCallback, a function or a list of them")
    return found
