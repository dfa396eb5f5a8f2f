"""
The statistics of an agent's observations, from a file of ``VecNormalize``: a pickle, of which only known classes are unpickled
unless the file is trusted.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.save_util import load_from_pkl
from stable_baselines3.common.vec_env import VecNormalize

from sb3_sparse.agents.archive import explain
from sb3_sparse.agents.unpickle import loads
from sb3_sparse.zoo.beside import find_beside
from sb3_sparse.zoo.settings import Settings

#: What is given as a file to say that there is no normalization.
NONE = Path("none")
#: Names that rl-zoo3 and the hub's agents have for it.
_NAMES = ("vecnormalize.pkl", "vec_normalize.pkl")


def load_normalization(
    agent: Path, env: str | None = None, path: Path | None = None, *, trust: bool = False
) -> tuple[Path, VecNormalize] | None:
    """
    Load the statistics of ``VecNormalize`` for an agent.

    :param agent: Its zip.
    :param env: Name of its environment.
    :param path: The file, or "none" for no normalization; by default the file of the same checkpoint or with the zip's own
        name, ``vecnormalize.pkl`` or ``vec_normalize.pkl`` in the folder with the name of the environment or of the zip, as
        rl-zoo3 saves it, or next to the zip, or the only other one next to the zip or a folder below, not in that of another
        environment.
    :param trust: Whether to unpickle whatever the file names, which may run any code.
    :return: The file and its statistics; None if there is none
    :raises ValueError: if the file was not saved by ``VecNormalize``, or several may be meant
    :raises OSError: if it cannot be read
    """
    if path == NONE:
        return None
    path = path or _find(agent, env)
    if path is None:
        return None
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give that of VecNormalize.save(), or --vecnormalize none")
    with path.open("rb") as file:
        try:
            normalization = load_from_pkl(file) if trust else loads(file.read())
        except Exception as error:  # Whoever reads a damaged pickle may meet any of them.
            way_out = "give another file, or --trust for a class of your own"
            raise ValueError(f"{path} was not saved by VecNormalize.save() ({explain(error)}): {way_out}") from error
    if not isinstance(normalization, VecNormalize):
        raise ValueError(f"{path} was not saved by VecNormalize.save(): it holds a {type(normalization).__name__}")
    if not _is_whole(vars(normalization)):
        raise ValueError(f"{path} is damaged: its VecNormalize lacks statistics, or they are not numbers; save it again")
    # What VecNormalize leaves out when it is pickled. Without an environment it lacks these, and could not be saved again.
    vars(normalization).setdefault("class_attributes", {})
    vars(normalization).setdefault("returns", np.zeros(0))
    return path, normalization


def _is_whole(state: Mapping[str, object]) -> bool:
    """Whether a ``VecNormalize`` has what it normalizes with."""
    statistics = state.get("obs_rms")
    each = statistics.values() if isinstance(statistics, dict) else [statistics]
    numbers = [state.get("clip_obs"), state.get("epsilon")]
    for rms in each if state.get("norm_obs", True) else []:
        numbers += [getattr(rms, "mean", None), getattr(rms, "var", None)]
    return all(np.asarray(number).dtype.kind in "iuf" for number in numbers)


def check_normalization(
    agent: Path, model: BaseAlgorithm, found: tuple[Path, VecNormalize] | None, settings: Settings | None
) -> None:
    """
    Compare what was found with what the agent's files say of its training.

    :param agent: The agent's zip.
    :param model: Its model.
    :param found: What :func:`load_normalization` has found by itself.
    :param settings: What rl-zoo3 has kept of its training.
    :raises ValueError: if statistics seem to be missing, or there are some that the agent was not trained with
    """
    was_normalized, why = _was_normalized(model), "the observations in the zip say"
    if was_normalized is None and settings is not None:
        was_normalized, why = settings.normalizes, f"{settings.file} says"
    if found is not None and found[1].norm_obs and was_normalized is False:
        raise ValueError(
            f"{agent} was trained on observations that were not normalized, as {why}, and there is {found[0]}: give "
            "--vecnormalize none or --vecnormalize with this file to say which is right"
        )
    if was_normalized and (found is None or not found[1].norm_obs):
        missing = "no statistics of VecNormalize are next to it" if found is None else f"{found[0]} does not normalize them"
        raise ValueError(
            f"{agent} was trained on normalized observations, as {why}, and {missing}: give "
            "their file with --vecnormalize, or --vecnormalize none if the policy takes observations as they are"
        )
    behind = isinstance(model, OnPolicyAlgorithm) and model._last_original_obs is not None
    if found is None and was_normalized is None and behind:
        raise ValueError(
            f"{agent} was trained behind VecNormalize, and no statistics of it are next to the zip: give their file with "
            "--vecnormalize, or --vecnormalize none if only rewards were normalized"
        )


def _find(agent: Path, env: str | None) -> Path | None:
    own = [agent.parent / f"{agent.stem}_{name}" for name in _NAMES]
    checkpoint = re.sub(r"_(\d+_steps)$", r"_vecnormalize_\1.pkl", agent.stem)
    if checkpoint != agent.stem:
        own.insert(0, agent.parent / checkpoint)
    found = [file for file in own if file.is_file()][:1]
    found = found or find_beside(agent, env, _NAMES, r".*vec_?normalize.*", unnamed=True)
    if len(found) > 1:
        raise ValueError(
            f"which statistics are those of {agent}? Give one of {', '.join(map(str, found))} with --vecnormalize"
        )
    return found[0] if found else None


def _was_normalized(model: BaseAlgorithm) -> bool | None:
    """
    Whether the observations of a model's training were normalized. Behind a ``VecNormalize``, and only there, an on-policy
    algorithm keeps an observation as it was before. It is that of the start of training, and the last one is that of its end,
    so they differ in any case. Normalization shows by what it makes of observations: another type of number, and values
    out of their bounds.

    :return: None where a zip does not say
    """
    last, original = model._last_obs, model._last_original_obs
    if not isinstance(model, OnPolicyAlgorithm) or not isinstance(last, np.ndarray | dict):
        return None
    if original is None:
        return False
    whole = model.observation_space
    if isinstance(whole, spaces.Dict) and isinstance(last, dict) and isinstance(original, dict):
        shows = any(_shows_normalization(space, last[key], original[key]) for key, space in whole.items())
    else:
        shows = _shows_normalization(whole, last, original)
    return True if shows else None


def _shows_normalization(space: spaces.Space[Any], last: Any, original: Any) -> bool:
    if not isinstance(last, np.ndarray) or not isinstance(original, np.ndarray):
        return False
    if last.dtype != original.dtype or not isinstance(space, spaces.Box):
        return bool(last.dtype != original.dtype)
    # An environment may break its own bounds a little.
    low, high = space.low - 1e-3 * (1 + np.abs(space.low)), space.high + 1e-3 * (1 + np.abs(space.high))
    return bool(((last < low) | (last > high)).any())
