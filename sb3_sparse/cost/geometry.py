"""How often one observation uses each weight: once in a linear layer, once per output pixel in a convolution."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from sb3_sparse.nn import Layer, LSTMWeight


def count_positions(policy: nn.Module, layers: Mapping[str, Layer]) -> dict[str, int]:
    """
    Run the features extractors once on an observation of zeros, and measure the outputs of their layers.

    The model stays as it is: this runs in evaluation mode without gradients, and restores the training flags of all modules,
    torch's random state and the hooks.

    :param policy: The policy of an SB3 model.
    :param layers: Its layers by name.
    :return: By name: output positions per observation. Linear and LSTM layers outside the features extractors have one;
        convolutions outside of them and LSTM layers inside are left out
    """
    positions = {name: 1 for name, layer in layers.items() if isinstance(layer, nn.Linear | LSTMWeight)}
    for extractor in _extractors(policy):
        modules = set(extractor.modules())
        for name, layer in layers.items():
            if isinstance(layer, LSTMWeight) and layer.lstm in modules:
                # How many steps it takes for one observation only its caller knows.
                positions.pop(name, None)
        inside = {name: layer for name, layer in layers.items() if layer in modules and not isinstance(layer, LSTMWeight)}
        if inside:
            positions |= _observe(extractor, inside)
    return positions


def _extractors(policy: nn.Module) -> Iterator[BaseFeaturesExtractor]:
    """The features extractors that are not part of another one."""
    extractors = [module for module in policy.modules() if isinstance(module, BaseFeaturesExtractor)]
    parts = {part for extractor in extractors for part in extractor.modules() if part is not extractor}
    return (extractor for extractor in extractors if extractor not in parts)


def _observe(extractor: BaseFeaturesExtractor, layers: Mapping[str, Layer]) -> dict[str, int]:
    positions = dict.fromkeys(layers, 0)
    names = {layer: name for name, layer in layers.items()}
    device = next(iter(layers.values())).weight.device

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(layer, Layer)
        positions[names[layer]] += output.numel() // len(layer.weight)

    hooks = [layer.register_forward_hook(count) for layer in layers.values()]
    try:
        with th.no_grad(), th.random.fork_rng([device] if device.type == "cuda" else []), _evaluating(extractor):
            space = extractor._observation_space
            extractor(preprocess_obs(_zeros(space, device), space, normalize_images=False))
    finally:
        for hook in hooks:
            hook.remove()
    return positions


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module has its own flag again, which may differ from its parent's."""
    flags = {part: part.training for part in module.modules()}
    try:
        for part in flags:
            part.training = False
        yield
    finally:
        for part, flag in flags.items():
            part.training = flag


def _zeros(space: spaces.Space, device: th.device) -> Tensor | dict[str, Tensor]:  # type: ignore[type-arg]
    """A batch of one observation: zero, or the nearest value in the space."""
    if isinstance(space, spaces.Dict):
        return {key: _zeros(part, device) for key, part in space.items()}  # type: ignore[misc]
    zeros = np.zeros((1, *(space.shape or ())), np.float32)
    if isinstance(space, spaces.Box):
        zeros = np.clip(zeros, space.low, space.high)
    return th.as_tensor(zeros, device=device)
