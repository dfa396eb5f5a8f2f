"""An observation is a row of numbers to the engine. The parts of a ``Dict`` follow each other as in ``CombinedExtractor``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space


def are_vectors(space: spaces.Space[Any]) -> bool:
    """
    :param space: An observation space.
    :return: Whether SB3's networks take its observations as they are: arrays of numbers that are no images, or several of them
    """
    if isinstance(space, spaces.Dict):
        return all(not isinstance(part, spaces.Dict) and are_vectors(part) for part in space.spaces.values())
    return isinstance(space, (spaces.Box, spaces.MultiBinary)) and not is_image_space(space)


def as_rows(observations: Any, space: spaces.Space[Any]) -> np.ndarray | None:
    """
    :param observations: Observations of a space of vectors: an array of shape ``[n, ...]``, or such arrays by name.
    :param space: The space.
    :return: An array of shape ``[n, features]``, or None if they are not a batch
    """
    if not isinstance(space, spaces.Dict):
        is_batch = isinstance(observations, np.ndarray) and observations.shape[1:] == space.shape and len(observations)
        return observations.reshape(len(observations), -1) if is_batch else None
    if not isinstance(observations, Mapping) or not space.spaces.keys() <= observations.keys():
        return None
    parts = [as_rows(observations[name], part) for name, part in space.spaces.items()]
    rows = [part.astype(np.float32) for part in parts if part is not None]
    if len(rows) < len(parts) or len({len(part) for part in rows}) != 1:
        return None
    return np.concatenate(rows, axis=1)
