"""
The grids of rounded inputs in a model's saved state.

Their ranges change in every gradient step, and to read them then would wait for a GPU. SB3 takes the state dict of a policy
before it writes the rest of a zip. So a hook writes the present range of a layer whenever its state dict is taken; it stays
with the layer, like a mask.
"""

from sb3_sparse.nn import InputGrid, MaskedLayer
from sb3_sparse.state.sparsity_state import SparsityState


class _Writer:
    def __init__(self, state: SparsityState, name: str, layer: MaskedLayer) -> None:
        self._state, self._name, self._layer = state, name, layer

    def write(self, *_: object) -> None:
        if self._layer.input_grid is not None:
            self._state.save_inputs(self._name, self._layer.input_grid)


def round_inputs(state: SparsityState, name: str, layer: MaskedLayer, grid: InputGrid) -> None:
    """
    Round the inputs of a layer from now on, and save its grid with the model.

    :param state: The state that is saved with the model.
    :param name: Full name of the layer.
    :param layer: The layer.
    :param grid: The grid, on the layer's device.
    """
    hooks = layer._state_dict_pre_hooks
    for key in [key for key, hook in hooks.items() if isinstance(getattr(hook, "__self__", None), _Writer)]:
        del hooks[key]
    layer.input_grid = grid
    layer.register_state_dict_pre_hook(_Writer(state, name, layer).write)  # type: ignore[no-untyped-call]
    state.save_inputs(name, grid)
