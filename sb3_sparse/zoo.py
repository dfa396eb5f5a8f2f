"""
The way into rl-zoo3: our recipes by name, and its own commands around them.

A recipe is an rl-zoo3 hyperparameter file ``<algo>_<name>.yml``, so ``python -m rl_zoo3.train -conf
hyperparams/sac_gmp.yml`` runs it unmodified; only the offline algorithms are unknown there, until :func:`register`. This
module finds the path, and sets the sparsity from the command line.
"""

import sys
from collections.abc import Iterator, Sequence
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent
#: In a wheel the recipes lie in the package, in a checkout beside it.
RECIPES = next(path for path in (_PACKAGE / "hyperparams", _PACKAGE.parent / "hyperparams") if path.is_dir())

#: Arguments of callbacks that say how sparse a network ends.
_SPARSITY_ARGUMENTS = {"final_sparsity", "sparsity"}
#: Names of the algorithms that need a dataset.
OFFLINE = ("bc", "bcq", "discrete_bc", "discrete_bcq")
#: Our callbacks that have nothing to do on a dense network.
_SPARSE_ONLY = {"OneShotPruningCallback", "RewiringCallback"}


def find_recipe(algo: str, name: str) -> Path:
    """
    :param algo: rl-zoo3's name of an algorithm, such as "sac".
    :param name: Name of the recipe, such as "gmp"; that of its file will do, "sac_gmp" or "sac_gmp.yml".
    :return: Its hyperparameter file
    :raises ValueError: if there is none; the message lists those of the algorithm, or all if it has none
    """
    path = RECIPES / f"{algo}_{name.removesuffix('.yml').removeprefix(f'{algo}_')}.yml"
    if not path.is_file():
        recipes = sorted(path.stem for path in RECIPES.glob("*.yml"))
        own = [recipe.removeprefix(f"{algo}_") for recipe in recipes if recipe.startswith(f"{algo}_")]
        existing = f"it has: {', '.join(own)}" if own else f"others have: {', '.join(recipes)}"
        raise ValueError(f"there is no recipe '{name}' for algorithm '{algo}'; {existing}")
    return path


def read_recipe(path: Path) -> dict[str, dict[str, Any]]:
    """
    :param path: A hyperparameter file.
    :return: Hyperparameters by environment
    :raises ValueError: if it is no YAML file with a mapping of environments
    """
    import yaml

    if path.suffix not in (".yml", ".yaml"):
        raise ValueError(f"{path} is no YAML file: set the sparsity where it is written")
    try:
        recipe = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML file: {error}") from error
    entries = {name: value for name, value in recipe.items() if isinstance(value, dict)} if isinstance(recipe, dict) else {}
    if not entries:
        raise ValueError(f"{path} does not hold hyperparameters by environment")
    return entries


def check_environment(path: Path, env: str) -> None:
    """
    Say what is wrong with a hyperparameter file before rl-zoo3 meets it.

    :param path: A hyperparameter file, or the name of a Python module, which is left to rl-zoo3.
    :param env: Environment.
    :raises ValueError: if there is no such file, or it is YAML without hyperparameters for the environment
    """
    if path.suffix in (".yml", ".yaml", ".py") and not path.is_file():
        raise ValueError(f"there is no hyperparameter file {path}")
    if path.suffix in (".yml", ".yaml"):
        _hyperparams_of(path, read_recipe(path), env)


def _hyperparams_of(path: Path, recipe: dict[str, dict[str, Any]], env: str) -> dict[str, Any]:
    # In rl-zoo3's order.
    hyperparams = recipe.get(env, recipe.get("atari" if "atari" in recipe and _is_atari(env) else "default"))
    if hyperparams is None:
        known = ", ".join(name for name in recipe if not name.startswith("_"))
        raise ValueError(f"{path} has no hyperparameters for '{env}'; it has: {known}")
    return hyperparams


def _is_atari(env: str) -> bool:
    from sb3_sparse.pixels.atari import is_atari

    return is_atari(env)


