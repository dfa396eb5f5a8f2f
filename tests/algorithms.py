"""The twelve algorithms of SB3 and contrib that train by gradients, each small enough for a test."""

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
from sb3_contrib import QRDQN, TQC, TRPO, CrossQ, MaskablePPO, RecurrentPPO
from sb3_contrib.common.envs import InvalidActionEnvDiscrete
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm

import sb3_sparse.policies as policies

OFF_POLICY: dict[str, Any] = {"learning_starts": 20, "batch_size": 16, "buffer_size": 1000}
Q_LEARNING: dict[str, Any] = {**OFF_POLICY, "train_freq": 1, "target_update_interval": 10}


@dataclass(frozen=True)
class Case:
    """
    How to build one algorithm.

    :param algorithm: The class.
    :param sparse_policy: Its policy with masked layers.
    :param networks: The networks that its MlpPolicy has.
    :param env: An environment that it can learn.
    :param kwargs: Settings that make it train within a few steps.
    :param stock_policy: The name of its own policy.
    """

    algorithm: type[BaseAlgorithm]
    sparse_policy: type
    networks: tuple[str, ...]
    env: Any
    kwargs: dict[str, Any] = field(default_factory=dict)
    stock_policy: str = "MlpPolicy"

    def make(self, sparse: bool = False, policy_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> BaseAlgorithm:
        """
        :param sparse: Whether to take the policy with masked layers.
        :param policy_kwargs: Arguments of the policy.
        :param kwargs: Arguments of the algorithm that replace those of the case.
        :return: The model, seeded and on the CPU unless the arguments say otherwise
        """
        env = self.env() if callable(self.env) else gym.make(self.env)
        settings = {"seed": 0, "device": "cpu", **self.kwargs, **kwargs}
        policy = self.sparse_policy if sparse else self.stock_policy
        return self.algorithm(policy, env, policy_kwargs={"net_arch": [16, 16], **(policy_kwargs or {})}, **settings)


ACTOR_CRITIC = ("mlp_extractor", "action_net", "value_net")
CASES = {
    "sac": Case(SAC, policies.SparseSACPolicy, ("actor", "critic"), "Pendulum-v1", OFF_POLICY),
    "td3": Case(TD3, policies.SparseTD3Policy, ("actor", "critic"), "Pendulum-v1", OFF_POLICY),
    "ddpg": Case(DDPG, policies.SparseDDPGPolicy, ("actor", "critic"), "Pendulum-v1", OFF_POLICY),
    "dqn": Case(DQN, policies.SparseDQNPolicy, ("q_net",), "CartPole-v1", Q_LEARNING),
    "ppo": Case(PPO, policies.SparsePPOPolicy, ACTOR_CRITIC, "Pendulum-v1", {"n_steps": 32, "batch_size": 16, "n_epochs": 2}),
    "a2c": Case(A2C, policies.SparseA2CPolicy, ACTOR_CRITIC, "CartPole-v1", {"n_steps": 8}),
    "tqc": Case(TQC, policies.SparseTQCPolicy, ("actor", "critic"), "Pendulum-v1", OFF_POLICY),
    "qrdqn": Case(QRDQN, policies.SparseQRDQNPolicy, ("quantile_net",), "CartPole-v1", Q_LEARNING),
    "crossq": Case(CrossQ, policies.SparseCrossQPolicy, ("actor", "critic"), "Pendulum-v1", OFF_POLICY),
    "trpo": Case(TRPO, policies.SparseTRPOPolicy, ACTOR_CRITIC, "Pendulum-v1", {"n_steps": 32, "batch_size": 16}),
    "maskable_ppo": Case(
        MaskablePPO,
        policies.SparseMaskablePPOPolicy,
        ACTOR_CRITIC,
        lambda: InvalidActionEnvDiscrete(dim=20, n_invalid_actions=10),
        {"n_steps": 32, "batch_size": 16, "n_epochs": 2},
    ),
    "recurrent_ppo": Case(
        RecurrentPPO,
        policies.SparseRecurrentPPOPolicy,
        (*ACTOR_CRITIC, "lstm_actor", "lstm_critic"),
        "Pendulum-v1",
        {"n_steps": 32, "batch_size": 16, "n_epochs": 2},
        "MlpLstmPolicy",
    ),
}
