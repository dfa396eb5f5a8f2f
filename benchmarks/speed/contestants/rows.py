"""The contestants of one network, and whether each acts as it should."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: ``predict`` of SB3, or what is called like it.
Predict = Callable[..., tuple[NDArray[Any], Any]]

#: The contestant that all others are compared with.
BASE = "sb3"
#: A contestant with a larger error than this computes something else: others would have one of nearly 1.
TOLERANCE = 0.25


@dataclass
class Rows:
    """
    The contestants of one network.

    :param observations: What all are given, one after the other.
    :param predicts: The contestants by name.
    :param errors: How far the actions of each are from SB3's with the same weights, or, for a trained agent, from numpy's.
    :param skipped: Why others cannot be had.
    :param networks: What the weights of each sparsity are.
    """

    observations: NDArray[Any]
    predicts: dict[str, Predict] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    networks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, make: Callable[[], Predict], expected: NDArray[Any]) -> None:
        """
        :param name: Name of a contestant.
        :param make: What makes it.
        :param expected: The actions of the first observations.
        :raises RuntimeError: if its actions are others
        """
        try:
            predict = make()
        except (ImportError, RuntimeError, ValueError) as error:
            self.skipped[name] = str(error).splitlines()[0]
            return
        actions = act(predict, self.observations[: len(expected)])
        error = distance(actions, expected)
        if not error <= TOLERANCE:
            raise RuntimeError(f"{name} acts differently: its error is {error:.3f}, and more than {TOLERANCE} is no rounding")
        self.predicts[name], self.errors[name] = predict, error


def act(predict: Predict, observations: NDArray[Any]) -> NDArray[Any]:
    """
    :param predict: A contestant.
    :param observations: Observations.
    :return: Its actions, one per observation
    """
    return np.array([predict(observation, deterministic=True)[0] for observation in observations])


def distance(actions: NDArray[Any], expected: NDArray[Any]) -> float:
    """
    :param actions: Actions, one per observation.
    :param expected: What they ought to be.
    :return: Share of the discrete ones that differ; of continuous ones the mean absolute difference, as a share of how far
        those expected are from their mean
    """
    if expected.dtype.kind == "i":
        return float(np.mean(actions != expected))
    return float(np.abs(actions - expected).mean() / np.abs(expected - expected.mean(axis=0)).mean())
