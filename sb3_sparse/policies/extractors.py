"""
Features extractors for images, in addition to SB3's ``NatureCNN``: the residual network of the compression paper, and
MinAtar's CNN.

DQN, QR-DQN, PPO and A2C add two layers of 64 units after any extractor other than ``NatureCNN`` itself; ``net_arch=[]`` leaves
them out:

    policy_kwargs = dict(features_extractor_class=ResNetExtractor, features_extractor_kwargs=dict(width=2), net_arch=[])
    DQN("CnnPolicy", env, policy_kwargs=policy_kwargs)
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch as th
from gymnasium import Space
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from torch import Tensor, nn


class ImageExtractor(NatureCNN):
    """
    Convolutions, then one linear layer with a ReLU, as in ``NatureCNN``. It is a subclass, because SB3 tests for that class.

    :param observation_space: Images ``[channels, height, width]``.
    :param features_dim: Units of the linear layer.
    :param normalized_image: Whether the images are already floats, so that their space need not consist of bytes.
    :param convolutions: Function that makes the convolutional part, for a number of channels.
    :raises ValueError: on a space that does not consist of images, images too small for the convolutions, or a size that is
        not a positive whole number
    """

    def __init__(
        self,
        observation_space: Space[Any],
        features_dim: int,
        normalized_image: bool,
        convolutions: Callable[[int], nn.Sequential],
    ) -> None:
        _check_size("features_dim", features_dim)
        # NatureCNN would build its own layers.
        BaseFeaturesExtractor.__init__(self, observation_space, features_dim)
        if not is_image_space(observation_space, check_channels=False, normalized_image=normalized_image):
            raise ValueError(
                f"{type(self).__name__} takes images, and {observation_space} is not a space of images: use MlpPolicy, or "
                "give normalize_images=False for images of floats"
            )
        assert observation_space.shape is not None
        self.cnn = convolutions(observation_space.shape[0])
        try:
            with th.no_grad():
                size = self.cnn(th.zeros(1, *observation_space.shape)).shape[1]
        except RuntimeError as error:
            raise ValueError(f"images of shape {observation_space.shape} are too small for {type(self).__name__}") from error
        self.linear = nn.Sequential(nn.Linear(size, features_dim), nn.ReLU())


def _check_size(name: str, size: int, least: int = 1) -> None:
    """
    :param name: Name of an argument.
    :param size: Its value.
    :param least: The smallest value allowed.
    :raises ValueError: if it is not a whole number, or too small
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {size!r}")


class MinAtarExtractor(ImageExtractor):
    """
    The network of MinAtar's DQN: one convolution of 16 filters (kernel 3, stride 1) and 128 units (Young & Tian 2019,
    arXiv:1903.03176).

    :param observation_space: Images ``[channels, height, width]`` of at least 3 x 3.
    :param features_dim: Units of the linear layer.
    :param normalized_image: See :class:`ImageExtractor`.
    :param width: Multiplies the number of filters.
    """

    def __init__(
        self, observation_space: Space[Any], features_dim: int = 128, normalized_image: bool = False, width: int = 1
    ) -> None:
        _check_size("width", width)

        def convolutions(channels: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(channels, 16 * width, kernel_size=3), nn.ReLU(), nn.Flatten())

        super().__init__(observation_space, features_dim, normalized_image, convolutions)


class Stacks(NamedTuple):
    """
    One form of :class:`ResNetExtractor`: three stacks and a linear layer.

    :param filters: Filters of all convolutions of each stack.
    :param kernels: Kernel size of the first convolution of each stack.
    :param strides: Stride of the first convolution of each stack.
    :param features_dim: Units of the linear layer.
    """

    filters: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    features_dim: int


#: Table 2 of Ivanov et al. 2025, and figure 3 (right) of Espeholt et al. 2018 (arXiv:1802.01561).
STACKS = {
    "paper": Stacks(filters=(32, 64, 64), kernels=(8, 4, 3), strides=(4, 2, 1), features_dim=512),
    "impala": Stacks(filters=(16, 32, 32), kernels=(3, 3, 3), strides=(1, 1, 1), features_dim=256),
}


class ResidualBlock(nn.Module):
    """
    ``x + conv2(relu(conv1(relu(x))))`` with two 3x3 convolutions.

    :param filters: Channels of x.
    """

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(filters, filters, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(filters, filters, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """
        :param x: ``[n, filters, height, width]``.
        :return: The same shape
        """
        residual: Tensor = self.conv2(th.relu(self.conv1(th.relu(x))))
        return x + residual


class ResNetExtractor(ImageExtractor):
    """
    Three stacks, each a convolution, a max pool (kernel 3, stride 2) and ``depth`` residual blocks; ReLU and a linear layer.

    The paper does not give the padding. Here it is ``(kernel - 1) // 2``, so 84 x 84 pixels become 2 x 2 in the paper's form
    and 11 x 11 in IMPALA's.

    :param observation_space: Images ``[channels, height, width]``.
    :param features_dim: Units of the linear layer; by default 512 in the paper's form and 256 in IMPALA's.
    :param normalized_image: See :class:`ImageExtractor`.
    :param form: "paper": kernels 8, 4, 3 and strides 4, 2, 1 (Ivanov et al. 2025, table 2); "impala": kernels 3 and strides 1
        (Espeholt et al. 2018), about five times the FLOPs.
    :param width: Multiplies the number of filters of all convolutions.
    :param depth: Residual blocks per stack.
    :raises ValueError: on an unknown form, or a space that does not consist of images
    """

    def __init__(
        self,
        observation_space: Space[Any],
        features_dim: int | None = None,
        normalized_image: bool = False,
        form: str = "paper",
        width: int = 1,
        depth: int = 2,
    ) -> None:
        if form not in STACKS:
            raise ValueError(f"unknown form '{form}': use one of {', '.join(STACKS)}")
        _check_size("width", width)
        _check_size("depth", depth, least=0)
        stacks = STACKS[form]

        def convolutions(channels: int) -> nn.Sequential:
            return nn.Sequential(*_stacks(stacks, channels, width, depth), nn.ReLU(), nn.Flatten())

        super().__init__(
            observation_space, stacks.features_dim if features_dim is None else features_dim, normalized_image, convolutions
        )


def _stacks(stacks: Stacks, channels: int, width: int, depth: int) -> Iterator[nn.Sequential]:
    for filters, kernel, stride in zip(stacks.filters, stacks.kernels, stacks.strides, strict=True):
        blocks = (ResidualBlock(filters * width) for _ in range(depth))
        convolution = nn.Conv2d(channels, filters * width, kernel, stride, padding=(kernel - 1) // 2)
        yield nn.Sequential(convolution, nn.MaxPool2d(kernel_size=3, stride=2, padding=1), *blocks)
        channels = filters * width
