"""The networks that offline policies are made of. Each has a features extractor, a loss and an optimizer of its own."""

from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor, nn
from torch.nn import functional as F

#: The logarithm of the VAE's standard deviation is clipped to this range, for numerical stability.
LOG_STD_RANGE = (-4.0, 15.0)


class Network(BaseModel):
    """
    What the networks share: they work on features, so that whoever samples several actions for one observation extracts its
    features once.

    :param observation_space: Space of the observations.
    :param action_space: Space of the actions.
    :param features_extractor: Makes features of observations.
    :param features_dim: Number of features.
    :param normalize_images: Whether images are divided by 255.
    """

    features_extractor: BaseFeaturesExtractor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        normalize_images: bool = True,
    ) -> None:
        super().__init__(
            observation_space, action_space, features_extractor=features_extractor, normalize_images=normalize_images
        )
        self.features_dim = features_dim

    def features(self, observations: PyTorchObs) -> Tensor:
        """
        :param observations: Of shape ``[n, ...]``, or a dict of them.
        :return: Features, ``[n, features_dim]``
        """
        return self.extract_features(observations, self.features_extractor)


class Head(Network):
    """
    A multilayer perceptron on features, and on actions if it takes any.

    :param observation_space: See :class:`Network`.
    :param action_space: See :class:`Network`.
    :param features_extractor: See :class:`Network`.
    :param features_dim: See :class:`Network`.
    :param net_arch: Units of each hidden layer.
    :param activation_fn: Activation of the hidden layers.
    :param outputs: Number of outputs.
    :param action_dim: Number of action components that it takes beside the features.
    :param squash: Whether the outputs pass a tanh.
    :param normalize_images: See :class:`Network`.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        net_arch: list[int],
        activation_fn: type[nn.Module],
        outputs: int,
        action_dim: int = 0,
        squash: bool = False,
        normalize_images: bool = True,
    ) -> None:
        super().__init__(observation_space, action_space, features_extractor, features_dim, normalize_images)
        self.mlp = nn.Sequential(*create_mlp(features_dim + action_dim, outputs, net_arch, activation_fn, squash))

    def forward(self, features: Tensor, *actions: Tensor) -> Tensor:
        """
        :param features: Of shape ``[n, features_dim]``.
        :param actions: None, or one tensor of shape ``[n, action_dim]``.
        :return: Of shape ``[n, outputs]``
        """
        output: Tensor = self.mlp(th.cat((features, *actions), dim=1) if actions else features)
        return output


class TwinCritic(Network):
    """
    Two independent Q-functions of a state and an action (Fujimoto et al. 2018).

    :param observation_space: See :class:`Network`.
    :param action_space: See :class:`Network`.
    :param features_extractor: See :class:`Network`.
    :param features_dim: See :class:`Network`.
    :param net_arch: Units of each hidden layer.
    :param activation_fn: Activation of the hidden layers.
    :param action_dim: Number of action components.
    :param normalize_images: See :class:`Network`.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        net_arch: list[int],
        activation_fn: type[nn.Module],
        action_dim: int,
        normalize_images: bool = True,
    ) -> None:
        super().__init__(observation_space, action_space, features_extractor, features_dim, normalize_images)
        self.qf0 = nn.Sequential(*create_mlp(features_dim + action_dim, 1, net_arch, activation_fn))
        self.qf1 = nn.Sequential(*create_mlp(features_dim + action_dim, 1, net_arch, activation_fn))

    def forward(self, features: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """
        :param features: Of shape ``[n, features_dim]``.
        :param actions: Of shape ``[n, action_dim]``.
        :return: The two values, ``[n, 1]`` each
        """
        inputs = th.cat((features, actions), dim=1)
        return self.qf0(inputs), self.qf1(inputs)

    def q1(self, features: Tensor, actions: Tensor) -> Tensor:
        """
        :param features: Of shape ``[n, features_dim]``.
        :param actions: Of shape ``[n, action_dim]``.
        :return: The first value alone, ``[n, 1]``
        """
        value: Tensor = self.qf0(th.cat((features, actions), dim=1))
        return value


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
    A conditional variational auto-encoder of the data's actions: what a behaviour policy might do in a state (Sohn et al.
    2015; BCQ: Fujimoto et al. 2019, section 4).

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

    #: Each is pruned for itself (Arnob et al. 2021, Algorithm 1): ranked together, one of them would lose nearly everything.
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
