"""Who plays an episode: an SB3 model or its exported policy, observation by observation."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_sparse.agents.environment import playing
from sb3_sparse.agents.observations import Frames, Observation
from sb3_sparse.runtime import Policy

#: A policy: from one observation, as the environment gives it, and whether it begins an episode, to one action.
Act = Callable[[Observation, bool], NDArray[Any]]
#: Gives the masks of the next action in each environment, ``[environments, choices]``.
Masks = Callable[[], NDArray[Any]]


class Player:
    """
    A policy that plays episodes one after the other in one environment: it keeps the state of ``predict``.

    :param policy: An SB3 model, or an exported policy.
    :param normalization: The statistics of the model's observations, if they are normalized.
    :param masks: Gives the masks of the next action, if the policy takes them.
    :param frames: Stacks and normalizes the environment's observations, if they are not stacked and the policy is a model that
        takes stacks.
    """

    def __init__(
        self,
        policy: BaseAlgorithm | Policy,
        normalization: VecNormalize | None = None,
        masks: Masks | None = None,
        frames: Frames | None = None,
    ) -> None:
        self._predict: Callable[..., Any] = policy.predict
        self._masks = masks
        self._frames = frames
        self._normalize = None if normalization is None or frames is not None else normalization.normalize_obs
        self._state: tuple[NDArray[Any], ...] | None = None

    def __call__(self, observation: Observation, start: bool = False) -> NDArray[Any]:
        """
        :param observation: As the environment gives it.
        :param start: Whether it begins an episode.
        :return: The deterministic action
        """
        if self._frames is not None:
            observation = self._frames(observation, start)
        if self._normalize is not None:
            observation = self._normalize(observation)
        masks = {} if self._masks is None else {"action_masks": self._masks()}
        action, self._state = self._predict(observation, None if start else self._state, deterministic=True, **masks)
        return np.asarray(action)


def find_masks(model: BaseAlgorithm, venv: VecEnv | None) -> Masks | None:
    """
    :param model: An SB3 model.
    :param venv: Environments, which have masks if the model takes them, as :func:`make_environment` checks, or None.
    :return: What gives the masks of their next actions, as sb3-contrib asks for them; None without masks
    """
    return action_masks(venv) if isinstance(model, MaskablePPO) and venv is not None else None


def action_masks(venv: VecEnv) -> Masks:
    """
    :param venv: Environments that have masks.
    :return: What gives the masks of their next actions
    """

    def masks() -> NDArray[Any]:
        with playing(venv):
            return np.asarray(get_action_masks(venv))

    return masks


def model_act(
    model: BaseAlgorithm, normalization: VecNormalize | None, masks: Masks | None = None, frames: Frames | None = None
) -> Player:
    """
    :param model: An SB3 model.
    :param normalization: The statistics of its observations, if they are normalized.
    :param masks: See :class:`Player`.
    :param frames: See :class:`Player`.
    :return: Its deterministic ``predict``, with the observation normalized first
    """
    return Player(model, normalization, masks, frames)
