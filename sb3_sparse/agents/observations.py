"""Batches of observations as an environment gives them: arrays, or dicts of arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecTransposeImage

#: One observation or a batch of them.
Observation = NDArray[Any] | dict[str, NDArray[Any]]


def take(observations: Observation, index: int) -> Observation:
    """
    :param observations: A batch.
    :param index: Which of its observations.
    :return: A copy of it
    """
    if isinstance(observations, dict):
        return {key: array[index].copy() for key, array in observations.items()}
    one: NDArray[Any] = observations[index].copy()
    return one


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
