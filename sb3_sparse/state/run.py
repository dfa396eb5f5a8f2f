"""A callback's run on a model: the layers that it may change, their saved state, and its clock."""

from typing import TYPE_CHECKING

from sb3_sparse.nn import Layer, MaskedLayer, find_networks, hold_masks, mask_layers
from sb3_sparse.state.clock import Clock
from sb3_sparse.state.identity import Identity
from sb3_sparse.state.restore import SavedLayers
from sb3_sparse.state.sparsity_state import SparsityState

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


class Run:
    """
    A run that can be resumed. The layers do not change before :meth:`start`.

    :param model: The model.
    :param selected: The layers of the callback, masked or not, by network and full name.
    :param identity: Identity of the callback.
    :param with_masks: Whether the callback saves masks: its clock then starts anew if one of them is missing.
    :raises ValueError: if the saved state is damaged
    """

    def __init__(
        self, model: "BaseAlgorithm", selected: dict[str, dict[str, Layer]], identity: Identity, *, with_masks: bool
    ) -> None:
        self._policy = model.policy
        self._selected = selected
        self.state = SparsityState(model)
        self.clock = Clock(model, self.state, identity)
        self._saved = SavedLayers(model, self.state)
        self._saved.check()
        names = {name for layers in selected.values() for name in layers}
        if with_masks and not names <= self.state.masked:
            self.clock.saved.clear()
        self.clock.start()

    def start(self) -> dict[str, dict[str, MaskedLayer]]:
        """
        Restore the saved masks and bits of all networks, and make the selected layers masked layers.

        :return: The selected layers by network and full name
        """
        self._saved.put_back()
        # A matrix of an LSTM that has just been put back is another object than the one that was selected.
        found = find_networks(self._policy)
        selected = {network: {name: found[network][name] for name in layers} for network, layers in self._selected.items()}
        for layers in selected.values():
            for layer in layers.values():
                mask_layers(layer, persistent=False)
        hold_masks(self._policy)
        return {
            network: {name: layer for name, layer in layers.items() if isinstance(layer, MaskedLayer)}
            for network, layers in selected.items()
        }
