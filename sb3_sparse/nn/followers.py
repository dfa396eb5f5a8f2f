"""
A rule for target networks that a mask cannot express: a layer keeps its largest weights, as many as its online twin has
nonzero ones; among equal magnitudes the lower index stays.

SB3 updates target networks in the middle of ``train()``. So a layer obeys the rule whenever somebody uses it or saves it:
hooks prune it just before. They stay with the layer, like a mask.
"""

from abc import ABC, abstractmethod

from torch import nn
from torch.utils.hooks import RemovableHandle

from sb3_sparse.nn.layers import Layer, MaskedLayer


class Follower(ABC):
    """
    One layer of a target network, with hooks that prune it before its forward pass and before its state dict is taken.

    :param online: The layer that it follows. As long as it is not pruned, nothing happens.
    :param target: The layer of the target network.
    """

    def __init__(self, online: MaskedLayer, target: Layer) -> None:
        self.online = online
        self.target = target
        self._handles: tuple[RemovableHandle, ...] = (
            target.register_forward_pre_hook(self._before_use),
            target.register_state_dict_pre_hook(self._before_use),  # type: ignore[no-untyped-call]
        )

    def _before_use(self, *_: object) -> None:
        self.prune()

    def detach(self) -> None:
        """Remove the hooks, and leave the target layer to the soft update."""
        for handle in self._handles:
            handle.remove()

    @abstractmethod
    def prune(self) -> None:
        """Prune the target layer if it has changed since the last time."""


def find_follower(layer: nn.Module) -> Follower | None:
    """
    :param layer: A layer of a target network.
    :return: What prunes it, if anything does
    """
    for hook in layer._forward_pre_hooks.values():
        follower = getattr(hook, "__self__", None)
        if isinstance(follower, Follower):
            return follower
    return None
