"""A trained agent as a teacher: how it acts, and what a student learns of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_sparse.agents.observations import Observation, length, take
from sb3_sparse.agents.player import find_masks
from sb3_sparse.distillation.experience.rollouts import Act
from sb3_sparse.distillation.learning.behavior import Behavior, find_behavior
from sb3_sparse.distillation.learning.network import CHUNK, read_network
from sb3_sparse.export.passes import shrink
from sb3_sparse.export.pipeline import read_model
from sb3_sparse.nn import original
from sb3_sparse.runtime import Policy


def fast_act(model: BaseAlgorithm, normalization: VecNormalize | None, env: VecEnv | None) -> Act:
    """
    :param model: A model.
    :param normalization: The statistics of its observations, if they are normalized.
    :param env: The environments that it plays in, which know the masks of a MaskablePPO.
    :return: Its deterministic action, as the exporter computes it with float weights
    :raises ValueError: if the exporter does not know its network
    """
    policy, masks = Policy(shrink(read_model(model, normalization).network)), find_masks(model, env)
    if masks is not None:
        return lambda observations: policy.predict(observations, action_masks=masks())[0]
    return lambda observations: policy.predict(observations)[0]


class Teacher:
    """
    A trained agent.

    :param model: Its model.
    :param normalization: The statistics of its observations, if they are normalized.
    :param env: The environments that it plays in, without normalization.
    :raises ValueError: if its deterministic action does not come from one network of known modules
    """

    def __init__(self, model: BaseAlgorithm, normalization: VecNormalize | None, env: VecEnv | None) -> None:
        self.model, self.normalization, self.env = model, normalization, env
        self.network = read_network(model)
        self.act = fast_act(model, normalization, env)

    def inputs(self, observations: Observation) -> NDArray[np.generic]:
        """
        :param observations: Observations as the environment gives them, ``[n, ...]``.
        :return: What the network takes, of the student as well
        """
        if self.normalization is None and self.network.features_extractor is not None:
            return self._inputs(observations)
        found: NDArray[np.generic] | None = None
        count = length(observations)
        for begin in range(0, count, CHUNK):
            inputs = self._inputs(take(observations, slice(begin, begin + CHUNK)))
            if found is None:
                found = np.empty((count, *inputs.shape[1:]), inputs.dtype)
            found[begin : begin + CHUNK] = inputs
        assert found is not None
        return found

    def _inputs(self, observations: Observation) -> NDArray[np.generic]:
        normalized: Any = observations if self.normalization is None else self.normalization.normalize_obs(observations)
        return self.network.inputs(normalized)

    def behavior(self, inputs: NDArray[np.generic]) -> Behavior:
        """
        :param inputs: Inputs of the network.
        :return: How its actions are learnt
        """
        return find_behavior(original(self.model.policy), self.network.squashed, self.network.outputs(inputs))
