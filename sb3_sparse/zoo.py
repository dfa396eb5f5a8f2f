"""
The way into rl-zoo3: our recipes by name, and its own commands around them.

A recipe is an rl-zoo3 hyperparameter file ``<algo>_<name>.yml``, so ``python -m rl_zoo3.train -conf
hyperparams/sac_gmp.yml`` runs it unmodified. This module saves the path, and sets the sparsity from the command line.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

_PACKAGE = Path(__file__).parent
#: In a wheel the recipes lie in the package, in a checkout beside it.
RECIPES = next(path for path in (_PACKAGE / "hyperparams", _PACKAGE.parent / "hyperparams") if path.is_dir())

#: Arguments of callbacks that say how sparse a network ends.
_SPARSITY_ARGUMENTS = ("final_sparsity", "sparsity")


def find_recipe(algo: str, name: str) -> Path:
    """
    :param algo: rl-zoo3's name of an algorithm, such as "sac".
    :param name: Name of the recipe, such as "gmp".
    :return: Its hyperparameter file
    :raises ValueError: if there is none; the message lists those that exist
    """
    path = RECIPES / f"{algo}_{name}.yml"
    if not path.is_file():
        existing = ", ".join(sorted(path.stem.replace("_", " ", 1) for path in RECIPES.glob("*.yml")))
        raise ValueError(f"there is no recipe '{name}' for algorithm '{algo}'; there are (algorithm recipe): {existing}")
    return path


def read_recipe(path: Path) -> dict[str, dict[str, Any]]:
    """
    :param path: A hyperparameter file.
    :return: Hyperparameters by environment
    """
    recipe: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())
    return recipe


@contextmanager
def with_sparsity(conf: Path, sparsity: float) -> Iterator[Path]:
    """
    A copy of a hyperparameter file in which every callback of this package has another sparsity, for as long as the
    context lasts.

    :param conf: The hyperparameter file.
    :param sparsity: Share of zeros, in [0, 1); 0 trains the dense twin.
    :return: Path of the copy
    :raises ValueError: if the file has no callback with a sparsity
    """
    recipe = read_recipe(conf)
    found = False
    for hyperparams in recipe.values():
        for arguments in _callback_arguments(hyperparams):
            for name in _SPARSITY_ARGUMENTS:
                if name in arguments:
                    arguments[name] = sparsity
                    found = True
    if not found:
        raise ValueError(f"{conf} has no callback with a sparsity to set")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / conf.name
        copy.write_text(yaml.safe_dump(recipe, sort_keys=False))
        yield copy


def _callback_arguments(hyperparams: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The arguments of our callbacks in one environment's hyperparameters: a name, a dict, or a list of either."""
    callbacks = hyperparams.get("callback") or []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        if isinstance(callback, dict):
            yield from (arguments for name, arguments in callback.items() if name.startswith("sb3_sparse.") and arguments)


def train(arguments: Sequence[str]) -> None:
    """
    Run rl-zoo3's ``train``.

    :param arguments: Its command line.
    """
    from rl_zoo3.train import train as zoo_train

    _run(zoo_train, "train", arguments)


def enjoy(arguments: Sequence[str]) -> None:
    """
    Run rl-zoo3's ``enjoy``.

    :param arguments: Its command line.
    """
    from rl_zoo3.enjoy import enjoy as zoo_enjoy

    _run(zoo_enjoy, "enjoy", arguments)


def _run(command: Callable[[], None], name: str, arguments: Sequence[str]) -> None:
    """rl-zoo3's commands read ``sys.argv``."""
    previous, sys.argv = sys.argv, [f"sb3-sparse {name}", *arguments]
    try:
        command()
    finally:
        sys.argv = previous
