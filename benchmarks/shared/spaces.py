"""Environments that cost nothing: what is timed is a training step or a decision, and neither depends on the physics."""

import gymnasium as gym
import numpy as np


class HalfCheetahSpaces(gym.Env):
    """The spaces of HalfCheetah without its physics."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (17,))
    action_space = gym.spaces.Box(-1, 1, (6,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action):
        return self._observe(), 0.0, False, False, {}

    def _observe(self):
        return self.np_random.normal(size=self.observation_space.shape).astype(np.float32)


class VectorSpaces(HalfCheetahSpaces):
    """
    Spaces of vectors.

    :param inputs: Length of an observation.
    :param outputs: Length of an action.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (inputs,))
        self.action_space = gym.spaces.Box(-1, 1, (outputs,))


class AtariSpaces(HalfCheetahSpaces):
    """The spaces of an Atari game with four stacked frames, channels first, which SB3 takes as they are."""

    observation_space = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = gym.spaces.Discrete(6)

    def _observe(self):
        return self.np_random.integers(0, 256, (4, 84, 84), dtype=np.uint8)
