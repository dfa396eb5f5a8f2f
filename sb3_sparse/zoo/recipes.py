"""Hyperparameter files of rl-zoo3: ours are found by name, and files with errors are refused before rl-zoo3 reads them."""

from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent.parent
#: A wheel holds the recipes in the package, a checkout next to it.
RECIPES = next(path for path in (_PACKAGE / "hyperparams", _PACKAGE.parent / "hyperparams") if path.is_dir())

#: rl-zoo3's own algorithms with an underscore in their names; importing rl-zoo3 to ask it takes seconds.
_LONG_NAMES = ("ppo_lstm",)


def find_recipe(algo: str, name: str) -> Path:
    """
    >>> find_recipe("td3", "set").name == find_recipe("td3", "td3_set.yml").name == "td3_set.yml"
    True

    :param algo: rl-zoo3's name of an algorithm, such as "sac".
    :param name: Name of the recipe, such as "gmp", or of its file, "sac_gmp" or "sac_gmp.yml".
    :return: Its hyperparameter file
    :raises ValueError: if there is none; the message lists the algorithm's recipes, or all if it has none
    """
    recipes = sorted(RECIPES.glob("*.yml"))
    own = {path.stem.removeprefix(f"{algo}_"): path for path in recipes if _algorithm_of(path) == algo}
    path = own.get(name.removesuffix(".yml").removeprefix(f"{algo}_"))
    if path is None:
        existing = f"it has: {', '.join(own)}" if own else f"the recipes are: {', '.join(path.stem for path in recipes)}"
        raise ValueError(f"there is no recipe '{name}' for algorithm '{algo}'; {existing}")
    return path


def _algorithm_of(recipe: Path) -> str:
    """The longest known name that the file's name begins with: td3_bc_snip would belong to an algorithm td3_bc."""
    from sb3_sparse.offline import ALGORITHMS

    fitting = [name for name in (*ALGORITHMS, *_LONG_NAMES) if recipe.stem.startswith(f"{name}_")]
    return max(fitting, key=len, default=recipe.stem.split("_")[0])


def read_recipe(path: Path) -> dict[str, dict[str, Any]]:
    """
    :param path: A hyperparameter file.
    :return: Hyperparameters by environment
    :raises ValueError: if it is not a YAML file with a mapping of environments
    """
    import yaml

    if path.suffix not in (".yml", ".yaml"):
        raise ValueError(f"{path} is not a YAML file, so --sparsity and --dataset cannot change it: set them in the file")
    try:
        recipe = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not a valid YAML file: {error}") from error
    entries = {name: value for name, value in recipe.items() if isinstance(value, dict)} if isinstance(recipe, dict) else {}
    if not entries:
        raise ValueError(f"{path} does not hold hyperparameters by environment, as rl-zoo3's files do")
    return entries


def read_hyperparams(path: Path, env: str) -> dict[str, Any]:
    """
    :param path: A hyperparameter file.
    :param env: Environment.
    :return: Its hyperparameters, found in rl-zoo3's order: by its name, under "atari" if it is such a game, under "default"
    :raises ValueError: if the file is not YAML, or has none
    """
    recipe = read_recipe(path)
    hyperparams = recipe.get(env, recipe.get("atari" if "atari" in recipe and _is_atari(env) else "default"))
    if hyperparams is None:
        known = ", ".join(name for name in recipe if not name.startswith("_"))
        raise ValueError(f"{path} has no hyperparameters for '{env}'; it has: {known}")
    return hyperparams


def _is_atari(env: str) -> bool:
    from sb3_sparse.pixels.atari import is_atari

    return is_atari(env)


def check_environment(path: Path, env: str) -> None:
    """
    Refuse a hyperparameter file that rl-zoo3 would fail on later, with a clearer message.

    :param path: A hyperparameter file, or the name of a Python module, which rl-zoo3 checks itself.
    :param env: Environment.
    :raises ValueError: if the file does not exist, or is YAML without hyperparameters for the environment
    """
    if path.suffix in (".yml", ".yaml", ".py") and not path.is_file():
        raise ValueError(f"there is no hyperparameter file {path}")
    if path.suffix in (".yml", ".yaml"):
        read_hyperparams(path, env)


def check_dataset(algo: str, path: Path | None, env: str, dataset: str | None) -> None:
    """
    Refuse an offline run that lacks a dataset, and a dataset for a run that does not need one.

    :param algo: rl-zoo3's name of an algorithm.
    :param path: Its hyperparameter file.
    :param env: Environment.
    :param dataset: Id of a dataset from the command line.
    :raises ValueError: if an offline algorithm has no dataset or no hyperparameters, or another algorithm has a dataset
    """
    from sb3_sparse.offline import ALGORITHMS

    if algo not in ALGORITHMS:
        if dataset is not None:
            raise ValueError(
                f"--dataset is for the offline algorithms: {', '.join(ALGORITHMS)}; '{algo}' collects its own data"
            )
    elif path is None:
        raise ValueError(f"rl-zoo3 has no hyperparameters for '{algo}': give --recipe or --conf-file")
    elif dataset is None and path.suffix in (".yml", ".yaml"):
        if "dataset" not in read_hyperparams(path, env):
            raise ValueError(f"{path} names no dataset for '{env}': give --dataset, the id of a Minari dataset")
