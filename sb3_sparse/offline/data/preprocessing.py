"""Recorded observations in the form in which an environment's wrappers would give them to a policy."""

import warnings
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecTransposeImage, unwrap_vec_normalize, unwrap_vec_wrapper
from torch import Tensor

from sb3_sparse.offline.data.checks import space_structure
from sb3_sparse.offline.data.dataset import OfflineDataset

#: Bytes of transitions that are read at a time.
_CHUNK = 2**24

Observations = Tensor | dict[str, Tensor]


class Preprocessor:
    """
    Applies the ``VecTransposeImage`` and the ``VecNormalize`` of an environment to recorded observations.

    A ``VecNormalize`` that is still training gets its statistics from the dataset, and they are fixed from then on: the model
    steps in no environment, so it will see no other observations.

    :param dataset: The dataset.
    :param env: The model's environment.
    :param device: The model's device.
    :raises ValueError: if the environment gives other observations than the dataset, or normalizes rewards
    """

    def __init__(self, dataset: OfflineDataset, env: VecEnv, device: th.device) -> None:
        self._device = device
        self._transpose = _find_transpose(dataset, env)
        self._normalize = unwrap_vec_normalize(env)
        if self._normalize is None:
            return
        if self._normalize.norm_reward:
            raise ValueError(
                "VecNormalize is set to normalize rewards, which it can only do while the environment steps: give it "
                "norm_reward=False (rl-zoo3: normalize: \"{'norm_obs': True, 'norm_reward': False}\")"
            )
        if self._normalize.training:
            self._normalize.training = False
            if self._normalize.norm_obs:
                self._fit(dataset)
        elif self._normalize.norm_obs and all(rms.count < 1 for rms in self._statistics().values()):
            warnings.warn(
                "VecNormalize has seen no observations and will not see any (training=False), so it normalizes nothing: "
                "leave training=True, and it gets the dataset's statistics",
                stacklevel=2,
            )

    @property
    def normalizes(self) -> bool:
        """Whether the environment has a ``VecNormalize``."""
        return self._normalize is not None

    @property
    def changes(self) -> bool:
        """Whether a wrapper of the environment changes observations."""
        return self._transpose is not None or self._normalize is not None

    def __call__(self, observations: Observations) -> Observations:
        """
        :param observations: As the dataset holds them, ``[n, ...]``, or a dict of them.
        :return: The same on the model's device, images with the channels first, and normalized
        """
        if self.changes:
            prepared = self._transposed(observations)
            if self._normalize is not None:
                prepared = self._normalize.normalize_obs(prepared)
            if isinstance(prepared, dict):
                return {key: th.as_tensor(value, device=self._device) for key, value in prepared.items()}
            return th.as_tensor(prepared, device=self._device)
        if isinstance(observations, dict):
            return {key: value.to(self._device) for key, value in observations.items()}
        return observations.to(self._device)

    def _transposed(self, observations: Observations) -> Any:
        if isinstance(observations, dict):
            arrays: Any = {key: value.numpy() for key, value in observations.items()}
        else:
            arrays = observations.numpy()
        return arrays if self._transpose is None else self._transpose.transpose_observations(arrays)

    def _statistics(self) -> dict[str, RunningMeanStd]:
        assert self._normalize is not None
        statistics = self._normalize.obs_rms
        return statistics if isinstance(statistics, dict) else {"": statistics}

    def _fit(self, dataset: OfflineDataset) -> None:
        count, statistics = len(dataset), self._statistics()
        fresh = {key: RunningMeanStd(shape=rms.mean.shape) for key, rms in statistics.items()}
        size = max(1, _CHUNK * count // dataset.nbytes)
        for start in range(0, count, size):
            batch = dataset.batch(np.arange(start, min(start + size, count)))
            observations = self._transposed(batch.observations)
            for key, rms in fresh.items():
                rms.update(observations[key] if isinstance(observations, dict) else observations)
        for key, rms in statistics.items():
            rms.mean, rms.var, rms.count = fresh[key].mean, fresh[key].var, fresh[key].count


def _find_transpose(dataset: OfflineDataset, env: VecEnv) -> VecTransposeImage | None:
    """The wrapper that brings the dataset's images into the policy's form, if they are not in it already."""
    transpose = unwrap_vec_wrapper(env, VecTransposeImage)
    raw = env if transpose is None else transpose.venv
    given = space_structure(dataset.observation_space)
    if given == space_structure(raw.observation_space):
        return transpose
    if given == space_structure(env.observation_space):
        # A replay buffer holds images that are transposed already.
        return None
    raise ValueError(
        f"the dataset has observations {dataset.observation_space}, the environment gives {raw.observation_space}: use the "
        "environment that the dataset was recorded in"
    )
