"""
A user's choice of a distribution, read from code or from YAML, and checked against the sparsity and the saliency.

YAML holds names, and code functions. A name with arguments is written as rl-zoo3 writes a callback with arguments:

    distribution: {erdos_renyi: {lambdas: [7, 64]}}
"""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import Parameter, signature
from typing import cast

from sb3_sparse.sparsity.distributions import DISTRIBUTIONS, check_sparsity, erdos_renyi
from sb3_sparse.sparsity.saliency import SALIENCIES, random
from sb3_sparse.sparsity.types import Distribution, Saliency

#: A name, a mapping of one name to its arguments, or a function.
ChosenDistribution = str | Mapping[str, Mapping[str, object]] | Distribution


def find_distribution(chosen: ChosenDistribution) -> Distribution:
    """
    Read a user's choice of a distribution.

    >>> find_distribution({"erdos_renyi": {"lambdas": [7, 64]}}).keywords
    {'lambdas': (7, 64)}

    :param chosen: A name in ``DISTRIBUTIONS``, a mapping of one such name to its arguments, or a function.
    :return: The function; with arguments a ``functools.partial``, lists as tuples
    :raises ValueError: on an unknown name, more than one, or arguments that the distribution does not have
    """
    if isinstance(chosen, str):
        chosen = {chosen: {}}
    if not isinstance(chosen, Mapping):
        if not callable(chosen):
            raise ValueError(
                f"a distribution is a name, a mapping of one name to its arguments, or a function, got {chosen!r}"
            )
        return chosen
    if len(chosen) != 1:
        raise ValueError(f"a distribution is one name with its arguments, got {list(chosen)}")
    ((name, arguments),) = chosen.items()
    if name not in DISTRIBUTIONS:
        raise ValueError(f"unknown distribution '{name}': use one of {', '.join(DISTRIBUTIONS)}")
    distribution = DISTRIBUTIONS[name]
    known = [p.name for p in signature(distribution).parameters.values() if p.kind is Parameter.KEYWORD_ONLY]
    if not isinstance(arguments, Mapping) or not set(known).issuperset(arguments):
        has = f"these arguments, by name: {', '.join(known)}" if known else "no arguments"
        raise ValueError(f"distribution '{name}' has {has}; got {arguments!r}")
    if not arguments:
        return distribution
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    return partial(cast(Callable[..., dict[str, int]], distribution), **values)


def check_choice(distribution: Distribution, sparsity: float | None, saliency: Saliency) -> float:
    """
    Check that a distribution fits the sparsity and the saliency. Lambdas fix the counts, so a sparsity in addition to them
    could only contradict.

    :param distribution: How many weights each layer keeps.
    :param sparsity: Share of zeros, in [0, 1), or None for a distribution whose counts are fixed by lambdas.
    :param saliency: Which weights each layer keeps.
    :return: The sparsity for the distribution; 0 stands for None, and is not used
    :raises ValueError: if the sparsity is missing, is given in addition to lambdas or is not a number in [0, 1), or if counts
        would be drawn from scores that are not random
    """
    arguments = _arguments_of(distribution)
    lambdas = find_lambdas(distribution)
    if arguments.get("counts") == "bernoulli" and saliency is not random and saliency in SALIENCIES.values():
        raise ValueError("erdos_renyi with counts='bernoulli' draws the weights: use saliency 'random'")
    if sparsity is not None and lambdas is not None:
        raise ValueError(
            f"lambdas={lambdas!r} fix the number of weights, so sparsity={sparsity!r} must not be given: give "
            "sparsity=None, or the distribution 'erdos_renyi' without lambdas"
        )
    if sparsity is not None:
        return check_sparsity(sparsity)
    if lambdas is None:
        raise ValueError(
            "sparsity=None needs a distribution whose counts are fixed, such as {'erdos_renyi': {'lambdas': [7, 64]}}: "
            "give a sparsity, or lambdas"
        )
    return 0.0


def find_lambdas(distribution: Distribution) -> object:
    """
    :param distribution: How many weights each layer keeps.
    :return: The lambdas that fix its counts, or None
    """
    return _arguments_of(distribution).get("lambdas")


def _arguments_of(distribution: Distribution) -> dict[str, object]:
    return distribution.keywords if isinstance(distribution, partial) and distribution.func is erdos_renyi else {}
