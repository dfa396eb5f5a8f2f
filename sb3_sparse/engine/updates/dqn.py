"""DQN (Mnih et al. 2015), as ``stable_baselines3.DQN.train`` computes it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn

from sb3_sparse.engine.batch import Batch
from sb3_sparse.engine.networks.parameters import Parameters
from sb3_sparse.engine.program.build import Program
from sb3_sparse.engine.program.gradient import backward
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Value
from sb3_sparse.engine.updates.base import Update
from sb3_sparse.engine.updates.chain import Chain, Unsupported

#: The program that lets the target network follow.
FOLLOW = "follow"


def huber(estimate: Value, targets: Value) -> Value:
    """Huber's loss, ``F.smooth_l1_loss``: d^2 / 2 up to a distance d of 1, d - 1/2 beyond."""
    distance = (estimate - targets).abs()
    near = distance.clamp(0.0, 1.0)
    return near.square() * 0.5 + (distance - near)


class DQNUpdate(Update):
    """
    A gradient step of DQN. The target network follows after environment steps.

    :param model: The model.
    """

    algorithms: ClassVar[tuple[type, ...]] = (DQN,)
    constants: ClassVar[tuple[str, ...]] = ("max_grad_norm", "tau")

    def __init__(self, model: OffPolicyAlgorithm) -> None:
        super().__init__(model)
        assert isinstance(model.action_space, spaces.Discrete)
        if model.action_space.start != 0:
            raise Unsupported(f"actions that begin at {model.action_space.start}, which index no output of the network")
        self._network = Chain(*self._modules(model.policy))
        self._actions = int(spaces.flatdim(model.action_space))
        self.parameters = [Parameters(model.policy.optimizer, self._network.weights)]

    def is_due(self) -> bool:
        # SB3 counts the step before it asks.
        calls = self.model._n_calls + 1
        return bool(calls % max(self.model.target_update_interval // self.model.n_envs, 1) == 0)

    def on_step(self) -> bool:
        model = self.model
        model._n_calls += 1
        if FOLLOW not in self._programs:
            trace = Trace(1)
            trace.follow(self.parameters[0], model.tau)
            self._programs[FOLLOW] = Program(trace)
        self._programs[FOLLOW].run()
        model.exploration_rate = model.exploration_schedule(model._current_progress_remaining)
        model.logger.record("rollout/exploration_rate", model.exploration_rate)
        return True

    def _modules(self, policy: Any) -> tuple[nn.Module, nn.Module]:
        """The network and its target."""
        return policy.q_net.q_net, policy.q_net_target.q_net

    def act(self, observations: np.ndarray, *, deterministic: bool) -> np.ndarray:
        if not deterministic and np.random.rand() < self.model.exploration_rate:
            return np.array([self.model.action_space.sample() for _ in observations])
        return super().act(observations, deterministic=deterministic)[:, 0].astype(np.int64)

    def _action(self, trace: Trace, observations: Value, deterministic: bool) -> Value:
        return self._network(observations).argmax()

    def _equations(self, trace: Trace, batch: Batch, variant: Hashable) -> None:
        loss = self._loss(trace, batch)
        trace.log("loss", loss)
        backward(trace, loss, self.parameters[0])
        trace.step(self.parameters[0], max_norm=self.model.max_grad_norm)

    def _loss(self, trace: Trace, batch: Batch) -> Value:
        value = self._network(trace.load(batch.next_observations), target=True).largest()
        targets = batch.targets(trace, value)
        estimate = self._network(trace.load(batch.observations)).take(trace.load(batch.actions), self._actions)
        return huber(estimate, targets)
