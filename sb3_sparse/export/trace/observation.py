"""
An observation space as a network reads it: one array of numbers, or parts that become one vector, as SB3's ``preprocess_obs``
and ``CombinedExtractor`` make it; and the statistics of ``VecNormalize`` in the same order.
"""

from collections.abc import Collection, Mapping
from types import MethodType
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from sb3_sparse.runtime.network.records import Floats, Normalize, Part, Shape

#: The methods by which a ``VecNormalize`` normalizes an observation.
_NORMALIZING = ("normalize_obs", "_normalize_obs")


def read_part(key: str, space: spaces.Space[Any]) -> Part:
    """
    :param key: Name of an observation; "" for a whole one.
    :param space: Its space.
    :return: The part of the vector that it becomes
    :raises ValueError: if it cannot be exported
    """
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return Part(key, tuple(map(int, space.shape)))
    if isinstance(space, spaces.Discrete):
        return Part(key, (), (int(space.n),))
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return Part(key, tuple(space.shape), tuple(map(int, space.nvec)))
    name = f"the observation '{key}' is" if key else "the observations are"
    raise ValueError(
        f"{name} of {space}, which cannot be exported: known are Box, Discrete, MultiDiscrete of one dimension, MultiBinary, "
        "and a Dict of them"
    )


def read_statistics(normalization: VecNormalize | None, space: spaces.Space[Any]) -> dict[str, RunningMeanStd]:
    """
    :param normalization: The ``VecNormalize`` that a model was trained in, if it was.
    :param space: The model's observation space.
    :return: The statistics of what is normalized, by the key of its part; "" where the space is not a ``Dict``
    :raises ValueError: if they do not fit the space, or the class normalizes in a way of its own
    """
    if normalization is None or not normalization.norm_obs:
        return {}
    own = [
        name for name in _NORMALIZING if getattr(normalization, name) != MethodType(getattr(VecNormalize, name), normalization)
    ]
    if own:
        raise ValueError(
            f"{type(normalization).__name__} normalizes observations by a {own[0]}() of its own, which cannot be exported: "
            "train with VecNormalize itself"
        )
    found = normalization.obs_rms
    if isinstance(found, dict) != isinstance(space, spaces.Dict):
        has, needs = ("have names", "none") if isinstance(found, dict) else ("have no names", "some")
        raise ValueError(f"the observations in the statistics of VecNormalize {has}, and those of the model have {needs}")
    statistics = {key: found[key] for key in normalization.norm_obs_keys or ()} if isinstance(found, dict) else {"": found}
    for key, each in statistics.items():
        _check_shape(key, each.mean.shape, space.spaces.get(key) if isinstance(space, spaces.Dict) else space)
    return statistics


def _check_shape(key: str, shape: Shape, space: spaces.Space[Any] | None) -> None:
    of = f"'{key}' of " if key else ""
    if not isinstance(space, spaces.Box):
        raise ValueError(f"the statistics of VecNormalize are of {of}observations, which the model has not as a Box: {space}")
    expected = tuple(space.shape)
    if shape != expected:
        frames = 0 < len(shape) == len(expected) and shape[:-1] == expected[:-1] and expected[-1] % shape[-1] == 0
        order = (
            f": VecFrameStack around VecNormalize is exported with frame_stack={expected[-1] // shape[-1]} (--one-frame on a "
            "command line), which makes the stack a part of the policy; VecNormalize around VecFrameStack also without"
            if frames
            else ""
        )
        raise ValueError(
            f"the statistics of VecNormalize are of {of}observations of shape {shape}, those of the model have shape "
            f"{expected}{order}"
        )


def normalize_array(statistics: RunningMeanStd, normalization: VecNormalize | None) -> Normalize:
    """
    :param statistics: The statistics of one array.
    :param normalization: Their ``VecNormalize``.
    :return: The normalization of this array
    """
    assert normalization is not None
    mean, scale = _constants(statistics, normalization)
    return Normalize(mean, scale, float(normalization.clip_obs))


def normalize_parts(
    parts: tuple[Part, ...],
    statistics: Mapping[str, RunningMeanStd],
    normalization: VecNormalize | None,
    encoders: Collection[str],
) -> Normalize | None:
    """
    :param parts: The parts of an observation.
    :param statistics: The statistics of what is normalized, by key.
    :param normalization: Their ``VecNormalize``.
    :param encoders: The keys of the parts that are features of an encoder, which normalizes its input itself.
    :return: The normalization of the vector; None if nothing in it is normalized
    """
    normalized = {part.key for part in parts if part.key in statistics and part.key not in encoders}
    if normalization is None or not normalized:
        return None
    size, start = sum(part.width for part in parts), 0
    mean, scale = np.zeros(size, np.float32), np.ones(size, np.float32)
    limit = np.full(size, np.inf, np.float32)
    for part in parts:
        stretch = slice(start, start := start + part.width)
        if part.key in normalized:
            mean[stretch], scale[stretch] = (each.reshape(-1) for each in _constants(statistics[part.key], normalization))
            limit[stretch] = normalization.clip_obs
    return Normalize(mean, scale, limit if len(normalized) < len(parts) else float(normalization.clip_obs))


def _constants(statistics: RunningMeanStd, normalization: VecNormalize) -> tuple[Floats, Floats]:
    scale = 1 / np.sqrt(statistics.var + normalization.epsilon)
    return statistics.mean.astype(np.float32), np.asarray(scale, np.float32)
