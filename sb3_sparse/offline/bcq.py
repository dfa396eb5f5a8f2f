"""
Batch-constrained deep Q-learning: Q-learning over the actions that the policy behind the data is likely to take (Fujimoto et
al. 2019, "Off-Policy Deep Reinforcement Learning without Exploration").
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
from sb3_sparse.offline.networks import VAE, Head, TwinCritic
from sb3_sparse.offline.policy import POLICY_NAMES, OfflinePolicy, PolicyArguments
from sb3_sparse.sparsity import Loss

#: Sampled latent variables are clipped to +- this value, so that the VAE proposes likely actions.
LATENT_CLIP = 0.5


class BCQPolicy(OfflinePolicy):
    """
    The policy of BCQ: the VAE proposes actions, the actor perturbs them a little, and the first critic chooses.

    Deterministic predictions use one fixed set of latent variables, others sample new ones.

    :param observation_space: Space of the observations.
    :param action_space: Space of the actions.
    :param lr_schedule: Learning rate by the remaining progress.
    :param phi: Largest perturbation, as a share of half the action range.
    :param n_eval_actions: Number of actions to choose from.
    :param latent_dim: Dimensions of the VAE's latent variable; twice the number of action components by default.
    :param kwargs: The arguments of every :class:`OfflinePolicy`.
    """

    default_arch: ClassVar = {"vae": (750, 750), "critic": (400, 300), "actor": (400, 300)}
    vae: VAE
    critic: TwinCritic
    critic_target: TwinCritic
    actor: Head
    actor_target: Head
    candidates: Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        phi: float = 0.05,
        n_eval_actions: int = 100,
        latent_dim: int | None = None,
        **kwargs: Unpack[PolicyArguments],
    ) -> None:
        self.phi, self.n_eval_actions, self.latent_dim = phi, n_eval_actions, latent_dim
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _build(self) -> None:
        actions = spaces.flatdim(self.action_space)
        latent_dim = 2 * actions if self.latent_dim is None else self.latent_dim
        self._add("vae", VAE, action_dim=actions, latent_dim=latent_dim)
        self._add("critic", TwinCritic, target=True, action_dim=actions)
        self._add("actor", Head, target=True, action_dim=actions, outputs=actions, squash=True)
        fixed = th.randn(self.n_eval_actions, latent_dim, generator=th.Generator().manual_seed(0))
        self.register_buffer("candidates", fixed.clamp(-LATENT_CLIP, LATENT_CLIP), persistent=False)

    def act(self, actor: Head, observations: PyTorchObs, latents: Tensor) -> Tensor:
        """
        Actions that the VAE proposes and the actor perturbs; gradients flow into the actor only.

        :param actor: The actor, or its target network.
        :param observations: Of shape ``[n, ...]``, or a dict of them.
        :param latents: Of shape ``[n, samples, latent_dim]``: so many actions for each observation.
        :return: Actions in [-1, 1], ``[n * samples, action_dim]``, in the order of the observations
        """
        samples = latents.shape[1]
        with th.no_grad():
            features = self.vae.features(observations).repeat_interleave(samples, dim=0)
            proposed = self.vae.decode(features, latents.flatten(0, 1))
        perturbation: Tensor = actor(actor.features(observations).repeat_interleave(samples, dim=0), proposed)
        return (proposed + self.phi * perturbation).clamp(-1.0, 1.0)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        features = self.critic.features(observation)
        latents = self.candidates.expand(len(features), -1, -1)
        if not deterministic:
            latents = th.randn_like(latents).clamp(-LATENT_CLIP, LATENT_CLIP)
        actions = self.act(self.actor, observation, latents)
        values = self.critic.q1(features.repeat_interleave(len(self.candidates), dim=0), actions)
        best = values.view(len(features), -1).argmax(dim=1)
        return self._shaped(actions.view(*latents.shape[:2], -1)[th.arange(len(features), device=best.device), best])

    def action_path(self) -> ActionPath:
        """
        :raises ValueError: always, for the exporter: the action is not the output of one network
        """
        raise ValueError(
            "BCQ lets a critic choose among many actions that a VAE proposes, which is not a single network and cannot be "
            "exported: clone the actions that it takes with BC, and export that"
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("phi", "n_eval_actions", "latent_dim")}
        return super()._get_constructor_parameters() | own


class BCQ(OfflineAlgorithm):
    """
    Batch-constrained deep Q-learning for Box actions. In the next state s', the VAE proposes ``n_target_actions`` actions a'
    and the target actor perturbs them. The target of a transition is

        y = r + gamma * max_a' (lmbda * min(Q1', Q2') + (1 - lmbda) * max(Q1', Q2'))(s', a')

    or r where the episode terminated. Where an episode was truncated, the target has both terms.

        env = VecNormalize(make_vec_env("HalfCheetah-v5"), norm_reward=False)
        model = BCQ("MlpPolicy", OfflineDataset.from_minari("mujoco/halfcheetah/expert-v0", download=True), env)
        model.learn(1_000_000, callback=OneShotPruningCallback("all", 0.95, saliency="snip"))

    The parameters that are not listed are those of :class:`OfflineAlgorithm`.

    :param tau: Coefficient of the soft update of the target networks, after each update.
    :param gamma: Discount factor.
    :param lmbda: Weight of the smaller of the two target values.
    :param phi: Largest perturbation, as a share of half the action range.
    :param n_target_actions: Number of actions over which a target takes the maximum.
    :param n_eval_actions: Number of actions that a prediction chooses from.
    :param kl_weight: Weight of the VAE's divergence.
    :param policy_kwargs: Arguments of :class:`BCQPolicy`.
    :raises ValueError: if a number of actions is less than 1, and as :class:`OfflineAlgorithm` does
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = dict.fromkeys(POLICY_NAMES, BCQPolicy)
    policy: BCQPolicy

    def __init__(
        self,
        policy: str | type[BCQPolicy],
        dataset: OfflineDataset | str | None = None,
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 1e-3,
        batch_size: int = 100,
        tau: float = 0.005,
        gamma: float = 0.99,
        lmbda: float = 0.75,
        phi: float = 0.05,
        n_target_actions: int = 10,
        n_eval_actions: int = 100,
        kl_weight: float = 0.5,
        policy_kwargs: dict[str, Any] | None = None,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if n_target_actions < 1 or n_eval_actions < 1:
            raise ValueError(
                f"n_target_actions and n_eval_actions must be at least 1, got {n_target_actions} and {n_eval_actions}"
            )
        self.tau = tau
        self.gamma = gamma
        self.lmbda = lmbda
        self.phi = phi
        self.n_target_actions = n_target_actions
        self.n_eval_actions = n_eval_actions
        self.kl_weight = kl_weight
        shared = (policy_kwargs, tensorboard_log, verbose, seed, device, _init_setup_model)
        super().__init__(policy, dataset, env, learning_rate, batch_size, *shared)

    def _policy_arguments(self) -> dict[str, Any]:
        return {"phi": self.phi, "n_eval_actions": self.n_eval_actions}

    def _losses(self, batch: OfflineBatch, generator: th.Generator | None) -> dict[str, Loss]:
        count, policy = len(batch.rewards), self.policy
        # Sampled on the CPU: the same seed gives the same noise on every device.
        noise, own, of_targets = (
            th.randn(count, samples, policy.vae.latent_dim, generator=generator).to(self.device)
            for samples in (1, 1, self.n_target_actions)
        )
        own, of_targets = own.clamp(-LATENT_CLIP, LATENT_CLIP), of_targets.clamp(-LATENT_CLIP, LATENT_CLIP)

        def vae() -> Tensor:
            return policy.vae.loss(batch.observations, batch.actions, noise[:, 0], self.kl_weight)

        def critic() -> Tensor:
            targets = self._targets(batch, of_targets)
            values = policy.critic(policy.critic.features(batch.observations), batch.actions)
            return F.mse_loss(values[0], targets) + F.mse_loss(values[1], targets)

        def actor() -> Tensor:
            actions = policy.act(policy.actor, batch.observations, own)
            return -policy.critic.q1(policy.critic.features(batch.observations), actions).mean()

        return {"vae": vae, "critic": critic, "actor": actor}

    @th.no_grad()
    def _targets(self, batch: OfflineBatch, latents: Tensor) -> Tensor:
        """Targets of the Q-functions, ``[n, 1]``."""
        policy, samples = self.policy, latents.shape[1]
        actions = policy.act(policy.actor_target, batch.next_observations, latents)
        features = policy.critic_target.features(batch.next_observations).repeat_interleave(samples, dim=0)
        first, second = policy.critic_target(features, actions)
        values = self.lmbda * th.min(first, second) + (1.0 - self.lmbda) * th.max(first, second)
        best: Tensor = values.view(-1, samples).amax(dim=1, keepdim=True)
        return batch.rewards + (1.0 - batch.terminations) * self.gamma * best

    def _after_update(self) -> None:
        self.policy.update_targets(self.tau)

    @classmethod
    def extra_forward(cls, settings: Mapping[str, object]) -> dict[str, float] | None:
        """
        With n actions per target: decoder, actor and both Q-networks for n actions; for the actor's loss, the decoder for one,
        and the first Q-network forward and back to its input, which costs as much as another forward pass. Features are
        extracted once, whatever n is.
        """
        samples = settings.get("n_target_actions")
        if type(samples) is not int or not 0 < samples <= 2**53:
            return None
        features = {"vae.features_extractor": 2.0, "critic.features_extractor": 2.0, "actor.features_extractor": 1.0}
        heads = {"vae.decoder": samples + 1, "critic.qf0": samples + 2, "critic.qf1": samples, "actor.mlp": samples}
        return features | heads
