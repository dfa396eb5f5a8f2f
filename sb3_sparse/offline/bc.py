"""Behaviour cloning of continuous actions: by a VAE, as in the offline-pruning paper, or by a multilayer perceptron."""

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
from sb3_sparse.offline.networks import VAE, Head
from sb3_sparse.offline.policy import POLICY_NAMES, OfflinePolicy, PolicyArguments
from sb3_sparse.sparsity import Loss


class VAEPolicy(OfflinePolicy):
    """
    Acts by the decoder of a VAE. Deterministic predictions decode the mean of the latent variable, 0; others sample it.

    :param observation_space: Space of the observations.
    :param action_space: Space of the actions.
    :param lr_schedule: Learning rate by the remaining progress.
    :param latent_dim: Dimensions of the latent variable; twice the number of action components by default.
    :param latent_clip: Sampled latent variables are clipped to +- this value.
    :param kwargs: The arguments of every :class:`OfflinePolicy`.
    """

    default_arch: ClassVar = {"vae": (750, 750)}
    vae: VAE

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        latent_dim: int | None = None,
        latent_clip: float = 0.25,
        **kwargs: Unpack[PolicyArguments],
    ) -> None:
        self.latent_dim, self.latent_clip = latent_dim, latent_clip
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _build(self) -> None:
        actions = spaces.flatdim(self.action_space)
        self._add("vae", VAE, action_dim=actions, latent_dim=2 * actions if self.latent_dim is None else self.latent_dim)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        features = self.vae.features(observation)
        latents = features.new_zeros(len(features), self.vae.latent_dim)
        if not deterministic:
            latents.normal_().clamp_(-self.latent_clip, self.latent_clip)
        return self._shaped(self.vae.decode(features, latents))

    def action_path(self) -> ActionPath:
        """
        :return: The modules of the deterministic action, for the exporter
        """
        return ActionPath(
            self.vae.features_extractor,
            (self.vae.decoder,),
            calls=("features", "decode", "_shaped"),
            zero_inputs=self.vae.latent_dim,
            zero_reason="The VAE's latent variable is 0, its mean",
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"latent_dim": self.latent_dim, "latent_clip": self.latent_clip}
        return super()._get_constructor_parameters() | own


class MLPPolicy(OfflinePolicy):
    """Acts by a multilayer perceptron: the same observation always gets the same action. Arguments: :class:`OfflinePolicy`."""

    default_arch: ClassVar = {"actor": (256, 256)}
    actor: Head

    def _build(self) -> None:
        self._add("actor", Head, outputs=spaces.flatdim(self.action_space), squash=True)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        return self._shaped(self.actor(self.actor.features(observation)))

    def action_path(self) -> ActionPath:
        """
        :return: The modules of the deterministic action, for the exporter
        """
        return ActionPath(self.actor.features_extractor, (self.actor.mlp,), calls=("features", "_shaped"))


#: The policy of each mode.
MODES: dict[str, type[OfflinePolicy]] = {"vae": VAEPolicy, "mlp": MLPPolicy}


class BC(OfflineAlgorithm):
    """
    Behaviour cloning of Box actions.

    ``mode="vae"`` is the baseline of the offline-pruning paper (Arnob et al. 2021), taken from the code of BEAR (Kumar et al.
    2019): BCQ's VAE proposes the action, and nothing else acts. ``mode="mlp"`` is the usual form of behaviour cloning: it
    minimizes the mean squared error of a perceptron's actions.

        model = BC("MlpPolicy", OfflineDataset.from_minari("mujoco/halfcheetah/expert-v0", download=True))
        model.learn(1_000_000, callback=OneShotPruningCallback("all", 0.95, saliency="snip"))

    The parameters that are not listed are those of :class:`OfflineAlgorithm`.

    :param mode: "vae" or "mlp".
    :param kl_weight: Weight of the VAE's divergence.
    :param policy_kwargs: Arguments of :class:`VAEPolicy` or :class:`MLPPolicy`.
    :raises ValueError: on an unknown mode, or a policy of another mode
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {policy.__name__: policy for policy in MODES.values()}
    policy: VAEPolicy | MLPPolicy

    def __init__(
        self,
        policy: str | type[VAEPolicy] | type[MLPPolicy],
        dataset: OfflineDataset | str | None = None,
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 1e-3,
        batch_size: int = 100,
        mode: str = "vae",
        kl_weight: float = 0.5,
        policy_kwargs: dict[str, Any] | None = None,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"unknown mode='{mode}': use one of {', '.join(MODES)}")
        self.mode = mode
        self.kl_weight = kl_weight
        shared = (policy_kwargs, tensorboard_log, verbose, seed, device, _init_setup_model)
        super().__init__(policy, dataset, env, learning_rate, batch_size, *shared)

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        return MODES[self.mode] if policy_name in POLICY_NAMES else super()._get_policy_from_name(policy_name)

    def _setup_model(self) -> None:
        if not issubclass(self.policy_class, MODES[self.mode]):
            raise ValueError(f"mode='{self.mode}' needs a {MODES[self.mode].__name__}, got {self.policy_class.__name__}")
        super()._setup_model()

    def _losses(self, batch: OfflineBatch, generator: th.Generator | None) -> dict[str, Loss]:
        policy = self.policy
        if isinstance(policy, MLPPolicy):
            actor = policy.actor
            return {"actor": lambda: F.mse_loss(actor(actor.features(batch.observations)), batch.actions)}
        vae = policy.vae
        # Sampled on the CPU: the same seed gives the same noise on every device.
        noise = th.randn(len(batch.rewards), vae.latent_dim, generator=generator).to(self.device)
        return {"vae": lambda: vae.loss(batch.observations, batch.actions, noise, self.kl_weight)}
