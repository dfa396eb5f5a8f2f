"""
BCQ for discrete actions (Fujimoto et al. 2019, "Benchmarking Batch Deep Reinforcement Learning Algorithms").
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, PyTorchObs, Schedule
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Unpack

from sb3_sparse.nn import ActionPath
from sb3_sparse.offline.algorithm import OfflineAlgorithm
from sb3_sparse.offline.data import OfflineBatch, OfflineDataset
from sb3_sparse.offline.networks import Head
from sb3_sparse.offline.policy import POLICY_NAMES, OfflinePolicy, PolicyArguments
from sb3_sparse.sparsity import Loss

#: Weight of the squared logits in the loss of the imitation network; it keeps the logits small.
LOGIT_WEIGHT = 1e-2


class DiscreteBCQPolicy(OfflinePolicy):
    """
    Takes the action of the highest value among those that the imitation network finds likely enough.

    :param observation_space: Space of the observations.
    :param action_space: Space of the actions.
    :param lr_schedule: Learning rate by the remaining progress.
    :param threshold: An action is likely enough if its probability is at least this share of the likeliest one's.
    :param kwargs: The arguments of every :class:`OfflinePolicy`.
    """

    default_arch: ClassVar = {"q_net": (256, 256), "imitation": (256, 256)}
    q_net: Head
    q_net_target: Head
    imitation: Head

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        threshold: float = 0.3,
        **kwargs: Unpack[PolicyArguments],
    ) -> None:
        self.threshold = threshold
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _build(self) -> None:
        assert isinstance(self.action_space, spaces.Discrete)
        self._add("q_net", Head, target=True, outputs=int(self.action_space.n))
        self._add("imitation", Head, outputs=int(self.action_space.n))

    def best_action(self, observations: PyTorchObs) -> Tensor:
        """
        :param observations: Of shape ``[n, ...]``, or a dict of them.
        :return: Index of the action to take, ``[n, 1]``
        """
        likelihood = self.imitation(self.imitation.features(observations)).softmax(dim=1)
        unlikely = likelihood < self.threshold * likelihood.max(dim=1, keepdim=True).values
        values: Tensor = self.q_net(self.q_net.features(observations))
        return values.masked_fill(unlikely, -th.inf).argmax(dim=1, keepdim=True)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        return self.best_action(observation).squeeze(1)

    def action_path(self) -> ActionPath:
        """
        :raises ValueError: always, for the exporter: the action is not the output of one network
        """
        raise ValueError(
            "DiscreteBCQ takes the best action by its Q-network among those that another network finds likely, which is not a "
            "single network and cannot be exported: clone the actions that it takes with DiscreteBC, and export that"
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {"threshold": self.threshold}


class DiscreteBCQ(OfflineAlgorithm):
    """
    BCQ for discrete actions: double Q-learning over the actions that a network trained by imitation finds likely enough. The
    Q-network minimizes the Huber loss; the imitation network minimizes the cross entropy plus a hundredth of its mean squared
    logit.

    The parameters that are not listed are those of :class:`OfflineAlgorithm`.

    :param tau: Coefficient of the soft update of the target network, after each update.
    :param gamma: Discount factor.
    :param threshold: Actions with less than this share of the likeliest one's probability are not taken.
    :param policy_kwargs: Arguments of :class:`DiscreteBCQPolicy`.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = dict.fromkeys(POLICY_NAMES, DiscreteBCQPolicy)
    action_spaces: ClassVar = (spaces.Discrete,)
    policy: DiscreteBCQPolicy

    def __init__(
        self,
        policy: str | type[DiscreteBCQPolicy],
        dataset: OfflineDataset | str | None = None,
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        batch_size: int = 64,
        tau: float = 0.005,
        gamma: float = 0.99,
        threshold: float = 0.3,
        policy_kwargs: dict[str, Any] | None = None,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        self.tau = tau
        self.gamma = gamma
        self.threshold = threshold
        shared = (policy_kwargs, tensorboard_log, verbose, seed, device, _init_setup_model)
        super().__init__(policy, dataset, env, learning_rate, batch_size, *shared)

    def _policy_arguments(self) -> dict[str, Any]:
        return {"threshold": self.threshold}

    def _losses(self, batch: OfflineBatch, generator: th.Generator | None) -> dict[str, Loss]:
        policy = self.policy

        def q_net() -> Tensor:
            with th.no_grad():
                best = policy.best_action(batch.next_observations)
                next_values = policy.q_net_target(policy.q_net_target.features(batch.next_observations)).gather(1, best)
                targets = batch.rewards + (1.0 - batch.terminations) * self.gamma * next_values
            values = policy.q_net(policy.q_net.features(batch.observations)).gather(1, batch.actions)
            return F.smooth_l1_loss(values, targets)

        def imitation() -> Tensor:
            logits = policy.imitation(policy.imitation.features(batch.observations))
            loss: Tensor = F.cross_entropy(logits, batch.actions.squeeze(1)) + LOGIT_WEIGHT * (logits**2).mean()
            return loss

        return {"q_net": q_net, "imitation": imitation}

    def _after_update(self) -> None:
        self.policy.update_targets(self.tau)

    @classmethod
    def extra_forward(cls, settings: Mapping[str, object]) -> dict[str, float] | None:
        """The target network values the next action; the other two networks choose it."""
        return {"q_net": 2.0, "imitation": 1.0} if {"threshold", "tau", "gamma"} <= settings.keys() else None
