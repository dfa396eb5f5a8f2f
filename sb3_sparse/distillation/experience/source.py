"""Where a student's states come from: environments that agents play in, or recorded observations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.preprocessing import maybe_transpose
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_wrapper

from sb3_sparse.agents.environment import close, make_environment
from sb3_sparse.agents.observations import Observation, fits
from sb3_sparse.export.policy import find_normalization
from sb3_sparse.offline import OfflineDataset

#: What a user may give: an environment or its name, a dataset, or observations as an environment gives them.
Given = str | gym.Env[Any, Any] | VecEnv | OfflineDataset | NDArray[Any] | Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Source:
    """
    Where states come from. Observations are those of the environment, not normalized.

    :param env: Environments without normalization; None for recorded observations.
    :param recorded: Recorded observations, ``[n, ...]``; None with environments.
    :param normalization: What the model's observations are normalized with; None if they are not.
    """

    env: VecEnv | None
    recorded: Observation | None
    normalization: VecNormalize | None


@contextmanager
def open_source(model: BaseAlgorithm, given: Given, normalization: VecNormalize | None = None) -> Iterator[Source]:
    """
    A context in which there is a source. An environment that was made by its name is closed behind it, one of the user is not.

    :param model: The teacher.
    :param given: What the user gave.
    :param normalization: The ``VecNormalize`` that the model was trained in; by default that of the given environment, or else
        of the model's.
    :return: The source
    :raises ValueError: if it does not fit the model
    """
    made = make_environment(given, model) if isinstance(given, str) else None
    try:
        yield _find_source(model, given if made is None else made, normalization)
    finally:
        close(made)


def _find_source(model: BaseAlgorithm, given: Any, normalization: VecNormalize | None) -> Source:
    own = find_normalization(model) if normalization is None else normalization
    if isinstance(given, OfflineDataset):
        own_space, given = given.observation_space, _observations(given)
        _check(model, fits(own_space, model.observation_space), own_space)
    if isinstance(given, (np.ndarray, Mapping)):
        return Source(None, _read(model, given), own)
    env = given
    if not isinstance(env, (gym.Env, VecEnv)):
        raise ValueError(f"env={repr(env)[:60]} is no environment, name of one, dataset or array of observations")
    if isinstance(env, VecEnv):
        found, env = split_normalization(env)
        own = found if found is not None and normalization is None else own
    venv = model._wrap_env(env, monitor_wrapper=True)
    _check(model, fits(venv.observation_space, model.observation_space), venv.observation_space)
    if venv.action_space != model.action_space:
        raise ValueError(f"the actions of the environment are {venv.action_space}, those of the model {model.action_space}")
    return Source(venv, None, own)


def split_normalization(env: VecEnv) -> tuple[VecNormalize | None, VecEnv]:
    """
    :param env: Environments of a user.
    :return: Their normalization, if they have one, and the environments without it
    :raises ValueError: if there is one inside another wrapper
    """
    found, env = (env, env.venv) if isinstance(env, VecNormalize) else (None, env)
    if unwrap_vec_wrapper(env, VecNormalize) is not None:
        raise ValueError(
            "there is a VecNormalize inside another wrapper of the environment, so its statistics are not those of the"
            " model's observations: wrap the environment the other way round"
        )
    return found, env


def _check(model: BaseAlgorithm, fit: bool, space: gym.Space[Any]) -> None:
    if not fit:
        raise ValueError(
            f"the observations are of {space}, and the model takes {model.observation_space}: give what it was trained in"
        )


def _observations(dataset: OfflineDataset) -> Any:
    arrays = dataset.arrays
    found = {key: array[arrays.index] for key, array in arrays.observations.items()}
    return found if isinstance(dataset.observation_space, spaces.Dict) else next(iter(found.values()))


def _read(model: BaseAlgorithm, given: Any) -> Any:
    space: Any = model.observation_space
    whole = isinstance(space, spaces.Dict)
    parts: Mapping[str, spaces.Space[Any]] = space.spaces if whole else {"": space}
    arrays = dict(given) if isinstance(given, Mapping) else {"": given}
    wrong = isinstance(given, Mapping) != whole or set(arrays) != set(parts)
    if not wrong:
        arrays = {key: _channels_first(np.asarray(array), parts[key]) for key, array in arrays.items()}
        wrong = not all(_holds(array, parts[key]) for key, array in arrays.items()) or len(set(map(len, arrays.values()))) != 1
    if wrong:
        raise ValueError(f"recorded observations must be finite numbers of {space}, [n, ...], with n of at least 1")
    return arrays if whole else arrays[""]


def _channels_first(array: NDArray[Any], space: spaces.Space[Any]) -> NDArray[Any]:
    """Images as SB3 gives them to a policy; its ``predict`` also finds the channels by the shape."""
    return np.asarray(maybe_transpose(array, space)) if array.ndim == 4 else array


def _holds(array: NDArray[Any], space: spaces.Space[Any]) -> bool:
    """Whether there are finite observations of a space in an array. Bounds of numbers mean nothing to a policy."""
    if array.dtype.kind not in "biuf" or array.shape[1:] != space.shape or not array.size:
        return False
    if isinstance(space, spaces.Box):
        # NaN is the least and the largest number; an array of booleans would be large.
        return array.dtype.kind != "f" or bool(np.isfinite([array.min(), array.max()]).all())
    classes: Any = {spaces.Discrete: "n", spaces.MultiDiscrete: "nvec"}.get(type(space))
    return bool((array >= 0).all() and (array < (2 if classes is None else getattr(space, classes))).all())
