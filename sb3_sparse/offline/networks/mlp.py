"""Multilayer perceptrons on features: one, and a pair of Q-functions."""

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, create_mlp
from torch import Tensor, nn

from sb3_sparse.offline.networks.base import Network


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
    :param action_dim: Number of action components that it takes in addition to the features.
    :param squash: Whether to apply a tanh to the outputs.
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
        :param actions: No argument, or one tensor of shape ``[n, action_dim]``.
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
