"""The environment that an agent plays in, wrapped as SB3 wraps it for training."""

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

    :param env: Name of the environment.
    :param model: The model that will play in it.
    :param env_kwargs: Arguments of the environment.
    :return: The environment
    :raises ValueError: if it cannot be made, or the model does not fit it
    """
    # Registers MinAtar's games.
    import_module("sb3_sparse.pixels.minatar")
    atari = is_image_space(model.observation_space) and is_atari(env)
    try:
        venv = make_vec_env(
            lambda: gym.make(env, **(env_kwargs or {})), n_envs=1, wrapper_class=AtariWrapper if atari else None
        )
    except (gym.error.Error, ImportError, TypeError) as error:
        raise ValueError(f"the environment '{env}' cannot be made: {error}") from error
    if atari:
        venv = VecFrameStack(venv, n_stack=min(model.observation_space.shape or (1,)))
    try:
        _check_spaces(env, venv, model)
    except ValueError:
        venv.close()
        raise
    return venv


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
