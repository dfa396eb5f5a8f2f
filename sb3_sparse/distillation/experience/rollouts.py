"""
The states that a student learns from: on its own path, on the teacher's, and off both.

A student that has seen the teacher's path alone does not know what to do beside it, and its first mistake leads there. So
states come from whole episodes of the student (Ross et al. 2011, "DAgger"), and from segments of the teacher and of the
student, half of them with noisy actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from sb3_sparse.agents.environment import playing
from sb3_sparse.agents.observations import Observation, is_finite, stack, take
from sb3_sparse.agents.returns import end_game

#: A deterministic policy: a batch of observations as the environment gives them to a batch of actions.
Act = Callable[[Observation], NDArray[Any]]
#: Steps of a segment.
SEGMENTS = (10, 30, 100, 300)
#: Standard deviations of the noise, in half widths of the action space; probabilities of a random discrete action.
NOISE = (0.05, 0.1, 0.2, 0.4)
#: The chance that an episode is the student's alone, without noise; and that a segment of the others is the teacher's.
ALONE, TEACHER = 0.375, 0.25
#: Episodes are said to be endless beyond this many steps, and times the steps that are wanted.
_LONGEST, _ENDLESS = 1_000_000, 10


class Rollouts:
    """
    Plays whole episodes. What happens in a round depends on its seed alone, so that a run can go on after any of them.

    :param env: The environments, whose observations are not normalized.
    :param teacher: The teacher.
    :param masks: Gives the masks of the next actions, ``[environments, choices]``, which random actions obey too; None if all
        actions are allowed.
    """

    def __init__(self, env: VecEnv, teacher: Act, masks: Callable[[], NDArray[Any]] | None = None) -> None:
        self.env = env
        self.teacher = teacher
        self.masks = masks
        self._monitored = all(env.env_is_wrapped(Monitor))

    def play(self, steps: int, seed: int, student: Act | None = None) -> tuple[Observation, list[float]]:
        """
        :param steps: Steps to play at least; the episodes that have begun go on to their end.
        :param seed: Seed of the environments and of all choices.
        :param student: The student; None for the teacher alone.
        :return: The observations, and the returns of episodes that the student, or the teacher without one, played alone
        """
        rng = np.random.default_rng(seed)
        # A game that was left in the middle would go on with its next life.
        with playing(self.env):
            end_game(self.env)
            self.env.seed(int(rng.integers(2**31 - 1)))
            observations: Any = self.env.reset()
        players = [_Player(rng, student is not None) for _ in range(self.env.num_envs)]
        seen: list[Observation] = []
        returns: list[float] = []
        count = 0
        while any(player.playing for player in players):
            actions = self._act(observations, players, student)
            seen += [take(observations, index) for index, player in enumerate(players) if player.playing]
            with playing(self.env):
                observations, rewards, dones, infos = self.env.step(actions)
            for index, player in enumerate(players):
                count += player.playing
                total = player.step(float(rewards[index]))
                if self._monitored:
                    # The end of a game, which may have several lives; its return is that before wrappers change rewards.
                    total, ended = infos[index].get("episode", {}).get("r", total), "episode" in infos[index]
                else:
                    ended = bool(dones[index])
                if player.playing and ended:
                    if player.alone:
                        returns.append(float(total))
                    player.begin(count < steps)
            if count > _ENDLESS * steps + _LONGEST:
                raise ValueError(
                    f"episodes of the environment do not end: {count:,} steps were played, and {steps:,} wanted; wrap it in "
                    "gymnasium.wrappers.TimeLimit"
                )
        found = stack(seen)
        if not is_finite(found):
            raise ValueError("the environment gives observations that are not finite: look for NaN and infinity in it")
        return found, returns

    def _act(self, observations: Observation, players: list[_Player], student: Act | None) -> NDArray[Any]:
        space = self.env.action_space
        if len(players) == 1:
            act = student if student is not None and not players[0].teaches else self.teacher
            actions = act(observations)
        else:
            actions = self.teacher(observations)
            if student is not None:
                own = np.array([not player.teaches for player in players])
                actions = np.where(own.reshape(-1, *[1] * (actions.ndim - 1)), student(observations), actions)
        masks = [None] * len(players) if self.masks is None else self.masks()
        rows = zip(players, actions, masks, strict=True)
        return np.stack([player.disturb(action, space, mask) for player, action, mask in rows])


class _Player:
    """Who plays in one environment."""

    def __init__(self, rng: np.random.Generator, has_student: bool) -> None:
        self._rng = rng
        self._has_student = has_student
        self.begin(True)

    def begin(self, playing: bool) -> None:
        """Begin an episode, or stop."""
        self.playing = playing
        self.total = 0.0
        self.alone = self._rng.random() < ALONE
        self._left = 0
        self._draw()

    def _draw(self) -> None:
        """Draw a segment."""
        rng = self._rng
        self.teaches = not self._has_student or (not self.alone and rng.random() < TEACHER)
        self.noise = 0.0 if self.alone or rng.random() < 0.5 else float(rng.choice(NOISE))
        self._left = int(rng.choice(SEGMENTS))

    def disturb(self, action: NDArray[Any], space: spaces.Space[Any], mask: NDArray[Any] | None) -> NDArray[Any]:
        """The action with this segment's noise, or an allowed one of those that the mask does not exclude."""
        if not self.noise:
            return action
        if isinstance(space, spaces.Box):
            width = (space.high.astype(np.float64) - space.low) / 2
            width = np.where(np.isfinite(width) & (width < 1e6), width, 1.0)
            noisy = action + self.noise * width * self._rng.standard_normal(action.shape)
            return np.clip(noisy, space.low, space.high).astype(action.dtype)
        if self._rng.random() >= self.noise:
            return action
        choices = _choices(space)
        if mask is None:
            high = space.nvec if isinstance(space, spaces.MultiDiscrete) else choices[0]
            return np.asarray(self._rng.integers(high, size=action.shape)).astype(action.dtype)
        allowed = np.split(mask.reshape(-1), np.cumsum(choices)[:-1])
        # As in sb3-contrib, the first one counts as allowed where none is.
        drawn = [self._rng.choice(np.flatnonzero(each)) if each.any() else 0 for each in allowed]
        return np.array(drawn).reshape(action.shape).astype(action.dtype)

    def step(self, reward: float) -> float:
        """Count a step, and draw the next segment where one ends; returns the sum of the episode's rewards."""
        self.total += reward
        self._left -= 1
        if self._left <= 0 and not self.alone:
            self._draw()
        return self.total


def _choices(space: Any) -> list[int]:
    """How many choices each discrete action has."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    return list(map(int, space.nvec.reshape(-1))) if isinstance(space, spaces.MultiDiscrete) else [2] * math.prod(space.shape)
