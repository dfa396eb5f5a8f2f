"""The hyperparameters that a cell changes in its recipe."""

from collections.abc import Sequence
from difflib import get_close_matches
from inspect import signature

#: Those that rl-zoo3 reads itself and does not give to the algorithm. ``n_timesteps`` is not among them: a cell has ``steps``.
_OF_ZOO = (
    "callback",
    "env_kwargs",
    "env_wrapper",
    "frame_stack",
    "monitor_kwargs",
    "n_envs",
    "noise_std",
    "noise_type",
    "normalize",
    "vec_env_wrapper",
)


def read_changes(hyperparams: Sequence[str]) -> dict[str, str]:
    """
    :param hyperparams: Hyperparameters as rl-zoo3 takes them: ``name:value``.
    :return: Values by name, as they are written; of two with one name the last, as in rl-zoo3
    """
    return {name: value for name, _, value in (change.partition(":") for change in hyperparams)}


def check_changes(algo: str, hyperparams: Sequence[str]) -> None:
    """
    Refuse names that nothing reads. SB3 refuses them where a model is made, and takes them without a word where one is loaded.

    :param algo: rl-zoo3's name of the algorithm.
    :param hyperparams: Hyperparameters as rl-zoo3 takes them: ``name:value``.
    :raises ValueError: if neither the algorithm nor rl-zoo3 has one of the names
    """
    from sb3_sparse.agents import ALGORITHMS

    known = [*signature(ALGORITHMS[algo].__init__).parameters, *_OF_ZOO]
    for name in read_changes(hyperparams):
        if name == "n_timesteps":
            raise ValueError("hyperparams has n_timesteps: the length of a cell is its setting steps")
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise ValueError(
                f"hyperparams has '{name}', which neither {algo} nor rl-zoo3 knows" + (f": is it {near[0]}?" if near else "")
            )
