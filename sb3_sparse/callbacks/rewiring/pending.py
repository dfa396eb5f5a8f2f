"""Masks that wait for the next run."""

from typing import TYPE_CHECKING

from sb3_sparse.nn import MaskedLayer
from sb3_sparse.sparsity import Named
from sb3_sparse.state import SparsityState

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


class Pending:
    """
    Masks chosen at a run's last step; the next run starts with them.

    :param model: The model.
    :param state: The state that is saved with it.
    :param clock: The saved integers of the callback's clock.
    :param layers: The layers by full name.
    """

    def __init__(
        self, model: "BaseAlgorithm", state: SparsityState, clock: dict[str, int], layers: dict[str, MaskedLayer]
    ) -> None:
        self._model = model
        self._state = state
        self._clock = clock
        self._layers = layers

    def keep(self, masks: Named) -> None:
        """
        :param masks: Masks of the layers.
        """
        for name, mask in masks.items():
            self._state.save_mask(name, mask, "pending")
        self._clock["pending"] = self._model._n_updates

    def take(self) -> Named:
        """
        :return: The masks, once, if the model has not been trained and no layer pruned since; none otherwise
        """
        fits = self._clock.pop("pending", None) == self._model._n_updates
        masks: Named = {}
        for name, layer in self._layers.items():
            mask = self._state.load_mask(name, layer.mask.shape, "pending")
            self._state.drop_mask(name, "pending")
            fits = fits and mask is not None and int(mask.sum()) == int(layer.mask.sum())
            if mask is not None:
                masks[name] = mask.to(layer.mask.device)
        return masks if fits else {}
