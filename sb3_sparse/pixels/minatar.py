"""
MinAtar's games as environments with image observations, which ``CnnPolicy`` learns in minutes (Young & Tian 2019,
arXiv:1903.03176).

Importing this module registers ``MinAtarBreakout-v1``, ``MinAtarSpaceInvaders-v1``, ``MinAtarAsterix-v1``,
``MinAtarSeaquest-v1`` and ``MinAtarFreeway-v1``, for rl-zoo3 by ``--gym-packages sb3_sparse.pixels.minatar``. They need the
package ``minatar``.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
#: The games end when the player loses, so an episode of a player that never misses needs a limit.
MAX_EPISODE_STEPS = 5_000


class MinAtarEnv(gym.Env[NDArray[np.uint8], np.int64]):
    """
    One game with its minimal set of actions. An observation is an image ``[channels, 10, 10]`` of bytes, 255 where an object
    of the channel's kind is, so that SB3 takes it for an image and scales it to 0 and 1.

    :param game: One of ``GAMES``.
    :param sticky_action_prob: Probability that the last action is repeated.
    :param difficulty_ramping: Whether the difficulty increases with time, in the games that can do so.
    :param render_mode: "rgb_array" or None.
    :raises ImportError: without the package ``minatar``
    :raises ValueError: on an unknown game
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        game: str,
        sticky_action_prob: float = 0.1,
        difficulty_ramping: bool = True,
        render_mode: str | None = None,
    ) -> None:
        try:
            from minatar import Environment
        except ImportError as error:
            raise ImportError("the games of MinAtar need the package minatar: pip install minatar") from error
        if game not in GAMES:
            raise ValueError(f"unknown game '{game}': use one of {', '.join(GAMES)}")
        self.render_mode = render_mode
        self._game = Environment(game, sticky_action_prob=sticky_action_prob, difficulty_ramping=difficulty_ramping)
        self._actions = self._game.minimal_action_set()
        height, width, channels = self._game.state_shape()
        self.observation_space = spaces.Box(0, 255, (channels, height, width), np.uint8)
        self.action_space = spaces.Discrete(len(self._actions))
        self._seeded = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """
        :param seed: Seed of this and the following episodes.
        :param options: Not used.
        :return: The first observation, and an empty dict
        """
        super().reset(seed=seed)
        if seed is not None or not self._seeded:
            # The game has its own random generator.
            self._game.seed(int(self.np_random.integers(1 << 31)))
            self._seeded = True
        self._game.reset()
        # Sticky actions must not repeat the last action of the previous episode.
        self._game.last_action = 0
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """
        :param action: Index into the minimal set of actions.
        :return: Observation, reward, whether the game is over, False, and an empty dict
        """
        reward, over = self._game.act(self._actions[int(action)])
        return self._observation(), float(reward), bool(over), False, {}

    def render(self) -> NDArray[np.uint8] | None:
        """
        :return: The screen in one shade of gray per channel, ``[height, width, 3]``, in the mode "rgb_array"
        """
        if self.render_mode != "rgb_array":
            return None
        state = self._game.state()
        shades = np.linspace(0, 255, state.shape[2] + 1).astype(np.uint8)
        screen = shades[(state * np.arange(1, state.shape[2] + 1)).max(axis=2)]
        return np.repeat(screen[..., None], 3, axis=2)

    def _observation(self) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = np.multiply(self._game.state().transpose(2, 0, 1), 255, dtype=np.uint8)
        return image


def _register() -> None:
    for game in GAMES:
        name = f"MinAtar{game.title().replace('_', '')}-v1"
        if name not in gym.registry:
            gym.register(
                name, "sb3_sparse.pixels.minatar:MinAtarEnv", max_episode_steps=MAX_EPISODE_STEPS, kwargs={"game": game}
            )


_register()
