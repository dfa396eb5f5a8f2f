"""
Masks and quantizers of a model that has just been loaded.

The zip of a stock policy is a plain SB3 zip: its layers are loaded as plain layers, and ``sparsity_state`` alone says what
they were. Every callback restores all saved layers before it starts, those of other networks included; :func:`restore` does so
without training. The layers of a sparse policy are saved with their masks, bits and grids.
"""

import warnings
from typing import TYPE_CHECKING

import torch as th

from sb3_sparse.nn import InputGrid, Layer, MaskedLayer, find_networks, hold_masks, mask_layers, original
from sb3_sparse.state.sparsity_state import SparsityState, has_state
from sb3_sparse.state.written_inputs import round_inputs

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


class SavedLayers:
    """
    The saved masks, bits and inputs of layers that do not have them. Reading them changes nothing.

    :param model: The model.
    :param state: Its saved state.
    :raises ValueError: if the state is damaged
    """

    def __init__(self, model: "BaseAlgorithm", state: SparsityState) -> None:
        self._policy = model.policy
        self._state = state
        self.masks: dict[Layer, th.Tensor] = {}
        self.bits: dict[Layer, int] = {}
        #: The grids of rounded inputs, with the names of the layers.
        self.inputs: dict[Layer, tuple[str, InputGrid]] = {}
        #: Layers with a saved mask, saved bits or saved inputs that the policy does not have.
        self.missing: list[str] = []
        #: Networks with weights that are not zero where the saved masks are: these masks are out of date. With layer names.
        self.regrown: dict[str, list[str]] = {}
        bits, inputs = state.load_bits(), state.load_inputs()
        networks = find_networks(self._policy)
        self.missing = sorted((state.masked | {*bits, *inputs}).difference(*networks.values()))
        for network, layers in networks.items():
            masks = {}
            for name, layer in layers.items():
                mask = None if isinstance(layer, MaskedLayer) else state.load_mask(name, layer.weight.shape)
                if mask is not None:
                    masks[layer] = mask.to(layer.weight.device)
                if name in bits:
                    self.bits[layer] = bits[name]
                # A layer that has a grid may have another range by now.
                if name in inputs and getattr(layer, "input_grid", None) is None:
                    self.inputs[layer] = name, inputs[name].to(layer.weight.device)
            if any(bool((layer.weight != 0).logical_and(~mask).any()) for layer, mask in masks.items()):
                self.regrown[network] = list(layers)
            else:
                self.masks.update(masks)

    def check(self) -> None:
        """
        Warn of missing layers, and of masks that are out of date: they are deleted, rather than that new weights become zero.
        """
        if self.missing:
            warnings.warn(
                f"{type(original(self._policy)).__name__} does not have all layers with saved masks or quantizers as plain "
                f"nn.Linear, nn.Conv1d, nn.Conv2d or nn.LSTM, and nothing is restored in {', '.join(self.missing)}: load the "
                "model with the policy that it was saved with",
                stacklevel=2,
            )
        for network, layers in self.regrown.items():
            for layer in layers:
                self._state.drop_mask(layer)
            warnings.warn(
                f"network '{network}' was saved with masks and has since been trained without its callback, so pruned "
                "weights have come back; the saved masks are dropped, and its callback starts anew on the present weights",
                stacklevel=2,
            )

    def put_back(self) -> None:
        """Mask and quantize the layers as they were saved; the optimizers obey the masks too."""
        for layer in (*self.masks, *self.bits, *self.inputs):
            mask_layers(layer, persistent=False)
            assert isinstance(layer, MaskedLayer)
            if layer in self.masks:
                layer.set_mask(self.masks[layer])
            if layer in self.bits:
                layer.set_bits(self.bits[layer])
            if layer in self.inputs:
                name, grid = self.inputs[layer]
                round_inputs(self._state, name, layer, grid)
        hold_masks(self._policy)


def restore(model: "BaseAlgorithm") -> None:
    """
    Mask and quantize the layers of a loaded model as they were when it was saved, so that it predicts the same. Inputs that
    were rounded are rounded again.

        model = SAC.load("agent")  # a stock policy, saved after QATCallback had begun: it computes with float weights
        restore(model)             # with quantized weights

    Models that go on training with a callback of this package do not need it, and sparse policies never do. Calling it twice
    does no harm.

    :param model: Any SB3 model; one without a saved state stays as it is.
    :raises ValueError: if the saved state is damaged, or the argument is not a model
    """
    if not hasattr(model, "policy"):
        raise ValueError(f"restore takes a model, such as SAC.load(...), and was given a {type(model).__name__}")
    if has_state(model):
        saved = SavedLayers(model, SparsityState(model))
        saved.check()
        saved.put_back()
