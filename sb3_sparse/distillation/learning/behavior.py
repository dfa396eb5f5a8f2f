"""
What a student learns of its teacher: the outputs behind a deterministic action, and how far two of them are apart.

Each kind of action has a :class:`Behavior`. It says what of the teacher's outputs is a target, and the loss of a student's
outputs, once in torch and once as equations of the engine.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.dqn.policies import DQNPolicy
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from sb3_sparse.engine.program.value import Value

    #: Networks as functions of a batch.
    Networks = Sequence[Callable[[Value], Value]]

#: Means of a squashed Gaussian count up to here: tanh(3) is 0.995.
_LARGEST_MEAN = 3.0
#: The temperature of values, in standard deviations of the advantages over states and actions.
_TEMPERATURE = 0.1


class Behavior(ABC):
    """The actions of one kind, as targets and a loss."""

    #: Networks that the loss reads and that are not trained.
    frozen: Sequence[nn.Module] = ()

    @abstractmethod
    def targets(self, outputs: Tensor) -> Tensor:
        """
        :param outputs: Outputs of the teacher's network, ``[n, outputs]``.
        :return: What a student learns, ``[n, targets]``
        """

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """
        :param outputs: Outputs of the student's network, ``[n, outputs]``.
        :param targets: Targets of the same states.
        :return: The mean loss
        """

    @abstractmethod
    def equation(self, outputs: Value, targets: Value, frozen: Networks = ()) -> Value:
        """
        :param outputs: As in :meth:`loss`.
        :param targets: Likewise.
        :param frozen: The networks of :attr:`frozen`.
        :return: The loss of each sample, for the engine
        """


class Squashed(Behavior):
    """
    The tanh of a mean (SAC, TQC, CrossQ), or of an output (TD3, DDPG): the squared error of the action, ``[-1, 1]`` each.
    Outputs beyond 3 count as 3.
    """

    def targets(self, outputs: Tensor) -> Tensor:
        return outputs.clamp(-_LARGEST_MEAN, _LARGEST_MEAN).tanh()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs.tanh(), targets)

    def equation(self, outputs: Value, targets: Value, frozen: Networks = ()) -> Value:
        return (outputs.tanh() - targets).square().mean()


@dataclass(frozen=True)
class Clipped(Behavior):
    """
    The mean of a Gaussian that is clipped to the action space (PPO, A2C, TRPO): the squared error in half widths of the space.
    What lies beyond a bound counts as the bound. A student beyond the bound at which its teacher acts makes no error either:
    otherwise its network would spend weights on bends that the clipping makes anyway.

    :param low: Lower bounds, ``[actions]``.
    :param high: Upper bounds, ``[actions]``.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]

    @property
    def _scale(self) -> NDArray[np.float32]:
        width = (self.high.astype(np.float64) - self.low) / 2
        return np.where(np.isfinite(width) & (width < 1e6), width, 1.0).astype(np.float32)

    def targets(self, outputs: Tensor) -> Tensor:
        low, high = (th.as_tensor(bound, device=outputs.device) for bound in (self.low, self.high))
        return outputs.clamp(low, high) / th.as_tensor(self._scale, device=outputs.device)

    @property
    def _ends(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self.low / self._scale, self.high / self._scale

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        scale, low, high = (th.as_tensor(each, device=outputs.device) for each in (self._scale, *self._ends))
        error = outputs / scale - targets
        above, below = error.relu() * (targets < high), (-error).relu() * (low < targets)
        return (above + below).square().mean()

    def equation(self, outputs: Value, targets: Value, frozen: Networks = ()) -> Value:
        trace: Any = outputs.trace
        low, high = map(trace.constant, self._ends)
        error = outputs * trace.constant(1 / self._scale) - targets
        above, below = error.relu() * targets.less(high), (-error).relu() * low.less(targets)
        loss: Value = (above + below).square().mean()
        return loss


@dataclass(frozen=True)
class Choice(Behavior):
    """
    The choice among discrete actions: the cross-entropy between the teacher's probabilities and the student's.

    :param groups: Number of choices of each action; those of a ``MultiDiscrete`` space follow each other.
    :param temperature: What outputs are divided by. 1 for logits. Values (DQN, QRDQN) take the softmax of values over the
        temperature (Rusu et al. 2016, "Policy distillation"), so that the student's values have the teacher's differences.
    """

    groups: tuple[int, ...]
    temperature: float = 1.0

    def targets(self, outputs: Tensor) -> Tensor:
        parts = th.split(outputs, list(self.groups), dim=1)
        return th.cat([(part / self.temperature).softmax(dim=1) for part in parts], dim=1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        parts = zip(th.split(outputs, list(self.groups), dim=1), th.split(targets, list(self.groups), dim=1), strict=True)
        return sum((F.cross_entropy(part / self.temperature, target) for part, target in parts), outputs.new_zeros(()))

    def equation(self, outputs: Value, targets: Value, frozen: Networks = ()) -> Value:
        logits, ends = outputs / self.temperature, np.cumsum(self.groups)
        parts = [slice(int(end) - size, int(end)) for size, end in zip(self.groups, ends, strict=True)]
        losses = [self._cross_entropy(logits[part], targets[part]) for part in parts]
        return reduce(operator.add, losses)

    @staticmethod
    def _cross_entropy(logits: Value, targets: Value) -> Value:
        # The largest one cancels out, so it needs no gradient.
        shifted = logits - logits.largest().detach()
        return shifted.exp().sum().log() - (shifted * targets).sum()


class Switches(Behavior):
    """Actions that are on or off (``MultiBinary``): the binary cross-entropy, summed over the actions."""

    def targets(self, outputs: Tensor) -> Tensor:
        return outputs.sigmoid()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").sum(dim=1).mean()

    def equation(self, outputs: Value, targets: Value, frozen: Networks = ()) -> Value:
        # log(1 + exp(x)) - t * x, without an overflow.
        softplus = outputs.relu() + ((-outputs.abs()).exp() + 1.0).log()
        return (softplus - targets * outputs).sum()


def find_behavior(policy: BasePolicy, squashed: bool, outputs: Tensor) -> Behavior:
    """
    :param policy: The teacher's policy.
    :param squashed: Whether a tanh is behind its outputs.
    :param outputs: Some of its outputs, ``[n, outputs]``.
    :return: How its actions are learnt
    :raises ValueError: if they cannot be
    """
    space = policy.action_space
    if isinstance(space, spaces.Box):
        low, high = (bound.reshape(-1).astype(np.float32) for bound in (space.low, space.high))
        return Squashed() if squashed else Clipped(low, high)
    if isinstance(space, spaces.MultiBinary) and outputs.shape[1] == int(np.prod(space.shape)):
        return Switches()
    if isinstance(space, spaces.MultiBinary):
        # MaskablePPO chooses between off and on.
        return Choice((2,) * int(np.prod(space.shape)))
    groups = (int(space.n),) if isinstance(space, spaces.Discrete) else tuple(map(int, space.nvec))  # type: ignore[attr-defined]
    if isinstance(policy, (DQNPolicy, QRDQNPolicy)):
        spread = float((outputs - outputs.mean(dim=1, keepdim=True)).std())
        return Choice(groups, max(_TEMPERATURE * spread, 1e-6))
    return Choice(groups)
