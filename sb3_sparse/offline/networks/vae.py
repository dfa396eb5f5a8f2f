"""The conditional variational auto-encoder of BCQ and of behaviour cloning."""

from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor, nn
from torch.nn import functional as F

from sb3_sparse.offline.networks.base import Network

#: The logarithm of the standard deviation is clipped to this range, for numerical stability.
LOG_STD_RANGE = (-4.0, 15.0)


class Encoder(nn.Module):
    """
    The encoder of :class:`VAE`: features and action to the mean and the standard deviation of a Gaussian.

    :param inputs: Number of inputs.
    :param latent_dim: Dimensions of the Gaussian.
    :param net_arch: Units of each hidden layer.
    :param activation_fn: Activation of the hidden layers.
    """

    def __init__(self, inputs: int, latent_dim: int, net_arch: list[int], activation_fn: type[nn.Module]) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*create_mlp(inputs, 0, net_arch, activation_fn))
        width = net_arch[-1] if net_arch else inputs
        self.mean = nn.Linear(width, latent_dim)
        self.log_std = nn.Linear(width, latent_dim)

    def forward(self, features: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """
        :param features: Of shape ``[n, features_dim]``.
        :param actions: Of shape ``[n, action_dim]``.
        :return: Mean and standard deviation, ``[n, latent_dim]`` each
        """
        hidden = self.trunk(th.cat((features, actions), dim=1))
        return self.mean(hidden), self.log_std(hidden).clamp(*LOG_STD_RANGE).exp()


class VAE(Network):
    """
    A conditional variational auto-encoder of the data's actions: it models the policy that collected them (Sohn et al. 2015;
    BCQ: Fujimoto et al. 2019, section 4).

    :param observation_space: See :class:`Network`.
    :param action_space: See :class:`Network`.
    :param features_extractor: See :class:`Network`.
    :param features_dim: See :class:`Network`.
    :param net_arch: Units of each hidden layer, of the encoder and of the decoder.
    :param activation_fn: Activation of the hidden layers.
    :param action_dim: Number of action components.
    :param latent_dim: Dimensions of the latent variable.
    :param normalize_images: See :class:`Network`.
    """

    #: Pruning ranks each part separately (Arnob et al. 2021, Algorithm 1): ranked together, one would lose nearly all weights.
    parts: ClassVar[tuple[str, ...]] = ("encoder", "decoder")

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        net_arch: list[int],
        activation_fn: type[nn.Module],
        action_dim: int,
        latent_dim: int,
        normalize_images: bool = True,
    ) -> None:
        super().__init__(observation_space, action_space, features_extractor, features_dim, normalize_images)
        self.latent_dim = latent_dim
        self.encoder = Encoder(features_dim + action_dim, latent_dim, net_arch, activation_fn)
        self.decoder = nn.Sequential(
            *create_mlp(features_dim + latent_dim, action_dim, net_arch, activation_fn, squash_output=True)
        )

    def decode(self, features: Tensor, latents: Tensor) -> Tensor:
        """
        :param features: Of shape ``[n, features_dim]``.
        :param latents: Of shape ``[n, latent_dim]``.
        :return: Actions in [-1, 1], ``[n, action_dim]``
        """
        actions: Tensor = self.decoder(th.cat((features, latents), dim=1))
        return actions

    def loss(self, observations: PyTorchObs, actions: Tensor, noise: Tensor, kl_weight: float) -> Tensor:
        """
        Mean squared error of the reconstruction, over batch and components, and ``kl_weight`` times the mean divergence of
        the latent variable from a standard normal one:

            KL = -1/2 mean(1 + log std^2 - mean^2 - std^2)

        :param observations: Of shape ``[n, ...]``, or a dict of them.
        :param actions: In [-1, 1], ``[n, action_dim]``.
        :param noise: Standard normal, ``[n, latent_dim]``.
        :param kl_weight: Weight of the divergence; the published code has 0.5.
        :return: The loss
        """
        features = self.features(observations)
        mean, std = self.encoder(features, actions)
        divergence: Tensor = -0.5 * (1.0 + (std**2).log() - mean**2 - std**2).mean()
        return F.mse_loss(self.decode(features, mean + std * noise), actions) + kl_weight * divergence
