"""Batches of observations as an environment gives them: arrays, or dicts of arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecNormalize, VecTransposeImage
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

#: One observation or a batch of them.
Observation = NDArray[Any] | dict[str, NDArray[Any]]


def take(observations: Observation, index: int | slice) -> Observation:
    """
    :param observations: A batch.
    :param index: Which of its observations.
    :return: A copy of it, or of them
    """
    if isinstance(observations, dict):
        return {key: array[index].copy() for key, array in observations.items()}
    one: NDArray[Any] = observations[index].copy()
    return one


def is_finite(observations: Observation) -> bool:
    """
    :param observations: A batch.
    :return: Whether there are only finite numbers in it
    """
    arrays = observations.values() if isinstance(observations, dict) else (observations,)
    return all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in arrays)


def length(observations: Observation) -> int:
    """
    :param observations: A batch.
    :return: How many they are
    """
    return len(next(iter(observations.values())) if isinstance(observations, dict) else observations)


def stack(observations: Sequence[Any]) -> Observation:
    """
    :param observations: Single observations, all alike.
    :return: The batch of them
    """
    first: Any = observations[0]
    if isinstance(first, dict):
        return {key: np.stack([each[key] for each in observations]) for key in first}
    return np.stack(observations)


def fits(space: spaces.Space[Any], trained: spaces.Space[Any]) -> bool:
    """
    Whether an environment's observations are like those that a model was trained on. Bounds of observations change between
    versions of an environment and mean nothing to a policy; and SB3 moves the channels of images to the front.

    :param space: The observation space of the environment.
    :param trained: That of the model.
    :return: Whether they have the same type, shape, keys and numbers of classes
    """
    if type(space) is not type(trained):
        return False
    if isinstance(space, spaces.Dict):
        assert isinstance(trained, spaces.Dict)
        return set(space.spaces) == set(trained.spaces) and all(
            fits(each, trained.spaces[key]) for key, each in space.spaces.items()
        )
    if not isinstance(space, spaces.Box):
        return bool(space == trained)
    if is_image_space(space) and is_image_space(trained) and not is_image_space_channels_first(space):
        space = VecTransposeImage.transpose_space(space)
    return space.shape == trained.shape


class Frames:
    """
    The observations of one environment as a model takes them that was trained on stacks of them: stacked as ``VecFrameStack``
    does, and normalized outside or inside of it, as the shape of the statistics says.

    :param space: Space of one frame.
    :param frames: How many there are in a stack.
    :param normalization: The statistics of the model's observations, if they are normalized.
    """

    def __init__(self, space: spaces.Box, frames: int, normalization: VecNormalize | None = None) -> None:
        self._stack: StackedObservations[NDArray[Any]] = StackedObservations(1, frames, space)
        self._normalize = None if normalization is None else normalization.normalize_obs
        statistics = None if normalization is None or not normalization.norm_obs else normalization.obs_rms
        self._inside = statistics is not None and not isinstance(statistics, dict) and statistics.mean.shape == space.shape
        self._begun = False

    def __call__(self, observation: Observation, start: bool = False) -> Observation:
        """
        :param observation: The next frame.
        :param start: Whether it begins an episode.
        :return: The stack that ends in it
        """
        frame: Any = observation if self._normalize is None or not self._inside else self._normalize(observation)
        if start or not self._begun:
            stacked = self._stack.reset(frame[None])
        else:
            stacked, _ = self._stack.update(frame[None], np.zeros(1, bool), [{}])
        self._begun = True
        whole: NDArray[Any] = stacked[0].copy()
        return whole if self._normalize is None or self._inside else self._normalize(whole)


def frame_space(space: spaces.Space[Any], frames: int) -> spaces.Box:
    """
    :param space: The observations of a model that was trained on stacks.
    :param frames: How many frames there are in a stack.
    :return: The space of the newest frame
    """
    assert isinstance(space, spaces.Box)
    axis = 0 if is_image_space(space) else -1
    low, high = (np.split(bound, frames, axis=axis)[-1] for bound in (space.low, space.high))
    return spaces.Box(low, high, dtype=space.dtype.type)
