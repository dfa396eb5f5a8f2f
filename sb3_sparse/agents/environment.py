"""The environment that an agent plays in, wrapped as SB3 wraps it for training."""

import re
from contextlib import suppress
from importlib import import_module
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecTransposeImage

from sb3_sparse.pixels.atari import is_atari


def make_environment(env: str, model: BaseAlgorithm, env_kwargs: dict[str, Any] | None = None) -> VecEnv:
    """
    One environment in a ``VecEnv``, with SB3's wrappers and stacked frames for an Atari game that is played from images. Its
    observations are not normalized.

    :param env: Name of the environment. Of one that is gone, the next version that exists is made, and a line says so.
    :param model: The model that will play in it.
    :param env_kwargs: Arguments of the environment.
    :return: The environment
    :raises ValueError: if it cannot be made, or the model does not fit it
    """
    # Registers MinAtar's games.
    import_module("sb3_sparse.pixels.minatar")
    atari = is_image_space(model.observation_space) and is_atari(env)
    kwargs = env_kwargs or {}
    try:
        found = _find_version(env, kwargs)
        venv = make_vec_env(lambda: gym.make(found, **kwargs), n_envs=1, wrapper_class=AtariWrapper if atari else None)
    except (gym.error.Error, ImportError, TypeError) as error:
        raise ValueError(f"the environment '{env}' cannot be made: {error}") from error
    if atari:
        venv = VecFrameStack(venv, n_stack=min(model.observation_space.shape or (1,)))
    try:
        _check_spaces(found, venv, model)
    except ValueError:
        venv.close()
        raise
    if found != env:
        print(f"{env} is gone, so {found} is used instead", flush=True)
    return venv


def _find_version(env: str, kwargs: dict[str, Any]) -> str:
    """
    The version of an environment that can be made: the one that is asked for, or the next one that exists.

    :raises gymnasium.error.Error, ImportError: if there is none
    """
    try:
        gym.make(env, **kwargs).close()
        return env
    except (gym.error.DeprecatedEnv, ImportError):
        name, _, version = env.rpartition("-v")
        later = {int(key.rpartition("-v")[2]) for key in gym.registry if re.fullmatch(rf"{re.escape(name)}-v\d+", key)}
        for number in sorted(number for number in later if version.isdigit() and number > int(version)):
            with suppress(gym.error.Error, ImportError):
                gym.make(f"{name}-v{number}", **kwargs).close()
                return f"{name}-v{number}"
        raise


def _check_spaces(env: str, venv: VecEnv, model: BaseAlgorithm) -> None:
    observations, actions = venv.observation_space, venv.action_space
    if isinstance(observations, spaces.Box) and is_image_space(observations) and is_image_space(model.observation_space):
        if not is_image_space_channels_first(observations):
            observations = VecTransposeImage.transpose_space(observations)
    # Bounds of observations change between versions of an environment and mean nothing to a policy; bounds of actions matter.
    if observations.shape != model.observation_space.shape or type(observations) is not type(model.observation_space):
        raise ValueError(f"{env} has observations {observations}, the model was trained on {model.observation_space}")
    if actions != model.action_space:
        raise ValueError(f"{env} has actions {actions}, the model was trained on {model.action_space}")
