"""rl-zoo3's own commands, with our algorithms registered and our options translated into its own."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from traceback import walk_tb

from sb3_sparse.zoo.overrides import default_file, with_engine, with_first, with_sparsity
from sb3_sparse.zoo.recipes import check_dataset, check_environment, find_recipe


def register() -> None:
    """
    Make the offline algorithms known to rl-zoo3, under their names in :data:`sb3_sparse.offline.ALGORITHMS`, and the games of
    MinAtar to Gymnasium.
    """
    from rl_zoo3 import ALGOS

    from sb3_sparse.offline import ALGORITHMS

    import_module("sb3_sparse.pixels.minatar")
    ALGOS.update(ALGORITHMS)


def check_registered(env: str) -> None:
    """
    :param env: Name of an environment.
    :raises ValueError: if Gymnasium does not know it, with the packages that rl-zoo3 imports
    """
    import gymnasium as gym

    import_module("sb3_sparse.pixels.minatar")
    if env not in gym.registry:
        with suppress(ImportError):
            import_module("rl_zoo3.import_envs")
    try:
        gym.spec(env)
    except (gym.error.Error, ImportError) as error:
        raise ValueError(f"there is no environment '{env}': {error}") from error


def train_arguments(
    algo: str,
    env: str,
    *,
    recipe: str | None = None,
    conf_file: str | None = None,
    sparsity: float | None = None,
    dataset: str | None = None,
    engine: bool = False,
    precision: str = "float32",
    overrides: Sequence[str] = (),
    others: Sequence[str] = (),
    first_callback: Mapping[str, object] | None = None,
) -> list[str]:
    """
    Translate our options of ``sb3-sparse train`` into rl-zoo3's.

    :param algo: rl-zoo3's name of an algorithm.
    :param env: Environment.
    :param recipe: Name of a recipe.
    :param conf_file: Hyperparameter file, or name of a Python module, instead of a recipe.
    :param sparsity: Sparsity of what the recipe prunes, see :func:`with_sparsity`.
    :param dataset: Id of a Minari dataset, for the offline algorithms.
    :param engine: Whether to train in the engine.
    :param precision: Of the products in dense layers in the engine, see :class:`~sb3_sparse.EngineCallback`.
    :param overrides: Other hyperparameters to overwrite, as rl-zoo3 takes them.
    :param others: rl-zoo3's own options, which are passed on.
    :param first_callback: A callback in front of all others, as rl-zoo3's files name it: a class and its arguments.
    :return: A command line for rl-zoo3
    :raises ValueError: if options contradict each other, or the hyperparameters do not fit them
    """
    if recipe and conf_file:
        raise ValueError("--recipe and --conf-file are two ways to name one file: give one of them")
    conf = find_recipe(algo, recipe) if recipe else conf_file
    if conf is not None:
        check_environment(Path(conf), env)
    check_dataset(algo, None if conf is None else Path(conf), env, dataset)
    changes = _read_overrides(overrides)
    if dataset is not None:
        changes.append(f"dataset:{dataset!r}")
    if sparsity is not None:
        from sb3_sparse.sparsity import check_sparsity

        if conf is None:
            raise ValueError("--sparsity sets the sparsity of a recipe: give --recipe or --conf-file")
        callbacks = with_sparsity(Path(conf), env, check_sparsity(sparsity), changes)
        changes = [*(change for change in changes if not change.startswith("callback:")), callbacks]
    if precision != "float32" and not engine:
        raise ValueError(f"the precision {precision} is one of training in the engine: add engine")
    if engine:
        # Where there is a GPU, rl-zoo3 takes it unless told otherwise; a device in `others` is told later, and counts.
        others = ["--device", "cpu", *others]
        changes = with_engine(default_file(algo) if conf is None else Path(conf), env, changes, precision)
    if first_callback is not None:
        changes = with_first(default_file(algo) if conf is None else Path(conf), env, changes, first_callback)
    arguments = ["--algo", algo, "--env", env, *others]
    if conf is not None:
        arguments += ["--conf-file", str(conf)]
    return [*arguments, "--hyperparams", *changes] if changes else arguments


def _read_overrides(overrides: Sequence[str]) -> list[str]:
    for override in overrides:
        if not all(override.partition(":")):
            raise ValueError(f"--hyperparams takes name:value, got '{override}'")
    return list(overrides)


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


def _run(name: str, arguments: Sequence[str]) -> None:
    """Run a command of rl-zoo3: the function of this name in the module of this name, which reads ``sys.argv``."""
    try:
        register()
        command = getattr(import_module(f"rl_zoo3.{name}"), name)
    except ModuleNotFoundError as error:
        raise SystemExit(f"sb3-sparse {name} needs rl-zoo3 ({error}): pip install sb3_sparse[zoo]") from error
    previous, sys.argv = sys.argv, [f"sb3-sparse {name}", *arguments]
    try:
        command()
    except AssertionError as error:
        # rl-zoo3 checks its arguments by assertions. Those of other packages are faults, and keep their traceback.
        *_, (frame, _) = walk_tb(error.__traceback__)
        if not str(error) or not frame.f_globals.get("__name__", "").startswith("rl_zoo3"):
            raise
        raise SystemExit(f"sb3-sparse {name}: {error}") from error
    finally:
        sys.argv = previous
