"""
A point in the plane that is to be brought to rest at the origin by an acceleration in each direction.

The state is (position, velocity), four numbers; an action of 1 accelerates by 3, a step lasts a tenth of a second, and an
episode 60 steps. The expert is linear, and saturated where it is far away. In its data position and velocity vary by about 1
each: SNIP and GraSP take away the connections of inputs that are small.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_sparse.offline import OfflineDataset

Array = NDArray[Any]
OBSERVATIONS = spaces.Box(-np.inf, np.inf, (4,), np.float32)
ACTIONS = spaces.Box(-1.0, 1.0, (2,), np.float32)
LENGTH = 60


def begin(count: int, seed: int) -> Array:
    """
    :param count: Number of states.
    :param seed: Seed of the draw.
    :return: Initial states ``[count, 4]``: positions within 3 in each direction, velocities within 4.5
    """
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (count, 4)) * [3.0, 3.0, 4.5, 4.5]


def step(states: Array, actions: Array) -> tuple[Array, Array]:
    """
    :param states: ``[n, 4]``.
    :param actions: ``[n, 2]``, clipped to [-1, 1].
    :return: The next states, and rewards ``[n]``: minus the squares of position, velocity (a tenth), and action (a hundredth)
    """
    actions = np.clip(actions, -1.0, 1.0)
    velocity = states[:, 2:] + 0.1 * 3.0 * actions
    position = states[:, :2] + 0.1 * velocity
    cost = (position**2).sum(1) + 0.1 * (velocity**2).sum(1) + 0.01 * (actions**2).sum(1)
    return np.concatenate([position, velocity], axis=1), -cost


def expert(states: Array) -> Array:
    """
    :param states: ``[n, 4]``.
    :return: Actions ``[n, 2]``
    """
    return np.clip(-states[:, :2] - 0.8 * states[:, 2:], -1.0, 1.0)


class DoubleIntegrator(gym.Env[Array, Array]):
    """The same as an environment."""

    observation_space = OBSERVATIONS
    action_space = ACTIONS

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self._state, self._steps = begin(1, int(self.np_random.integers(2**31))), 0
        return self._state[0].astype(np.float32), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self._state, reward = step(self._state, action[None])
        self._steps += 1
        return self._state[0].astype(np.float32), float(reward[0]), False, self._steps == LENGTH, {}


def record(episodes: int, seed: int = 0) -> OfflineDataset:
    """
    :param episodes: Number of episodes.
    :param seed: Seed of the initial states.
    :return: What the expert does in them
    """
    states, rows = begin(episodes, seed), []
    for number in range(LENGTH):
        actions = expert(states)
        after, rewards = step(states, actions)
        rows.append((states, actions, rewards, after, np.full(episodes, number == LENGTH - 1)))
        states = after
    # Episode by episode.
    before, actions, rewards, after, ends = (
        np.stack(column, axis=1).reshape(episodes * LENGTH, *column[0].shape[1:]) for column in zip(*rows, strict=True)
    )
    return OfflineDataset.from_arrays(
        observations=before.astype(np.float32),
        actions=actions.astype(np.float32),
        rewards=rewards.astype(np.float32),
        next_observations=after.astype(np.float32),
        terminations=np.zeros(len(ends), dtype=bool),
        truncations=ends,
        observation_space=OBSERVATIONS,
        action_space=ACTIONS,
    )


def returns(act: Callable[[Array], Array], states: Array) -> Array:
    """
    :param act: Actions of states, as :func:`expert`.
    :param states: Initial states.
    :return: The return of each episode
    """
    total = np.zeros(len(states))
    for _ in range(LENGTH):
        states, rewards = step(states, act(states))
        total += rewards
    return total


def score(model: BaseAlgorithm) -> float:
    """
    :param model: A model.
    :return: Its mean return in 20 episodes, as a share of the expert's: 0 is to do nothing, 1 is the expert; worse than
        nothing is negative
    """

    def predict(states: Array) -> Array:
        actions, _ = model.predict(states.astype(np.float32), deterministic=True)
        return actions

    states = begin(20, seed=1000)
    reached, best = returns(predict, states).mean(), returns(expert, states).mean()
    nothing = returns(lambda states: np.zeros((len(states), 2)), states).mean()
    return float((reached - nothing) / (best - nothing))
