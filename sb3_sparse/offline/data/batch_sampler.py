"""Minibatches in the form in which a model trains on them."""

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from sb3_sparse.offline.data.checks import space_structure
from sb3_sparse.offline.data.dataset import OfflineBatch, OfflineDataset
from sb3_sparse.offline.data.preprocessing import Preprocessor


class BatchSampler:
    """
    Samples minibatches on the model's device: Box actions scaled to [-1, 1], observations as the environment's wrappers would
    give them (see :class:`Preprocessor`).

    :param dataset: The dataset.
    :param env: The model's environment; it is not stepped.
    :param observation_space: The model's space of observations.
    :param action_space: The model's space of actions.
    :param device: The model's device.
    :raises ValueError: if the dataset does not fit the environment or the model, or SB3 does not support its spaces, or the
        environment normalizes rewards
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
        if dataset.action_space != env.action_space:
            raise ValueError(
                f"the dataset has actions {dataset.action_space}, the environment takes {env.action_space}: use the "
                "environment that the dataset was recorded in"
            )
        same = space_structure(env.observation_space) == space_structure(observation_space)
        if not same or dataset.action_space != action_space:
            raise ValueError(
                f"the dataset has observations {dataset.observation_space} and actions {dataset.action_space}, the model "
                f"was made for {observation_space} and {action_space}: give it the dataset that it was made for, or make a "
                "new model"
            )
        _check_spaces(dataset)
        #: Factor and shift that bring the actions of a Box to [-1, 1]; None where nothing is to do.
        self.scale = _find_scale(dataset.action_space)
        self._preprocess = Preprocessor(dataset, env, device)

    @property
    def normalizes(self) -> bool:
        """Whether the environment has a ``VecNormalize``."""
        return self._preprocess.normalizes

    @property
    def keeps_observations(self) -> bool:
        """Whether the model sees observations as the dataset holds them."""
        return not self._preprocess.changes

    def sample(self, batch_size: int, generator: th.Generator | None) -> OfflineBatch:
        """
        :param batch_size: Number of transitions.
        :param generator: CPU generator of the sample; None takes torch's global one.
        :return: A minibatch; Box actions are flat, ``[n, action_dim]``
        """
        batch = self.dataset.sample(batch_size, generator)
        actions = batch.actions.flatten(1)
        if self.scale is not None:
            factor, shift = self.scale
            actions = actions * factor - shift
        device = self._device
        return OfflineBatch(
            self._preprocess(batch.observations),
            actions.to(device),
            batch.rewards.to(device),
            self._preprocess(batch.next_observations),
            batch.terminations.to(device),
        )


def _find_scale(space: spaces.Space[Any]) -> tuple[Tensor, Tensor] | None:
    """Factor and shift that bring the actions of a Box to [-1, 1]; None where nothing is to do."""
    if not isinstance(space, spaces.Box):
        return None
    low, high = (th.as_tensor(bound.reshape(1, -1)) for bound in (space.low, space.high))
    factor, shift = (2.0 / (high - low)).float(), ((high + low) / (high - low)).float()
    return None if factor.eq(1.0).all() and shift.eq(0.0).all() else (factor, shift)


def _check_spaces(dataset: OfflineDataset) -> None:
    actions, observations = dataset.action_space, dataset.observation_space
    leaves = observations.spaces.values() if isinstance(observations, spaces.Dict) else [observations]
    for space in (actions, *leaves):
        if isinstance(space, spaces.Discrete) and space.start != 0:
            raise ValueError(
                f"Stable-Baselines3 takes discrete spaces that begin at 0, and the dataset has {space}: subtract "
                f"{space.start} from these numbers"
            )
    if isinstance(actions, spaces.Box) and not (actions.low < actions.high).all():
        raise ValueError(
            f"the lower bound of each action must be less than the upper one, and the dataset has {actions}: leave out the "
            "actions that have only one value"
        )
