"""The distributions of an actor-critic policy's actions, as ``stable_baselines3.common.distributions`` has them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch as th

from sb3_sparse.engine.networks.vector import Vector
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Value


class Distribution(ABC):
    """
    A distribution of actions, given what the network of actions computes.

    :param vectors: Parameters that are not the network's.
    """

    #: Type of actions.
    dtype: ClassVar[type[np.generic]] = np.float32

    def __init__(self, vectors: tuple[Vector, ...] = ()) -> None:
        self.vectors = vectors

    @abstractmethod
    def evaluate(self, trace: Trace, outputs: Value, actions: Value) -> tuple[Value, Value]:
        """
        :param trace: Where to write it.
        :param outputs: Outputs of the network.
        :param actions: Actions, as the rollout buffer has them.
        :return: Their log probability, and the entropy
        """

    @abstractmethod
    def mode(self, outputs: Value) -> Value:
        """
        :param outputs: Outputs of the network.
        :return: The most probable action
        """

    @abstractmethod
    def prepare(self, trace: Trace, outputs: Value) -> Value:
        """
        :param trace: Where to write it.
        :param outputs: Outputs of the network.
        :return: What :meth:`sample` needs
        """

    @abstractmethod
    def sample(self, prepared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        :param prepared: What :meth:`prepare` has written, of shape ``[n, features]``.
        :return: Actions, of shape ``[n, components]``, and their log probabilities, of shape ``[n]``
        """


class Gaussian(Distribution):
    """
    Independent normal distributions, whose standard deviations do not depend on the observation.

    :param log_std: Logarithms of the standard deviations.
    """

    def __init__(self, log_std: Vector) -> None:
        super().__init__((log_std,))
        self._log_std = log_std

    def evaluate(self, trace: Trace, outputs: Value, actions: Value) -> tuple[Value, Value]:
        log_std = trace.rows(self._log_std)
        return self._log_prob(outputs, log_std, actions), (log_std + (0.5 + 0.5 * math.log(2.0 * math.pi))).sum()

    def mode(self, outputs: Value) -> Value:
        return outputs

    def prepare(self, trace: Trace, outputs: Value) -> Value:
        log_std = trace.rows(self._log_std)
        actions = outputs + trace.noise(outputs.features) * log_std.exp()
        return trace.concat([actions, self._log_prob(outputs, log_std, actions)])

    def sample(self, prepared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return prepared[:, :-1], prepared[:, -1]

    @staticmethod
    def _log_prob(mean: Value, log_std: Value, actions: Value) -> Value:
        distance = (actions - mean) * (-log_std).exp()
        return (distance.square() * -0.5 - log_std - 0.5 * math.log(2.0 * math.pi)).sum()


class Categorical(Distribution):
    """A choice between actions, whose logits the network computes."""

    dtype = np.int64

    def evaluate(self, trace: Trace, outputs: Value, actions: Value) -> tuple[Value, Value]:
        log_probs = _log_softmax(outputs)
        return log_probs.take(actions, outputs.features), -(log_probs * log_probs.exp()).sum()

    def mode(self, outputs: Value) -> Value:
        return outputs.argmax()

    def prepare(self, trace: Trace, outputs: Value) -> Value:
        log_probs = _log_softmax(outputs)
        return trace.concat([log_probs.exp(), log_probs])

    def sample(self, prepared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probs, log_probs = np.split(prepared, 2, axis=1)
        # As torch's Categorical draws them.
        actions = th.multinomial(th.from_numpy(probs), 1, True).numpy()
        return actions, np.take_along_axis(log_probs, actions, axis=1)[:, 0]


def _log_softmax(logits: Value) -> Value:
    # The largest logit is subtracted for the sake of the exponentials alone.
    shifted = logits - logits.detach().largest()
    return shifted - shifted.exp().sum().log()
