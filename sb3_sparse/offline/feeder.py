"""What stands between a dataset and a model: minibatches as the model takes them."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, VecTransposeImage, unwrap_vec_normalize, unwrap_vec_wrapper
from torch import Tensor

from sb3_sparse.offline.data import OfflineBatch, OfflineDataset

#: Bytes of transitions that are looked at at a time.
_CHUNK = 2**24

Observations = Tensor | dict[str, Tensor]


def find_dataset(chosen: object, algorithm: str, last: str | None) -> OfflineDataset:
    """
    :param chosen: What a user gave for a dataset: one, or the id of a Minari dataset, which is downloaded if it is not there.
    :param algorithm: Name of the algorithm, for the error.
    :param last: Id of the dataset that a saved model was trained on, for the error.
    :return: The dataset
    :raises ValueError: if this is no dataset
    """
    if isinstance(chosen, str):
        if chosen in gym.registry:
            raise ValueError(f"'{chosen}' is an environment, and {algorithm} takes a dataset in this place: env='{chosen}'")
        return OfflineDataset.from_minari(chosen, download=True)
    if isinstance(chosen, OfflineDataset):
        return chosen
    if chosen is not None:
        raise ValueError(f"{algorithm} takes an OfflineDataset or the id of a Minari dataset, got a {type(chosen).__name__}")
    raise ValueError(
        f"{algorithm} needs a dataset to train on, and a saved model does not hold it{f' ({last})' if last else ''}: "
        f'{algorithm}("MlpPolicy", dataset, ...), or {algorithm}.load(path, dataset=dataset) to go on'
    )


class Feeder:
    """
    Samples minibatches, on the model's device, with Box actions scaled to [-1, 1] and observations as its environment would
    give them: images with the channels first, and normalized if there is a ``VecNormalize``.

    The statistics of a ``VecNormalize`` that is still training are taken from the dataset, and fixed: no other observations
    will come.

    :param dataset: The dataset.
    :param env: The model's environment, which is not stepped in.
    :param observation_space: The model's space of observations.
    :param action_space: The model's space of actions.
    :param device: The model's device.
    :raises ValueError: if the dataset's spaces are not those of the model or none that SB3 can use, or rewards are to be
        normalized
    """

    def __init__(
        self,
        dataset: OfflineDataset,
        env: VecEnv,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: th.device,
    ) -> None:
        self.dataset = dataset
        self.env = env
        self._device = device
        self._transpose = unwrap_vec_wrapper(env, VecTransposeImage)
        self._normalize = unwrap_vec_normalize(env)
        self._check(env)
        if _shape(env.observation_space) != _shape(observation_space) or dataset.action_space != action_space:
            raise ValueError(
                f"the dataset has observations {dataset.observation_space} and actions {dataset.action_space}, the model "
                f"was made for {observation_space} and {action_space}"
            )
        _check_spaces(dataset)
        self._scale: tuple[Tensor, Tensor] | None = None
        if isinstance(dataset.action_space, spaces.Box):
            low, high = (th.as_tensor(x.reshape(1, -1)) for x in (dataset.action_space.low, dataset.action_space.high))
            scale = (2.0 / (high - low)).float(), ((high + low) / (high - low)).float()
            self._scale = None if scale[0].eq(1.0).all() and scale[1].eq(0.0).all() else scale
        if self._normalize is not None and self._normalize.training:
            self._fit()
        elif self._normalize is not None and self._normalize.norm_obs and _is_fresh(self._normalize):
            warnings.warn(
                "VecNormalize has seen no observations and is not to see any (training=False), so it normalizes nothing: "
                "leave training=True, and it gets the dataset's statistics",
                stacklevel=2,
            )

    @property
    def normalizes(self) -> bool:
        """Whether there is a ``VecNormalize``."""
        return self._normalize is not None

    def _check(self, env: VecEnv) -> None:
        if self.dataset.action_space != env.action_space:
            raise ValueError(f"the dataset has actions {self.dataset.action_space}, the environment takes {env.action_space}")
        given, raw = self.dataset.observation_space, env if self._transpose is None else self._transpose.venv
        if _shape(given) != _shape(raw.observation_space):
            if _shape(given) != _shape(env.observation_space):
                raise ValueError(f"the dataset has observations {given}, the environment gives {raw.observation_space}")
            # A replay buffer's images have been transposed before.
            self._transpose = None
        if self._normalize is not None and self._normalize.norm_reward:
            raise ValueError(
                "VecNormalize is to normalize rewards, which it can only do while it steps: give it norm_reward=False "
                "(rl-zoo3: normalize: \"{'norm_obs': True, 'norm_reward': False}\")"
            )

    def _fit(self) -> None:
        assert self._normalize is not None
        self._normalize.training = False
        if not self._normalize.norm_obs:
            return
        count, statistics = len(self.dataset), self._normalize.obs_rms
        by_key = statistics if isinstance(statistics, dict) else {"": statistics}
        fresh = {key: RunningMeanStd(shape=rms.mean.shape) for key, rms in by_key.items()}
        size = max(1, _CHUNK * count // self.dataset.nbytes)
        for start in range(0, count, size):
            batch = self.dataset.batch(np.arange(start, min(start + size, count)))
            observations = self._transposed(_to_numpy(batch.observations))
            for key, rms in fresh.items():
                rms.update(observations[key] if isinstance(observations, dict) else observations)
        for key, rms in by_key.items():
            rms.mean, rms.var, rms.count = fresh[key].mean, fresh[key].var, fresh[key].count

    def sample(self, batch_size: int, generator: th.Generator | None) -> OfflineBatch:
        """
        :param batch_size: Number of transitions.
        :param generator: CPU generator of the draws; None takes torch's global one.
        :return: A minibatch; Box actions are flat, ``[n, action_dim]``
        """
        batch = self.dataset.sample(batch_size, generator)
        actions = batch.actions.flatten(1)
        if self._scale is not None:
            factor, shift = self._scale
            actions = actions * factor - shift
        device = self._device
        return OfflineBatch(
            self._prepare(batch.observations),
            actions.to(device),
            batch.rewards.to(device),
            self._prepare(batch.next_observations),
            batch.terminations.to(device),
        )

    def _prepare(self, observations: Observations) -> Observations:
        if self._transpose is not None or self._normalize is not None:
            prepared = self._transposed(_to_numpy(observations))
            if self._normalize is not None:
                prepared = self._normalize.normalize_obs(prepared)
            if isinstance(prepared, dict):
                return {key: th.as_tensor(value, device=self._device) for key, value in prepared.items()}
            return th.as_tensor(prepared, device=self._device)
        if isinstance(observations, dict):
            return {key: value.to(self._device) for key, value in observations.items()}
        return observations.to(self._device)

    def _transposed(self, observations: Any) -> Any:
        return observations if self._transpose is None else self._transpose.transpose_observations(observations)


def _check_spaces(dataset: OfflineDataset) -> None:
    actions, seen = dataset.action_space, dataset.observation_space
    leaves = seen.spaces.values() if isinstance(seen, spaces.Dict) else [seen]
    for space in (actions, *leaves):
        if isinstance(space, spaces.Discrete) and space.start != 0:
            raise ValueError(f"Stable-Baselines3 takes discrete spaces that begin at 0, and the dataset has {space}")
    if isinstance(actions, spaces.Box) and not (actions.low < actions.high).all():
        raise ValueError(f"the lower bound of each action must be less than the upper one, and the dataset has {actions}")


def _is_fresh(normalize: VecNormalize) -> bool:
    statistics: Any = normalize.obs_rms
    return all(rms.count < 1 for rms in (statistics.values() if isinstance(statistics, dict) else [statistics]))


def _to_numpy(observations: Observations) -> Any:
    if isinstance(observations, dict):
        return {key: value.numpy() for key, value in observations.items()}
    return observations.numpy()


def _shape(space: spaces.Space[Any]) -> object:
    """What of a space a policy cannot do without; bounds of observations change from version to version of an environment."""
    if isinstance(space, spaces.Dict):
        return {key: _shape(value) for key, value in space.spaces.items()}
    return type(space), int(space.n) if isinstance(space, spaces.Discrete) else space.shape
