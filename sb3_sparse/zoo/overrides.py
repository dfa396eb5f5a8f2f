"""Hyperparameters that the command line sets instead of a recipe: the sparsity, and training in the engine."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sb3_sparse.zoo.recipes import read_hyperparams

#: Arguments of callbacks that set the sparsity that a network ends with.
_SPARSITY_ARGUMENTS = {"final_sparsity", "sparsity"}
ENGINE = "sb3_sparse.EngineCallback"
#: Our callbacks that do nothing on a dense network.
_SPARSE_ONLY = {"OneShotPruningCallback", "RewiringCallback"}


def with_sparsity(path: Path, env: str, sparsity: float, overrides: Sequence[str] = ()) -> str:
    """
    :param path: A hyperparameter file.
    :param env: Environment, one of the file's.
    :param sparsity: Share of zeros that all callbacks of this package get, in the layers that they do not exclude. Where a
        recipe fixes the counts by lambdas, the distribution is solved for this sparsity instead. 0 trains the dense twin,
        which is quantized if the recipe quantizes.
    :param overrides: Other overrides; where they set callbacks, those get the sparsity, and not the file's.
    :return: An override for rl-zoo3's ``--hyperparams``, which it stores with the run
    :raises ValueError: if the file does not have the environment, there is no callback with a sparsity for it, or an override
        sets callbacks that are not a literal
    """
    others, callbacks = _split(path, env, overrides)
    callbacks = deepcopy(callbacks)
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
        owner = path if len(others) == len(overrides) else "callback: of --hyperparams"
        raise ValueError(f"{owner} has no callback with a sparsity to set for '{env}': leave --sparsity out")
    if sparsity == 0.0:
        callbacks = [callback for callback in callbacks if not any(name in _SPARSE_ONLY for name, _ in _ours([callback]))]
    return f"callback:{callbacks!r}"


def with_engine(path: Path, env: str, overrides: Sequence[str], precision: str = "float32") -> list[str]:
    """
    :param path: The hyperparameter file of the run.
    :param env: Environment, one of the file's.
    :param overrides: Overrides for rl-zoo3's ``--hyperparams``.
    :param precision: Of the products in dense layers, see :class:`~sb3_sparse.EngineCallback`.
    :return: The same, with the engine as the last callback
    :raises ValueError: if one of them sets callbacks that are not a literal
    """
    others, callbacks = _split(path, env, overrides)
    engine = ENGINE if precision == "float32" else {ENGINE: {"precision": precision}}
    return [*others, f"callback:{[*callbacks, engine]!r}"]


def with_first(path: Path, env: str, overrides: Sequence[str], callback: Mapping[str, object]) -> list[str]:
    """
    :param path: The hyperparameter file of the run.
    :param env: Environment, one of the file's.
    :param overrides: Overrides for rl-zoo3's ``--hyperparams``.
    :param callback: A callback as rl-zoo3's files name it: a class and its arguments.
    :return: The same, with this callback in front of the others
    :raises ValueError: if one of them sets callbacks that are not a literal
    """
    others, callbacks = _split(path, env, overrides)
    return [*others, f"callback:{[dict(callback), *callbacks]!r}"]


def _split(path: Path, env: str, overrides: Sequence[str]) -> tuple[list[str], list[Any]]:
    """The overrides without that of the callbacks, and the callbacks."""
    others = [override for override in overrides if not override.startswith("callback:")]
    given = [override.removeprefix("callback:") for override in overrides if override not in others]
    if not given:
        return others, _as_list(read_hyperparams(path, env).get("callback"))
    try:
        return others, _as_list(ast.literal_eval(given[-1]))
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"callback:{given[-1]} is no literal, so that nothing can be set in it or added to it") from error


def default_file(algo: str) -> Path:
    """
    :param algo: rl-zoo3's name of an algorithm.
    :return: rl-zoo3's own hyperparameters for it
    :raises ValueError: if rl-zoo3 is not installed
    """
    found = find_spec("rl_zoo3")
    if found is None or found.origin is None:
        raise ValueError("this needs rl-zoo3: pip install sb3_sparse[zoo]")
    return Path(found.origin).parent / "hyperparams" / f"{algo}.yml"


def _as_list(callbacks: Any) -> list[Any]:
    """rl-zoo3 takes one callback, a list of them, or nothing."""
    return callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []


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