def check_dataset(algo: str, path: Path | None, env: str, dataset: str | None) -> None:
    """
    Say what is wrong with an offline run before rl-zoo3 meets it.

    :param algo: rl-zoo3's name of an algorithm.
    :param path: Its hyperparameter file.
    :param env: Environment.
    :param dataset: Id of a dataset that was given beside the file.
    :raises ValueError: if there is a dataset and no use for it, or none where it is needed
    """
    if algo not in OFFLINE:
        if dataset is not None:
            raise ValueError(
                f"--dataset is for the offline algorithms: {', '.join(OFFLINE)}; '{algo}' steps in its environment"
            )
    elif path is None:
        raise ValueError(f"'{algo}' has no hyperparameters in rl-zoo3: give --recipe or --conf-file")
    elif dataset is None and path.suffix in (".yml", ".yaml"):
        if "dataset" not in _hyperparams_of(path, read_recipe(path), env):
            raise ValueError(f"{path} names no dataset for '{env}': give --dataset, the id of a Minari dataset")


def with_sparsity(path: Path, env: str, sparsity: float) -> str:
    """
    :param path: A hyperparameter file.
    :param env: Environment, one of the file's.
    :param sparsity: Share of zeros of all callbacks of this package, in the layers that they do not exclude, also where a
        recipe fixes the counts by lambdas: the distribution is then solved for the sparsity. 0 trains the dense twin,
        quantized if the recipe says so.
    :return: An override for rl-zoo3's ``--hyperparams``, which it stores with the run
    :raises ValueError: if the file does not know the environment, or has no callback with a sparsity for it
    """
    hyperparams = _hyperparams_of(path, read_recipe(path), env)
    callbacks = hyperparams.get("callback") or []
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
    Our callbacks by class name, with their arguments; rl-zoo3 takes a callback as a name, or as a dict of one name and its
    arguments.
    """
    for callback in callbacks:
        for name, arguments in callback.items() if isinstance(callback, dict) else [(callback, None)]:
            if str(name).startswith("sb3_sparse."):
                yield name.rsplit(".", 1)[1], arguments or {}


def _without_lambdas(distribution: Any) -> Any:
    """The name alone of a distribution with fixed counts."""
    if isinstance(distribution, dict) and len(distribution) == 1:
        ((name, arguments),) = distribution.items()
        if isinstance(arguments, dict) and "lambdas" in arguments:
            return name
    return distribution


def train(arguments: Sequence[str]) -> None:
    """
    Run rl-zoo3's ``train``.

    :param arguments: Its command line.
    """
    _run("train", arguments)


def enjoy(arguments: Sequence[str]) -> None:
    """
    Run rl-zoo3's ``enjoy``, on the folder that ``train`` writes to unless another is given.

    :param arguments: Its command line.
    """
    if not any(argument.startswith(("-f", "--f")) for argument in arguments):
        arguments = ["--folder", "logs", *arguments]
    _run("enjoy", arguments)


def register() -> None:
    """
    Make the offline algorithms known to rl-zoo3, under the names bc, bcq, discrete_bc and discrete_bcq, and the games of
    MinAtar to Gymnasium.
    """
    from rl_zoo3 import ALGOS

    import_module("sb3_sparse.pixels.minatar")
    from sb3_sparse.offline import BC, BCQ, DiscreteBC, DiscreteBCQ

    ALGOS.update(zip(OFFLINE, (BC, BCQ, DiscreteBC, DiscreteBCQ), strict=True))


def _run(name: str, arguments: Sequence[str]) -> None:
    """Run a command of rl-zoo3, a function of the module of that name, which reads ``sys.argv``."""
    try:
        register()
        command = getattr(import_module(f"rl_zoo3.{name}"), name)
    except ModuleNotFoundError as error:
        raise SystemExit(f"sb3-sparse {name} needs rl-zoo3 ({error}): pip install sb3_sparse[zoo]") from error
    previous, sys.argv = sys.argv, [f"sb3-sparse {name}", *arguments]
    try:
        command()
    finally:
        sys.argv = previous
