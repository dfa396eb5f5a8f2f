"""
An action as the teacher's critics judge it: what a student that cannot do everything as its teacher does should do instead.

The squared error of an action counts each of its deviations alike. The critics know which of them cost return: the return that
a student loses against its teacher is, over the states that the student visits, the mean of ``Q(s, teacher) - Q(s, student)``
with the Q of the teacher (Kakade and Langford 2002).
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch as th
from sb3_contrib.crossq.policies import CrossQCritic
from sb3_contrib.tqc.policies import Critic
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ContinuousCritic
from torch import Tensor, nn

from sb3_sparse.distillation.learning.behavior import Behavior
from sb3_sparse.nn import original

if TYPE_CHECKING:
    from sb3_sparse.distillation.learning.behavior import Networks
    from sb3_sparse.engine.program.value import Value

#: What a value counts against the squared error, in units of the mean value.
WEIGHT = 20.0


@dataclass(frozen=True)
class Valued(Behavior):
    """
    The loss of TD3+BC (Fujimoto and Gu 2021): ``imitation - weight * Q(s, a) / scale``. Q is the mean over the critics, and
    over the quantiles of each. A target is the teacher's action, followed by the observation.

    :param imitation: How far an action is from the teacher's.
    :param frozen: The networks of the critics.
    :param actions: Numbers of an action.
    :param weight: What a value counts.
    :param scale: The mean of ``|Q|``.
    """

    imitation: Behavior
    actions: int
    weight: float
    scale: float
    frozen: Sequence[nn.Module] = ()

    def targets(self, outputs: Tensor) -> Tensor:
        # The outputs do not tell the observation: whoever keeps the states appends it.
        return self.imitation.targets(outputs)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        target, observations = targets[:, : self.actions], targets[:, self.actions :]
        inputs = th.cat([observations, outputs.tanh()], dim=1)
        value = sum((network(inputs).mean() for network in self.frozen), outputs.new_zeros(())) / len(self.frozen)
        return self.imitation.loss(outputs, target) - self.weight / self.scale * value

    def equation(self, outputs: Value, targets: Value, frozen: Networks = ()) -> Value:
        target, observations = targets[: self.actions], targets[self.actions :]
        trace: Any = outputs.trace
        inputs = trace.concat([observations, outputs.tanh()])
        value = reduce(operator.add, (network(inputs).mean() for network in frozen)) / len(frozen)
        loss: Value = self.imitation.equation(outputs, target) - value * (self.weight / self.scale)
        return loss


def find_critics(model: BaseAlgorithm) -> list[nn.Module]:
    """
    :param model: A trained model.
    :return: Copies of its critics' networks, from an observation and an action in [-1, 1] to a value or its quantiles
    :raises ValueError: if it has no critics of actions, or they do not read the observation as it is
    """
    critic: Any = getattr(original(model.policy), "critic", None)
    if not isinstance(critic, (ContinuousCritic, Critic, CrossQCritic)):
        raise ValueError(
            f"{type(model).__name__} has no critics that judge actions, as SAC, TD3, DDPG, TQC and CrossQ have: leave"
            " critic_updates out"
        )
    if any(True for _ in critic.features_extractor.parameters()):
        raise ValueError(
            f"the critics of this {type(model).__name__} read a features extractor with weights: leave critic_updates out"
        )
    return [copy.deepcopy(network).eval().requires_grad_(False) for network in critic.q_networks]


@th.no_grad()
def value_actions(imitation: Behavior, critics: Sequence[nn.Module], observations: Tensor, actions: Tensor) -> Valued:
    """
    :param imitation: How far an action is from the teacher's.
    :param critics: What :func:`find_critics` returned.
    :param observations: Observations, ``[n, features]``.
    :param actions: The teacher's actions there, in [-1, 1].
    :return: How actions are learnt through these critics
    """
    inputs = th.cat([observations, actions], dim=1).to(next(critics[0].parameters()).device)
    scale = float(sum(critic(inputs).mean(dim=1) for critic in critics).abs().mean()) / len(critics)
    return Valued(imitation, actions.shape[1], WEIGHT, max(scale, 1e-6), critics)
