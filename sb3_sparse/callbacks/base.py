"""
What every callback that changes masks shares: it applies masks to layers and their target twins, holds them, logs and
persists.

A subclass calls :meth:`SparsityCallback._apply` with new masks. Masks change there and nowhere else.
"""

from abc import abstractmethod
from collections.abc import Collection, Sequence

import torch as th
from torch import Tensor

from sb3_sparse.callbacks.resumable import ResumableCallback
from sb3_sparse.nn import Layer, apply_mask, find_twins
from sb3_sparse.sparsity import Named
from sb3_sparse.state.restore import SavedLayers

#: What becomes of a target network: it has the mask of the online one, or as many weights, or is left to the averaging.
TARGETS = ("mask", "topk", "polyak")


class SparsityCallback(ResumableCallback):
    """
    Base class of callbacks that change the masks of a model.

    It works on any policy. The linear and convolutional layers of a stock policy are masked in place; its zip is still
    a plain SB3 zip. After ``learn()`` the layers stay masked, so the model stays sparse if it goes on learning without
    the callback. A callback that was saved goes on where it stopped; see :class:`ResumableCallback`.

    Put it first in a list of callbacks, so that the others save what it has pruned.

    :param network: Name of a network under ``model.policy`` ("actor", "critic", "q_net", "mlp_extractor", ...), a list,
        or "all".
    :param exclude: Layers to leave dense, as shell patterns: "actor.mu", "mu", "qf*.4".
    :param targets: "mask" gives a layer of a target network the mask of its online twin, "topk" as many weights as that
        has, "polyak" leaves it to the averaging.
    :param verbose: Verbosity level: 0 for no output, 1 for a line per change of masks.
    :raises ValueError: on an unknown ``targets``; at the start of training on an unknown network, a layer to exclude
        that does not exist, or a model that trains without gradients
    """

    def __init__(
        self, network: str | Sequence[str], *, exclude: Sequence[str] = (), targets: str = "mask", verbose: int = 0
    ) -> None:
        super().__init__(network, exclude=exclude, verbose=verbose)
        if targets not in TARGETS:
            raise ValueError(f"unknown targets='{targets}': use one of {', '.join(TARGETS)}")
        self.targets = targets

    @abstractmethod
    def _arguments(self) -> dict[str, object]:
        """
        :return: The subclass's own arguments that make one run differ from another, as printable values
        """

    def _identity(self) -> dict[str, object]:
        return {"exclude": sorted(self.exclude), "targets": self.targets, **self._arguments()}

    def _load(self, selected: dict[str, dict[str, Layer]]) -> SavedLayers:
        saved = super()._load(selected)
        if not self._state.masked.issuperset(name for layers in selected.values() for name in layers):
            # The masks of its first run have been dropped since, by this callback or another.
            self._clock.clear()
        return saved

    def _init_callback(self) -> None:
        super()._init_callback()
        twins = find_twins(self.model.policy)
        self._twins = {layer: twins.get(layer, []) for layers in self.layers.values() for layer in layers.values()}
        for network in self.layers:
            self._apply(network, {name: layer.mask.clone() for name, layer in self.layers[network].items()})

    def _governs(self, layer: str) -> bool:
        """Whether this callback has changed the mask of a layer last, in whatever run, and so has the say about it."""
        return self._state.maker(layer) in (None, self._key)

    def _apply(self, network: str, masks: Named, *, rules: Collection[str] = ()) -> None:
        """
        Give the layers of a network new masks; target twins, optimizer moments, the saved state and the log follow.

        :param network: Name of the network.
        :param masks: New masks by full layer name.
        :param rules: The rules for target networks under which they get these masks at once; none if the masks are old.
        """
        layers = self.layers[network]
        active = 0
        for name, layer in layers.items():
            follows = self.targets in rules if rules else self.targets == "mask" and self._governs(name)
            apply_mask(layer, masks[name], self._optimizers, self._twins[layer] if follows else ())
            self._state.save_mask(name, layer.mask)
            if rules:
                self._state.save_maker(name, self._key)
            active += int(layer.mask.flatten(1).any(dim=1).sum())
        total = sum(layer.mask.numel() for layer in layers.values())
        kept = sum(int(layer.mask.sum()) for layer in layers.values())
        self._log[f"sparsity/{network}"] = 1.0 - kept / total
        self._log[f"sparsity/{network}_active_neurons"] = active

    def _enforce(self) -> None:
        """Zero what came back by a way around the optimizers; target twins included where they have the same mask."""
        pairs: list[tuple[Tensor, Tensor]] = []
        for layers in self.layers.values():
            for name, layer in layers.items():
                if layer.pruned and self._governs(name):
                    pairs.append((layer.weight, layer.multiplier))
                    if self.targets == "mask":
                        pairs += [(twin.weight, layer.multiplier) for twin in self._twins[layer]]
        if pairs:
            with th.no_grad():
                th._foreach_mul_(*map(list, zip(*pairs, strict=True)))

    def _on_rollout_start(self) -> None:
        # Just after the previous train().
        self._enforce()

    def _on_training_end(self) -> None:
        # Just after the last train(); rl-zoo3 calls it twice.
        self._enforce()
