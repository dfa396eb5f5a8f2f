"""The environment that an agent plays in, wrapped as SB3 wraps it for training."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from textwrap import shorten
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import is_masking_supported
from stable_baselines3.common.atari_wrappers import AtariWrapper, EpisodicLifeEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import is_wrapped, make_vec_env
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from sb3_sparse.agents.observations import fits
from sb3_sparse.pixels.atari import is_atari
from sb3_sparse.zoo.notation import brief


def make_environment(
    env: str,
    model: BaseAlgorithm | None,
    env_kwargs: Mapping[str, object] | None = None,
    *,
    wrapper: Callable[[gym.Env], gym.Env] | None = None,
    frame_stack: int | None = None,
) -> VecEnv:
    """
    One environment in a ``VecEnv``. Its observations are not normalized, and numpy's global generator stays as it is. Without
    wrappers and a stack, an Atari game that is played from images gets SB3's wrapper, and as many stacked frames as the model
    was trained on.

    :param env: Name of the environment. Of one that is gone, the next version that exists is made, and a line says so.
    :param model: The model that will play in it; None if it is not known, then nothing of it is checked.
    :param env_kwargs: Arguments of the environment.
    :param wrapper: What wraps the environment, such as :class:`~sb3_sparse.zoo.wrappers.Wrappers`.
    :param frame_stack: How many observations ``VecFrameStack`` puts together.
    :return: The environment
    :raises ValueError: if it cannot be made, or the model does not fit it
    """
    # Registers MinAtar's games.
    import_module("sb3_sparse.pixels.minatar")
    if env.split(":")[-1] not in gym.registry:
        with suppress(ImportError):
            # Registers the environments without velocities, and those of the packages that rl-zoo3 knows.
            import_module("rl_zoo3.import_envs")
    kwargs: dict[str, Any] = dict(env_kwargs or {})
    frames = frame_stack
    if model is not None:
        frames = stacked_frames(env, model, wrapped=wrapper is not None, frame_stack=frame_stack)
    if frames != frame_stack:
        wrapper, frame_stack = AtariWrapper, frames
    try:
        found = _find_version(env, kwargs)
        with _unmoved_generator():
            venv = make_vec_env(lambda: gym.make(found, **kwargs), n_envs=1, wrapper_class=lambda inner: _wrap(inner, wrapper))
    except Exception as error:  # An environment may raise anything.
        reason = str(error) if isinstance(error, (gym.error.Error, ImportError, ValueError)) else repr(error)
        way_out = f" with {brief(kwargs)}: {reason}; give its arguments with --env-kwargs" if kwargs else f": {reason}"
        raise ValueError(f"the environment '{env}' cannot be made{way_out}") from error
    try:
        if frame_stack is not None:
            venv = _stack(found, venv, model, frame_stack)
        if model is not None:
            _check_spaces(found, venv, model)
        if isinstance(model, MaskablePPO) and not is_masking_supported(venv):
            raise ValueError(
                f"{found} has no action_masks(), and the model, a MaskablePPO, chooses among the actions that it allows: "
                "give the wrapper that has it with --env-wrapper"
            )
    except ValueError:
        venv.close()
        raise
    if found != env:
        print(f"{env} is gone, so {found} is used instead", flush=True)
    return venv


@contextmanager
def _unmoved_generator() -> Iterator[None]:
    """SB3 draws the seed of environments from numpy's global generator, which is the user's."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)


@contextmanager
def playing(venv: VecEnv) -> Iterator[None]:
    """
    While an environment is asked for something.

    :param venv: The environment, for its name.
    :raises ValueError: if the environment raises any error, which is its cause
    """
    try:
        yield
    except Exception as error:  # An environment may raise anything.
        reason = shorten(f"{type(error).__name__}: {error}", 300, placeholder=" ...")
        raise ValueError(
            f"the environment '{_name(venv)}' failed while an episode was played ({reason}): make it as it was in training "
            "with --env-kwargs and --env-wrapper; compress works without --env as well, without calibration and returns"
        ) from error


def close(venv: VecEnv | None) -> None:
    """
    :param venv: An environment, if there is one. An error that it raises at its end says nothing about a policy.
    """
    with suppress(Exception):
        if venv is not None:
            venv.close()


def _name(venv: VecEnv) -> str:
    with suppress(Exception):
        return str(venv.get_attr("spec")[0].id)
    return "without a name"


def stacked_frames(
    env: str | None, model: BaseAlgorithm, *, wrapped: bool = False, frame_stack: int | None = None
) -> int | None:
    """
    :param env: Name of the environment, if it is known.
    :param model: The model that will play in it.
    :param wrapped: Whether there is a wrapper, if only an empty one.
    :param frame_stack: How many observations ``VecFrameStack`` puts together, if that is said.
    :return: The same number; that of an Atari game is by default the one that its model was trained on
    """
    if wrapped or frame_stack is not None or env is None or not is_image_space(model.observation_space) or not is_atari(env):
        return frame_stack
    return min(model.observation_space.shape or (1,))


class _Ends(gym.Wrapper[Any, Any, Any, Any]):
    """The return of an episode that a wrapper ends before its environment does; SB3's ``Monitor`` is inside of the wrapper."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """
        :param action: An action.
        :return: What the environment answers
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        if (terminated or truncated) and "episode" not in info:
            info["episode"] = {"r": sum(self.get_wrapper_attr("rewards"))}
        return observation, reward, terminated, truncated, info


def _wrap(env: gym.Env, wrapper: Callable[[gym.Env], gym.Env] | None) -> gym.Env:
    wrapped = env if wrapper is None else wrapper(env)
    # A game of Atari goes on after a life is lost.
    return wrapped if wrapper is None or is_wrapped(wrapped, EpisodicLifeEnv) else _Ends(wrapped)


def _stack(env: str, venv: VecEnv, model: BaseAlgorithm | None, frames: int) -> VecEnv:
    """Before any memory is taken, for the number may come from anybody's file."""
    space = venv.observation_space
    if not isinstance(space, spaces.Box) or frames < 1:
        raise ValueError(f"{frames} observations of {env}, {space}, cannot be stacked: that takes a Box, and 1 at least")
    shape = None if model is None else model.observation_space.shape
    if model is not None and (shape is None or math.prod(space.shape) * frames != math.prod(shape)):
        raise ValueError(f"{frames} stacked observations of {env}, {space}, are not {model.observation_space} of the model")
    return VecFrameStack(venv, n_stack=frames)


def _find_version(env: str, kwargs: Mapping[str, Any]) -> str:
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
    if not fits(observations, model.observation_space):
        raise ValueError(
            f"{env} has observations {observations}, the model was trained on {model.observation_space}: make the "
            "environment as it was in training with --env-kwargs, --env-wrapper or --frame-stack"
        )
    # Bounds of actions matter, those of observations do not.
    if actions != model.action_space:
        raise ValueError(f"{env} has actions {actions}, the model was trained on {model.action_space}")
