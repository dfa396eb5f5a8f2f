"""The base class of the offline policies: each network has its own optimizer, and Box actions are scaled to [-1, 1]."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar, TypedDict

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import get_parameters_by_name, polyak_update
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sb3_sparse.offline.networks import Network

#: Names of a policy. Both name the same class: its features extractor handles dict observations.
POLICY_NAMES = ("MlpPolicy", "MultiInputPolicy")
#: Units of each hidden layer: one list for all networks, or by the name of a network.
NetArch = Sequence[int] | Mapping[str, Sequence[int]]


class PolicyArguments(TypedDict, total=False):
    """The arguments that every offline policy takes, as :class:`OfflinePolicy` describes them."""

    net_arch: NetArch | None
    activation_fn: type[nn.Module]
    features_extractor_class: type[BaseFeaturesExtractor] | None
    features_extractor_kwargs: dict[str, Any] | None
    normalize_images: bool
    optimizer_class: type[th.optim.Optimizer]
    optimizer_kwargs: dict[str, Any] | None


class OfflinePolicy(BasePolicy):
    """
    Base class of the policies of offline algorithms.

    A subclass lists its networks and their hidden layers in ``default_arch``, adds them in :meth:`_build`, acts in
    ``_predict``, and lists in ``action_path`` the modules of the deterministic action, for the exporter
    (:class:`~sb3_sparse.nn.ActionPath`). Inside a policy, Box actions lie in [-1, 1]; SB3 scales the predicted ones. A
    subclass with arguments of its own sets them before it calls this constructor, which calls :meth:`_build`.

    :param observation_space: Space of the observations.
    :param action_space: Space of the actions.
    :param lr_schedule: Learning rate by the remaining progress.
    :param net_arch: Units of each hidden layer: a list for all networks, or a mapping from a network's name to its list; a
        network that it does not name keeps its published size.
    :param activation_fn: Activation of the hidden layers.
    :param features_extractor_class: Turns observations into features; each network has its own. By default SB3's extractor for
        dict observations, or one that flattens any other observation.
    :param features_extractor_kwargs: Its arguments.
    :param normalize_images: Whether images are divided by 255.
    :param optimizer_class: Class of the optimizers; each network has its own.
    :param optimizer_kwargs: Its arguments, except the learning rate.
    :raises ValueError: if ``net_arch`` names a network that the policy does not have
    """

    #: Hidden layers of each trained network, in the order in which the networks are trained.
    default_arch: ClassVar[Mapping[str, Sequence[int]]]

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        net_arch: NetArch | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if features_extractor_class is None:
            features_extractor_class = CombinedExtractor if isinstance(observation_space, spaces.Dict) else FlattenExtractor
        super().__init__(
            observation_space,
            action_space,
            features_extractor_class,
            features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            squash_output=isinstance(action_space, spaces.Box),
        )
        self.net_arch = net_arch
        self.activation_fn = activation_fn
        self._learning_rate = lr_schedule(1)
        #: Pairs of a network's batch norm and its target network's.
        self._norms: list[tuple[nn.Module, nn.Module]] = []
        if isinstance(net_arch, Mapping) and (unknown := [name for name in net_arch if name not in self.default_arch]):
            raise ValueError(
                f"net_arch names {', '.join(map(repr, unknown))}; {type(self).__name__} has {', '.join(self.default_arch)}"
            )
        self._build()

    def _build(self) -> None:
        """Add all networks of ``default_arch``, with :meth:`_add`; a subclass may also do so after this constructor."""

    def _add(self, name: str, kind: type[Network], *, target: bool = False, **arguments: Any) -> None:
        """
        Add a network, its optimizer, and its target network if it has one.

        :param name: Its name, one of ``default_arch``.
        :param kind: Its class.
        :param target: Whether to add a target network, named ``<name>_target``.
        :param arguments: The arguments of this class that :class:`Network` does not have.
        """
        chosen = self.net_arch.get(name) if isinstance(self.net_arch, Mapping) else self.net_arch
        arguments |= {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "net_arch": list(self.default_arch[name] if chosen is None else chosen),
            "activation_fn": self.activation_fn,
            "normalize_images": self.normalize_images,
        }
        network = kind(**self._update_features_extractor(arguments))
        self.add_module(name, network)
        if target:
            twin = deepcopy(network)
            twin.set_training_mode(False)
            self.add_module(f"{name}_target", twin)
            pairs = zip(network.modules(), twin.modules(), strict=True)
            self._norms += [(own, other) for own, other in pairs if isinstance(own, _BatchNorm)]
        optimizer_class: Any = self.optimizer_class  # Each class has its own arguments, which mypy cannot know.
        network.optimizer = optimizer_class(network.parameters(), lr=self._learning_rate, **self.optimizer_kwargs)

    @property
    def networks(self) -> dict[str, Network]:
        """The trained networks by name, in the order in which they are trained."""
        return {name: getattr(self, name) for name in self.default_arch}

    def update_targets(self, tau: float) -> None:
        """
        Soft update of all target networks, ``target = (1 - tau) * target + tau * network``; batch statistics are copied.

        :param tau: Coefficient of the soft update, in [0, 1].
        """
        for name in self.default_arch:
            target = getattr(self, f"{name}_target", None)
            if target is not None:
                polyak_update(getattr(self, name).parameters(), target.parameters(), tau)
        for own, other in self._norms:
            polyak_update(get_parameters_by_name(own, ["running_"]), get_parameters_by_name(other, ["running_"]), 1.0)

    def _shaped(self, actions: Tensor) -> Tensor:
        """
        :param actions: Flat Box actions, ``[n, action_dim]``.
        :return: The same actions in the environment's shape
        """
        return actions.view(-1, *(self.action_space.shape or ()))

    def set_training_mode(self, mode: bool) -> None:
        for network in self.networks.values():
            network.set_training_mode(mode)
        self.training = mode

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {
            "lr_schedule": self._dummy_schedule,
            "net_arch": self.net_arch,
            "activation_fn": self.activation_fn,
            "features_extractor_class": self.features_extractor_class,
            "features_extractor_kwargs": self.features_extractor_kwargs,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }
