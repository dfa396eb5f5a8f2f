"""An environment without dynamics, for models without an environment: SB3's callbacks ask a model for one."""

from copy import deepcopy
from typing import Any, NoReturn

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv


def make_spaces_env(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> VecEnv:
    """
    :param observation_space: Space of the observations.
    :param action_space: Space of the actions.
    :return: A :class:`SpacesEnv` as SB3's algorithms take it
    """
    return DummyVecEnv([lambda: SpacesEnv(observation_space, action_space)])


class SpacesEnv(gym.Env[Any, Any]):
    """
    An environment that has spaces and can be reset, but not stepped.

    :param observation_space: Space of the observations.
    :param action_space: Space of the actions.
    """

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        # Copies, because seeding an environment seeds its spaces.
        self.observation_space = deepcopy(observation_space)
        self.action_space = deepcopy(action_space)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """
        :param seed: Seed of the observation.
        :param options: Not used.
        :return: A random observation, and an empty dict
        """
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> NoReturn:
        """
        :param action: Not used.
        :raises RuntimeError: always
        """
        raise RuntimeError("this model has a dataset but not an environment that can be stepped: give it one with env=...")
