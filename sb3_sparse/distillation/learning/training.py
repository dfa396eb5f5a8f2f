"""
The training of a student's network, as an SB3 algorithm: callbacks prune, rewire and quantize it, and it trains in the engine.

Its clock counts gradient updates. It trains a copy of the student's network on normalized inputs; the student itself gets the
moving average of these weights once per round, and that is what plays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, cast

import numpy as np
import torch as th
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from sb3_sparse.distillation.learning.behavior import Behavior
from sb3_sparse.distillation.learning.network import ActionNetwork, detached, read_network
from sb3_sparse.distillation.learning.states import States
from sb3_sparse.distillation.learning.update import DistillationUpdate
from sb3_sparse.nn import InputGrid, MaskedLayer, WeightGrid, flush_moments, fuse_adam, input_grids
from sb3_sparse.offline.loop import UpdateLoop
from sb3_sparse.offline.spaces_env import make_spaces_env
from sb3_sparse.offline.update import LossMeans

#: Name of the network for callbacks.
NETWORK = "student"
#: Updates between two calls of the callbacks; the moving average follows as often.
BLOCK = 50


class DistillationPolicy(nn.Module):
    """
    What callbacks find under ``model.policy``: one network with its optimizer.

    :param student: The network.
    :param space: Space of its inputs.
    :param learning_rate: Learning rate at the start.
    """

    def __init__(self, student: ActionNetwork, space: spaces.Space[Any], learning_rate: float) -> None:
        super().__init__()
        self.student = student
        self.optimizer = th.optim.Adam(student.parameters(), lr=learning_rate)
        fuse_adam(self.optimizer)
        self.observation_space = space


class Distillation(UpdateLoop):
    """
    Training of a student's network on states and what its teacher does in them. A round is some updates between two calls of
    ``begin_round``, which may add states.

    :param student: The student, whose network is copied.
    :param behavior: How actions are learnt.
    :param states: The states.
    :param learning_rate: Learning rate by the remaining progress, 1 to 0.
    :param round_updates: Updates in a round, a multiple of ``BLOCK``.
    :param begin_round: Called before a round with its number; says whether to go on.
    :param batch_size: States per update.
    :param average: Decay of the moving average of the weights in one update.
    :param seed: Seed of the minibatches.
    :param verbose: Verbosity level, as in SB3.
    """

    #: How the engine computes an update.
    engine_update: ClassVar[type] = DistillationUpdate
    updates_per_call: ClassVar[int] = BLOCK
    policy: Any

    def __init__(
        self,
        student: BaseAlgorithm,
        behavior: Behavior,
        states: States,
        learning_rate: Schedule,
        *,
        round_updates: int,
        begin_round: Callable[[int], bool],
        batch_size: int = 256,
        average: float = 0.999,
        seed: int = 0,
        verbose: int = 0,
    ) -> None:
        env = make_spaces_env(student.observation_space, student.action_space)
        super().__init__(cast(Any, DistillationPolicy), env, learning_rate, device=student.device, verbose=verbose)
        self.student, self.behavior, self.states = student, behavior, states
        self.round_updates, self.begin_round = round_updates, begin_round
        self.batch_size, self.average, self.draw_seed = batch_size, average, seed
        self._network = read_network(student)
        self._means = LossMeans()
        self._rows, self._block = np.zeros((0, 0), np.int64), -1
        self._setup_model()

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        network, inputs = detached(self._network), self.states.inputs
        if network.first is not None:
            self.states.fold(network.first)
        space = spaces.Box(-np.inf, np.inf, inputs.shape[1:]) if network.features_extractor is None else self.observation_space
        self.policy = DistillationPolicy(network, space, self.lr_schedule(1)).to(self.device)
        self.averages = [parameter.detach().clone() for parameter in self.policy.student.parameters()]
        #: What a run which goes on begins with, by layer: grids of weights and of inputs.
        self.saved_grids: tuple[dict[str, WeightGrid], dict[str, InputGrid]] = {}, {}

    def _prepare(self) -> None:
        """The states are there."""

    def rows(self, update: int) -> NDArray[np.int64]:
        """
        :param update: Number of an update.
        :return: The states of its minibatch, which follow from the seed, the number and how many states there are
        """
        block, index = divmod(update, BLOCK)
        if block != self._block or index == 0:
            rng = np.random.default_rng([self.draw_seed, block])
            self._rows, self._block = rng.integers(len(self.states), size=(BLOCK, self.batch_size)), block
        rows: NDArray[np.int64] = self._rows[index]
        return rows

    def train(self, gradient_steps: int, batch_size: int) -> None:
        policy, device = self.policy, self.device
        self._update_learning_rate(policy.optimizer)
        for _ in range(gradient_steps):
            rows = self.rows(self._n_updates)
            inputs, targets = (th.as_tensor(table[rows], device=device) for table in (self.states.inputs, self.states.targets))
            loss = self.behavior.loss(policy.student(inputs), targets)
            policy.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            policy.optimizer.step()
            self._means.add(NETWORK, loss.detach())
            self._n_updates += 1
        flush_moments(policy.optimizer)

    def _before_train(self) -> bool:
        return self._n_updates % self.round_updates != 0 or self.begin_round(self._n_updates // self.round_updates)

    def _tell(self, callback: BaseCallback, variables: dict[str, Any]) -> bool:
        goes_on = super()._tell(callback, variables)
        self._follow()
        return goes_on

    @th.no_grad()
    def _follow(self) -> None:
        """Let the averages follow the weights; they have no pruned weights either."""
        student = self.policy.student
        weights = list(student.parameters())
        if self.grids:
            # Weights near the middle between two values change sides again and again: the grid's values for the average are
            # not those that the others have learnt to go with.
            th._foreach_copy_(self.averages, weights)
            return
        th._foreach_lerp_(self.averages, weights, 1 - self.average**BLOCK)
        masks = {layer.weight: layer.mask for layer in student.modules() if isinstance(layer, MaskedLayer)}
        for weight, average in zip(weights, self.averages, strict=True):
            if weight in masks:
                average.mul_(masks[weight])

    @th.no_grad()
    def take_averages(self) -> None:
        """Go on from the averages of the weights."""
        th._foreach_copy_(list(self.policy.student.parameters()), self.averages)

    @property
    def grids(self) -> dict[str, WeightGrid]:
        """By layer: the grids that weights are on."""
        layers = self.policy.student.named_modules()
        return {
            name: part.weight_grid for name, part in layers if isinstance(part, MaskedLayer) and part.weight_grid is not None
        }

    @th.no_grad()
    def publish(self) -> None:
        """Give the student the averages, on the grid if there is one, as they act on inputs that are not normalized."""
        names = [name.removesuffix(".weight") for name, _ in self.policy.student.named_parameters()]
        grids = self.grids
        for name, parameter, average in zip(names, self._network.parameters(), self.averages, strict=True):
            parameter.copy_(grids[name](average) if name in grids else average)
        if self._network.first is not None:
            self.states.unfold(self._network.first)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the student with the present averages, as its own ``save`` does."""
        self.publish()
        self.student.save(*args, **kwargs)

    def predict(self, observation: Any, *args: Any, **kwargs: Any) -> Any:
        """As the student does, with the averages of the last round."""
        return self.student.predict(observation, *args, **kwargs)

    def saved(self) -> dict[str, Any]:
        """
        :return: Everything that :meth:`put_back` needs, as plain values and tensors
        """
        policy = self.policy
        return {
            "weights": [parameter.detach() for parameter in policy.student.parameters()],
            "optimizer": policy.optimizer.state_dict(),
            "averages": self.averages,
            "inputs": {name: grid.numbers() for name, grid in input_grids(policy.student).items()},
            "grids": {name: (grid.bits, grid.scale.clone()) for name, grid in self.grids.items()},
            "sparsity_state": vars(self).get("sparsity_state", {}),
            "updates": self._n_updates,
        }

    @th.no_grad()
    def put_back(self, saved: dict[str, Any]) -> None:
        """
        Go on as :meth:`saved` said. The masks follow when the callbacks start.

        :param saved: What it returned.
        """
        policy = self.policy
        for parameter, weight in zip(policy.student.parameters(), saved["weights"], strict=True):
            parameter.copy_(weight)
        policy.optimizer.load_state_dict(saved["optimizer"])
        for average, value in zip(self.averages, saved["averages"], strict=True):
            average.copy_(value)
        self.saved_grids = (
            {name: WeightGrid(bits, scale.to(self.device)) for name, (bits, scale) in saved.get("grids", {}).items()},
            {name: InputGrid.from_numbers(grid).to(self.device) for name, grid in saved.get("inputs", {}).items()},
        )
        self.sparsity_state = saved["sparsity_state"]
        self.num_timesteps = self._n_updates = saved["updates"]
