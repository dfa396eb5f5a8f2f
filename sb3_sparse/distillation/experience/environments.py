"""The environment of a search, made by its name in every process or open in this one; and the seeds of its episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize

from sb3_sparse.agents.environment import close, make_environment
from sb3_sparse.agents.observations import fits
from sb3_sparse.distillation.experience.source import split_normalization
from sb3_sparse.export.policy import find_normalization
from sb3_sparse.zoo.wrappers import Wrappers

#: Rollouts of a distillation have seeds below 2**31. These begin there, a block for each seed of a search.
_FIRST, _BLOCK, _BLOCKS = 2**31, 2**20, 2**10


@dataclass(frozen=True)
class Seeds:
    """
    Seeds of episodes. What they are for has seeds of its own, and no episode of a training has any of them.

    :param seed: Seed of the search.
    """

    seed: int

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < _BLOCKS:
            raise ValueError(f"seed={self.seed!r} must be a whole number from 0 to {_BLOCKS - 1}")

    def calibration(self) -> int:
        """
        :return: Seed of the first episode to calibrate with
        """
        return self._from(0)

    def selection(self, count: int) -> list[int]:
        """
        :param count: Number of episodes.
        :return: Seeds of the episodes that choices are made by
        """
        return self._range(1, count)

    def fresh(self, count: int) -> list[int]:
        """
        :param count: Number of episodes.
        :return: Seeds of the episodes that results are reported of
        """
        return self._range(2, count)

    def _from(self, part: int) -> int:
        return _FIRST + self.seed * _BLOCK + part * (_BLOCK // 4)

    def _range(self, part: int, count: int) -> list[int]:
        return list(range(self._from(part), self._from(part) + count))


@dataclass(frozen=True)
class NamedEnvironment:
    """
    An environment that is made by its name, in any process.

    :param name: Its name.
    :param kwargs: Its arguments.
    :param wrappers: Its wrappers.
    :param frame_stack: How many observations ``VecFrameStack`` puts together.
    """

    name: str
    kwargs: Mapping[str, object] = field(default_factory=dict)
    wrappers: Wrappers | None = None
    frame_stack: int | None = None

    def make(self, model: BaseAlgorithm) -> VecEnv:
        """
        :param model: The model that plays in it.
        :return: One environment, without normalization
        :raises ValueError: if it cannot be made, or does not fit the model
        """
        return make_environment(self.name, model, self.kwargs, wrapper=self.wrappers, frame_stack=self.frame_stack)

    def close(self, venv: VecEnv) -> None:
        """
        :param venv: What :meth:`make` has made.
        """
        close(venv)

    def __str__(self) -> str:
        return f"{self.name} {dict(self.kwargs)} {self.wrappers} {self.frame_stack}"


@dataclass(frozen=True)
class OpenEnvironment:
    """
    An environment of this process, which others inherit.

    :param venv: One environment, without normalization.
    """

    venv: VecEnv

    def make(self, model: BaseAlgorithm) -> VecEnv:
        """
        :param model: Not used.
        :return: The environment
        """
        return self.venv

    def close(self, venv: VecEnv) -> None:
        """
        :param venv: The environment, which stays open: it is the user's.
        """

    def __str__(self) -> str:
        spec, env = self.venv.get_attr("spec")[0], self.venv.get_attr("unwrapped")[0]
        return str(spec or f"{type(env).__module__}.{type(env).__qualname__}")


def read_environment(
    given: Any, model: BaseAlgorithm, normalization: VecNormalize | None
) -> tuple[NamedEnvironment | OpenEnvironment, VecNormalize | None]:
    """
    :param given: What the user gave.
    :param model: The teacher.
    :param normalization: The statistics of its observations, if they were given.
    :return: The environment, and the statistics
    :raises ValueError: if it is no environment, or several at once
    """
    own = find_normalization(model) if normalization is None else normalization
    if isinstance(given, str):
        return NamedEnvironment(given), own
    if isinstance(given, gym.Env):
        monitored = given if _has_monitor(given) else Monitor(given)
        given = DummyVecEnv([lambda: monitored])
    if not isinstance(given, VecEnv):
        raise ValueError(f"env={repr(given)[:60]} is not an environment, nor the name of one: fit has to play episodes")
    found, given = split_normalization(given)
    own = found if found is not None and normalization is None else own
    if not isinstance(given.unwrapped, DummyVecEnv) or given.num_envs != 1:
        raise ValueError("fit plays in one environment at a time: give its name, or a DummyVecEnv of one")
    if not given.env_is_wrapped(Monitor)[0] and not isinstance(given, VecMonitor):
        given = VecMonitor(given)
    if not fits(given.observation_space, model.observation_space) or given.action_space != model.action_space:
        raise ValueError(
            f"the environment has observations {given.observation_space} and actions {given.action_space}, the model"
            f" {model.observation_space} and {model.action_space}: give what it was trained in"
        )
    return OpenEnvironment(given), own


def _has_monitor(env: gym.Env[Any, Any]) -> bool:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, Monitor):
            return True
        env = env.env
    return False
