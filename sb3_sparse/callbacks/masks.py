"""The masks of a callback's layers, and everything that follows a mask: target twins, optimizers, the saved state, the log."""

from collections.abc import Iterable

import torch as th
from torch import Tensor, nn
from torch.optim import Optimizer

from sb3_sparse.nn import Layer, MaskedLayer, apply_mask, find_twins
from sb3_sparse.sparsity import Named
from sb3_sparse.state import SparsityState

#: Rules for a target network: "mask" copies the mask of the online network, "topk" keeps as many weights as it has, "polyak"
#: leaves the soft update as it is.
TARGETS = ("mask", "topk", "polyak")


def check_targets(targets: str) -> str:
    """
    :param targets: A user's rule for target networks.
    :return: The same
    :raises ValueError: if there is no such rule
    """
    if targets not in TARGETS:
        raise ValueError(f"unknown targets='{targets}': use one of {', '.join(TARGETS)}")
    return targets


class Masks:
    """
    The masks of one callback's layers. They change in :meth:`change` and nowhere else.

    A layer's mask is owned by the callback that changed it last, in this run or a saved one. Only the owner may mask the
    target twins later on, or zero pruned weights again.

    :param policy: The policy of the model.
    :param layers: The layers by network and full name.
    :param optimizers: Optimizers to look for the layers' weights in.
    :param state: The state that is saved with the model.
    :param key: Key of the callback.
    :param targets: The rule for target networks.
    """

    def __init__(
        self,
        policy: nn.Module,
        layers: dict[str, dict[str, MaskedLayer]],
        optimizers: Iterable[Optimizer],
        state: SparsityState,
        key: str,
        *,
        targets: str,
    ) -> None:
        twins = find_twins(policy)
        #: The layers of target networks that follow each layer.
        self.twins: dict[MaskedLayer, list[Layer]] = {
            layer: twins.get(layer, []) for network in layers.values() for layer in network.values()
        }
        self._layers = layers
        self._optimizers = list(optimizers)
        self._state = state
        self._key = key
        self._masks_twins = targets == "mask"

    def reapply(self) -> dict[str, float]:
        """
        Give optimizers, twins and the saved state the masks that the layers have when a run starts.

        :return: Values to log
        """
        log: dict[str, float] = {}
        for network, layers in self._layers.items():
            for name, layer in layers.items():
                self._apply(name, layer, layer.mask.clone(), twins=self._masks_twins and self._owns(name))
            log |= self._measure(network)
        return log

    def change(self, network: str, masks: Named, *, twins: bool) -> dict[str, float]:
        """
        Give the layers of a network new masks, and own them from now on.

        :param network: Name of the network.
        :param masks: New masks by full layer name.
        :param twins: Whether the target twins get the same masks at once.
        :return: Values to log
        """
        for name, layer in self._layers[network].items():
            self._apply(name, layer, masks[name], twins=twins)
            self._state.save_owner(name, self._key)
        return self._measure(network)

    def enforce(self) -> None:
        """Re-zero pruned weights that were changed outside an optimizer step (TRPO's line search, ``set_parameters``)."""
        pairs: list[tuple[Tensor, Tensor]] = []
        for layers in self._layers.values():
            for name, layer in layers.items():
                if layer.pruned and self._owns(name):
                    pairs.append((layer.weight, layer.multiplier))
                    if self._masks_twins:
                        pairs += [(twin.weight, layer.multiplier) for twin in self.twins[layer]]
        if pairs:
            with th.no_grad():
                th._foreach_mul_(*map(list, zip(*pairs, strict=True)))

    def _owns(self, name: str) -> bool:
        """Whether this callback last changed the layer's mask, or nobody has."""
        return self._state.owner(name) in (None, self._key)

    def _apply(self, name: str, layer: MaskedLayer, mask: Tensor, *, twins: bool) -> None:
        apply_mask(layer, mask, self._optimizers, self.twins[layer] if twins else ())
        self._state.save_mask(name, layer.mask)

    def _measure(self, network: str) -> dict[str, float]:
        layers = self._layers[network].values()
        kept = sum(int(layer.mask.sum()) for layer in layers)
        active = sum(int(layer.mask.flatten(1).any(dim=1).sum()) for layer in layers)
        return {
            f"sparsity/{network}": 1.0 - kept / sum(layer.mask.numel() for layer in layers),
            f"sparsity/{network}_active_neurons": active,
        }
