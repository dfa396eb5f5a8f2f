"""A test for Atari's games."""

from importlib import import_module

import gymnasium as gym


def is_atari(env: str) -> bool:
    """
    :param env: Name of an environment.
    :return: Whether it is a game of the Arcade Learning Environment; False without the package ``ale_py``
    """
    try:
        gym.register_envs(import_module("ale_py"))
        return "AtariEnv" in str(gym.spec(env).entry_point)
    except (ImportError, gym.error.Error):
        return False
