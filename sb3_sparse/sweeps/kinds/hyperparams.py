"""The hyperparameters that a cell changes in its recipe."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from inspect import signature

#: Those that rl-zoo3 reads itself and does not give to the algorithm.
_OF_ZOO = (
    "callback",
    "env_kwargs",
    "env_wrapper",
    "frame_stack",
    "monitor_kwargs",
    "n_envs",
    "normalize",
    "vec_env_wrapper",
)
#: Those that it reads for an algorithm with action noise.
_NOISE = ("noise_std", "noise_type")
#: Those that rl-zoo3 or the kind sets.
_FIXED = ("env", "verbose", "device", "tensorboard_log", "_init_setup_model")
#: Those that are settings of a cell, by the setting.
_SETTINGS = {"n_timesteps": "steps", "seed": "seed"}


def read_changes(hyperparams: Sequence[str]) -> dict[str, str]:
    """
    :param hyperparams: Hyperparameters as rl-zoo3 takes them: ``name:value``.
    :return: Values by name, as they are written; of two with one name the last, as in rl-zoo3
    """
    return {name: value for name, _, value in (change.partition(":") for change in hyperparams)}


def check_changes(algo: str, recipe: Mapping[str, object], hyperparams: Sequence[str]) -> None:
    """
    Refuse names that nothing reads. SB3 refuses them where a model is made, and takes them without a word where one is loaded.

    :param algo: rl-zoo3's name of the algorithm.
    :param recipe: The hyperparameters that are changed.
    :param hyperparams: Hyperparameters as rl-zoo3 takes them: ``name:value``.
    :raises ValueError: if neither the algorithm nor rl-zoo3 has one of the names, or the cell has a setting for it
    """
    from sb3_sparse.agents import ALGORITHMS

    parameters = signature(ALGORITHMS[algo].__init__).parameters
    known = [name for name in (*parameters, *_OF_ZOO) if name not in ("self", *_FIXED, *_SETTINGS)]
    if "action_noise" in parameters:
        known += _NOISE
    changes = read_changes(hyperparams)
    for name in changes:
        if name in _SETTINGS:
            raise ValueError(f"hyperparams has {name}: a cell has the setting {_SETTINGS[name]} for it")
        if name in _FIXED:
            raise ValueError(f"hyperparams has {name}, which is not free in a cell")
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise ValueError(
                f"hyperparams has '{name}', which neither {algo} nor rl-zoo3 knows" + (f": is it {near[0]}?" if near else "")
            )
    if "noise_std" in changes and "noise_type" not in {**recipe, **changes}:
        raise ValueError("hyperparams has noise_std without a noise_type, such as noise_type:'normal'")
