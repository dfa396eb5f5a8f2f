"""Hyperparameters that the command line sets instead of a recipe: the sparsity."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from sb3_sparse.zoo.recipes import read_hyperparams

#: Arguments of callbacks that set the sparsity that a network ends with.
_SPARSITY_ARGUMENTS = {"final_sparsity", "sparsity"}
#: Our callbacks that do nothing on a dense network.
_SPARSE_ONLY = {"OneShotPruningCallback", "RewiringCallback"}


def with_sparsity(path: Path, env: str, sparsity: float) -> str:
    """
    :param path: A hyperparameter file.
    :param env: Environment, one of the file's.
    :param sparsity: Share of zeros that all callbacks of this package get, in the layers that they do not exclude. Where a
        recipe fixes the counts by lambdas, the distribution is solved for this sparsity instead. 0 trains the dense twin,
        which is quantized if the recipe quantizes.
    :return: An override for rl-zoo3's ``--hyperparams``, which it stores with the run
    :raises ValueError: if the file does not have the environment, or has no callback with a sparsity for it
    """
    callbacks = read_hyperparams(path, env).get("callback") or []
    callbacks = deepcopy(callbacks if isinstance(callbacks, list) else [callbacks])
    changed = False
    for _, arguments in _ours(callbacks):
        for name in _SPARSITY_ARGUMENTS.intersection(arguments):
            arguments[name] = sparsity
            changed = True
        if "initial_sparsity" in arguments:
            arguments["initial_sparsity"] = min(arguments["initial_sparsity"], sparsity)
        if "distribution" in arguments:
            arguments["distribution"] = _without_lambdas(arguments["distribution"])
    if not changed:
        raise ValueError(f"{path} has no callback with a sparsity to set for '{env}': leave --sparsity out")
    if sparsity == 0.0:
        callbacks = [callback for callback in callbacks if not any(name in _SPARSE_ONLY for name, _ in _ours([callback]))]
    return f"callback:{callbacks!r}"


def _ours(callbacks: list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    The callbacks of this package: class name and arguments. In rl-zoo3 a callback is a name, or a dict of one name and its
    arguments.
    """
    for callback in callbacks:
        for name, arguments in callback.items() if isinstance(callback, dict) else [(callback, None)]:
            if str(name).startswith("sb3_sparse."):
                yield name.rsplit(".", 1)[1], arguments or {}


def _without_lambdas(distribution: Any) -> Any:
    """A distribution that fixes the counts by lambdas becomes its name alone; any other stays as it is."""
    if isinstance(distribution, dict) and len(distribution) == 1:
        ((name, arguments),) = distribution.items()
        if isinstance(arguments, dict) and "lambdas" in arguments:
            return name
    return distribution
