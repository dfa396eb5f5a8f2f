"""The base class of all networks of the offline policies."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor


class Network(BaseModel):
    """
    Networks work on features, so that the features of an observation are extracted once for several sampled actions.

    :param observation_space: Space of the observations.
    :param action_space: Space of the actions.
    :param features_extractor: Turns observations into features.
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
