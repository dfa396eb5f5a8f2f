"""What PPO and A2C share: the networks of SB3's ``ActorCriticPolicy``, acting in a rollout, and learning from it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable

import numpy as np
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.torch_layers import MlpExtractor

from sb3_sparse.engine.networks.parameters import Parameters
from sb3_sparse.engine.networks.vector import Vector
from sb3_sparse.engine.program.build import Program
from sb3_sparse.engine.program.gradient import backward
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Value
from sb3_sparse.engine.rollout import Rollout, RolloutBatch
from sb3_sparse.engine.updates.base import Update
from sb3_sparse.engine.updates.chain import Chain, Unsupported
from sb3_sparse.engine.updates.distributions import Categorical, Distribution, Gaussian

#: A subclass may draw other minibatches.
BUFFERS = (RolloutBuffer, DictRolloutBuffer)
#: The program of the optimizer's step.
STEP = "step"


class ActorCriticUpdate(Update):
    """
    The gradient steps of an on-policy algorithm. One optimizer updates all parameters of the policy.

    A gradient step is two programs, because PPO may stop between its gradient and its optimizer's step.

    :param model: The model.
    """

    def __init__(self, model: OnPolicyAlgorithm) -> None:
        super().__init__(model)
        policy = self.model.policy
        if type(model.rollout_buffer) not in BUFFERS:
            raise Unsupported(f"the rollout buffer {type(model.rollout_buffer).__name__}")
        if type(policy.mlp_extractor) is not MlpExtractor:
            raise Unsupported(f"the network {type(policy.mlp_extractor).__name__} in place of an MlpExtractor")
        self._log_std: Vector | None = None
        self._distribution = self._find_distribution()
        extractor = policy.mlp_extractor
        self._actor, self._critic = (
            [Chain(part) for part in parts]
            for parts in ((extractor.policy_net, policy.action_net), (extractor.value_net, policy.value_net))
        )
        weights = [weights for chain in (*self._actor, *self._critic) for weights in chain.weights]
        self._parameters = Parameters(policy.optimizer, weights, self._distribution.vectors)
        self.parameters = [self._parameters]
        self._rollout = Rollout(model)

    def _find_distribution(self) -> Distribution:
        policy = self.model.policy
        if type(policy.action_dist) is DiagGaussianDistribution:
            self._log_std = Vector(policy.log_std)
            return Gaussian(self._log_std)
        if type(policy.action_dist) is CategoricalDistribution:
            return Categorical()
        raise Unsupported(f"actions in {policy.action_space}")

    def trouble(self) -> str | None:
        model = self.model.__dict__
        if self._log_std is not None and model["policy"].log_std is not self._log_std.tensor:
            return "log_std has been replaced"
        if type(model["rollout_buffer"]) not in BUFFERS:
            return "the rollout buffer has been replaced"
        return super().trouble()

    @property
    def std(self) -> float | None:
        """Mean of the standard deviations of the actions, if they have one."""
        return None if self._log_std is None else float(np.exp(self._log_std.values).mean())

    # Acting

    def _action(self, trace: Trace, observations: Value, deterministic: bool) -> Value:
        outputs = _through(self._actor, observations)
        return self._distribution.mode(outputs) if deterministic else self._distribution.prepare(trace, outputs)

    def act(self, observations: np.ndarray, *, deterministic: bool) -> np.ndarray:
        answer = super().act(observations, deterministic=deterministic)
        return answer.astype(self._distribution.dtype) if deterministic else self._distribution.sample(answer)[0]

    def sample(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        :param observations: Observations of shape ``[n, features]``.
        :return: Actions of shape ``[n, components]``, values of shape ``[n, 1]``, and log probabilities of shape ``[n]``, as
            ``policy.forward()`` computes them
        """
        answer = self._answers.ask("rollout", observations, self._write_rollout)
        actions, log_probs = self._distribution.sample(answer[:, :-1])
        return actions, answer[:, -1:], log_probs

    def _write_rollout(self, trace: Trace, observations: Value) -> Value:
        return trace.concat([self._action(trace, observations, False), _through(self._critic, observations)])

    def values(self, observations: np.ndarray) -> np.ndarray:
        """
        :param observations: Observations of shape ``[n, features]``.
        :return: Their values, of shape ``[n, 1]``
        """
        return self._answers.ask("values", observations, lambda _, inputs: _through(self._critic, inputs))

    # Learning

    @abstractmethod
    def _loss(self, trace: Trace, batch: RolloutBatch, values: Value, log_prob: Value, entropy: Value) -> Value:
        """
        :param trace: Where to write it.
        :param batch: The minibatch.
        :param values: Values of its observations.
        :param log_prob: Log probabilities of its actions.
        :param entropy: Entropies of the distributions that they were drawn from.
        :return: The loss of each sample
        """

    def _expect_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            # SB3 finds it when it makes the next distribution.
            raise ValueError(f"training has diverged: the loss is {loss}")

    def _find_programs(self, batch: RolloutBatch) -> tuple[Program, Program]:
        """The gradient of a minibatch of this size, and the optimizer's step."""
        if batch.size not in self._programs:
            trace = Trace(batch.size)
            observations = trace.load(batch.observations)
            outputs, values = _through(self._actor, observations), _through(self._critic, observations)
            log_prob, entropy = self._distribution.evaluate(trace, outputs, trace.load(batch.actions))
            loss = self._loss(trace, batch, values, log_prob, entropy)
            trace.log("loss", loss)
            backward(trace, loss, self._parameters)
            self._programs[batch.size] = Program(trace, self.team)
            step = Trace(1, touched=trace.touched)
            step.step(self._parameters, max_norm=self.model.max_grad_norm)
            self._programs[STEP] = Program(step)
            self._refresh()
        return self._programs[batch.size], self._programs[STEP]


def _through(chains: Iterable[Chain], x: Value) -> Value:
    for chain in chains:
        x = chain(x)
    return x
