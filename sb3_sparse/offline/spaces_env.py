"""An environment for those who have none: SB3's callbacks ask a model for one, if only for its spaces."""

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
    Has spaces, can be reset, and cannot be stepped in.

    :param observation_space: Space of the observations.
    :param action_space: Space of the actions.
    """

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        # Its own: whoever seeds an environment seeds its spaces.
        self.observation_space = deepcopy(observation_space)
        self.action_space = deepcopy(action_space)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """
        :param seed: Seed of the observation.
        :param options: Not used.
        :return: Some observation, and nothing about it
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
        raise RuntimeError("this model was given a dataset and no environment to step in: give it one with env=...")
