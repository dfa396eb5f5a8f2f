"""Behaviour cloning of discrete actions."""

from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, PyTorchObs, Schedule
from torch import Tensor
from torch.nn import functional as F

from sb3_sparse.nn import ActionPath
from sb3_sparse.offline.algorithm import OfflineAlgorithm
from sb3_sparse.offline.data import OfflineBatch, OfflineDataset
from sb3_sparse.offline.networks import Head
from sb3_sparse.offline.policy import POLICY_NAMES, OfflinePolicy
from sb3_sparse.sparsity import Loss


class DiscreteBCPolicy(OfflinePolicy):
    """
    A classifier of actions. Deterministic predictions take the likeliest action, others sample one. Arguments:
    :class:`OfflinePolicy`.
    """

    default_arch: ClassVar = {"actor": (256, 256)}
    actor: Head

    def _build(self) -> None:
        assert isinstance(self.action_space, spaces.Discrete)
        self._add("actor", Head, outputs=int(self.action_space.n))

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        logits: Tensor = self.actor(self.actor.features(observation))
        return logits.argmax(dim=1) if deterministic else logits.softmax(dim=1).multinomial(1).squeeze(1)

    def action_path(self) -> ActionPath:
        """
        :return: The modules of the deterministic action, for the exporter
        """
        return ActionPath(self.actor.features_extractor, (self.actor.mlp,), calls=("features",))


class DiscreteBC(OfflineAlgorithm):
    """
    Behaviour cloning of discrete actions: minimizes the cross entropy.

    The parameters that are not listed are those of :class:`OfflineAlgorithm`.

    :param policy_kwargs: Arguments of :class:`DiscreteBCPolicy`.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = dict.fromkeys(POLICY_NAMES, DiscreteBCPolicy)
    action_spaces: ClassVar = (spaces.Discrete,)
    policy: DiscreteBCPolicy

    def __init__(
        self,
        policy: str | type[DiscreteBCPolicy],
        dataset: OfflineDataset | str | None = None,
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        batch_size: int = 64,
        policy_kwargs: dict[str, Any] | None = None,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        shared = (policy_kwargs, tensorboard_log, verbose, seed, device, _init_setup_model)
        super().__init__(policy, dataset, env, learning_rate, batch_size, *shared)

    def _losses(self, batch: OfflineBatch, generator: th.Generator | None) -> dict[str, Loss]:
        actor = self.policy.actor
        return {"actor": lambda: F.cross_entropy(actor(actor.features(batch.observations)), batch.actions.squeeze(1))}
