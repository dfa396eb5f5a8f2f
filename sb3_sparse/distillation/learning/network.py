"""The network of a deterministic action as a module of its own, which trains apart from its model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from torch import Tensor, nn

from sb3_sparse.agents.observations import Observation
from sb3_sparse.export.trace import find_path, flatten
from sb3_sparse.nn import MaskedLayer, original, prunable_layers

#: States in one forward pass over many of them.
CHUNK = 4096


class ActionNetwork(nn.Module):
    """
    The modules between an observation and the outputs that decide a deterministic action, before a final tanh.

    What a features extractor without weights computes (flattening, one-hot classes, the parts of a dict) is an input of the
    network. One with weights is a part of it, and the inputs are then observations as the policy takes them.

    :param policy: The policy that holds the modules.
    """

    def __init__(self, policy: BasePolicy) -> None:
        super().__init__()
        path = find_path(policy)
        if path.calls or path.zero_inputs:
            raise ValueError(
                f"the actions of {type(policy).__name__} cannot be distilled: its network reads more than the observation"
            )
        modules = [module for _, module in flatten(policy, path)[1] if type(module) is not nn.Identity]
        if type(modules[0]) is nn.Flatten:
            # The features are vectors already.
            modules.pop(0)
        #: Whether a tanh is behind the outputs.
        self.squashed = path.tanh
        if isinstance(policy.action_space, spaces.Box) and type(modules[-1]) is nn.Tanh and not path.tanh:
            self.squashed = True
            modules.pop()
        self.layers = nn.Sequential(*modules)
        #: Estimates of each output, whose mean counts.
        self.estimates = path.estimates
        extractor = original(path.features_extractor)
        self.features_extractor: nn.Module | None = extractor if any(True for _ in extractor.parameters()) else None
        self._fixed: list[nn.Module] = [] if self.features_extractor is extractor else [extractor]
        self._space, self._scales = policy.observation_space, policy.normalize_images
        if self.features_extractor is not None and isinstance(self._space, spaces.Dict):
            raise ValueError("a dict of observations with images cannot be distilled yet")

    def forward(self, inputs: Tensor) -> Tensor:
        """
        :param inputs: A batch of :meth:`inputs`, on the network's device.
        :return: Outputs, ``[n, outputs]``
        """
        outputs: Tensor = self.layers(self.features(inputs))
        return outputs if self.estimates == 1 else outputs.view(len(outputs), self.estimates, -1).mean(dim=1)

    def features(self, inputs: Tensor) -> Tensor:
        """
        :param inputs: A batch of :meth:`inputs`, on the network's device.
        :return: What the first of the layers takes
        """
        if self.features_extractor is None:
            return inputs
        features: Tensor = self.features_extractor(preprocess_obs(inputs, self._space, normalize_images=self._scales))
        return features

    @th.no_grad()
    def inputs(self, observations: Observation) -> NDArray[np.generic]:
        """
        :param observations: Observations as the policy takes them, ``[n, ...]``, or a dict of such arrays.
        :return: What the network takes, ``[n, ...]``
        """
        if not self._fixed:
            assert isinstance(observations, np.ndarray)
            return observations
        tensors: Any = _as_tensors(observations)
        found: NDArray[np.generic] = self._fixed[0](
            preprocess_obs(tensors, self._space, normalize_images=self._scales)
        ).numpy()
        return found

    def outputs(self, inputs: NDArray[np.generic]) -> Tensor:
        """
        :param inputs: Inputs, ``[n, ...]``.
        :return: Outputs, on the CPU
        """
        return self.in_chunks(self, inputs)

    @th.no_grad()
    def in_chunks(self, compute: Callable[[Tensor], Tensor], inputs: NDArray[np.generic]) -> Tensor:
        """
        :param compute: What to compute from a batch of inputs, on the network's device.
        :param inputs: Inputs, ``[n, ...]``, which may be too many for one pass.
        :return: The same of all of them, on the CPU
        """
        device = next(self.parameters()).device
        chunks = (inputs[begin : begin + CHUNK] for begin in range(0, len(inputs), CHUNK))
        return th.cat([compute(th.as_tensor(chunk, device=device)).cpu() for chunk in chunks])

    @property
    def first(self) -> nn.Linear | None:
        """The first layer, if it is linear, has a bias, and its inputs are the network's."""
        first = self.layers[0]
        if self.features_extractor is not None or not isinstance(first, nn.Linear) or first.bias is None:
            return None
        return first


def mask_sparsity(network: nn.Module) -> float:
    """
    :param network: A network.
    :return: The share of its prunable weights that masks have taken
    """
    layers = prunable_layers(network).values()
    total = sum(layer.weight.numel() for layer in layers)
    gone = sum(int((~layer.mask).sum()) for layer in layers if isinstance(layer, MaskedLayer))
    return gone / max(total, 1)


def _as_tensors(observations: Observation) -> Any:
    if isinstance(observations, np.ndarray):
        return th.as_tensor(observations)
    return {key: th.as_tensor(array) for key, array in observations.items()}


def read_network(model: BaseAlgorithm) -> ActionNetwork:
    """
    :param model: A model.
    :return: Its network, of the model's own modules
    :raises ValueError: if its deterministic action does not come from one network of known modules
    """
    policy = original(model.policy)
    policy.set_training_mode(False)
    return ActionNetwork(policy)


def detached(network: ActionNetwork) -> ActionNetwork:
    """
    :param network: A network.
    :return: A copy of it, in evaluation mode, whose weights can be trained
    """
    twin = copy.deepcopy(network).eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(True)
    return twin
