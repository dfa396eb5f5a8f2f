"""
The grids of weights in a model's saved state: of layers whose weights somebody has put on steps that he chose, row by row. The
weights in the zip are those of the grid, so there is nothing to restore; an exporter needs to know the steps.
"""

from typing import TYPE_CHECKING, NamedTuple

from sb3_sparse.nn import BITS
from sb3_sparse.state.sparsity_state import SparsityState, has_state

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


class SavedGrid(NamedTuple):
    """
    The grid ``scale[row] * gain[column] * q`` of a layer's weights. Scales and gains are numbers in one byte each: a unit, and
    then a code for each, see :class:`~sb3_sparse.runtime.network.elements.Minifloats`.

    :param bits: Bits of a weight.
    :param scale: The scales of the rows.
    :param gain: The gains of the columns; empty for ones.
    """

    bits: int
    scale: list[float]
    gain: list[float]


def save_grid(state: SparsityState, layer: str, grid: SavedGrid) -> None:
    """
    :param state: The state that is saved with a model.
    :param layer: Full name of a layer.
    :param grid: The grid that its weights are on.
    """
    state.grids[layer] = grid._asdict()


def saved_grids(model: "BaseAlgorithm") -> dict[str, SavedGrid]:
    """
    :param model: A model, as it was loaded.
    :return: By full layer name: the grids that weights were on when the model was saved; they may have left them since
    :raises ValueError: if the saved grids are damaged
    """
    grids = {}
    for layer, saved in SparsityState(model).grids.items() if has_state(model) else ():
        if not isinstance(saved, dict) or set(saved) != set(SavedGrid._fields) or not _is_grid(**saved):
            raise ValueError(f"the saved grid of layer '{layer}' is damaged")
        grids[layer] = SavedGrid(**saved)  # type: ignore[arg-type]
    return grids


def _is_grid(bits: object, scale: object, gain: object) -> bool:
    if type(bits) is not int or bits not in BITS or not isinstance(scale, list) or not isinstance(gain, list):
        return False
    for unit, *codes in filter(None, (scale, gain)):
        if type(unit) is not float or not 0 < unit < 1e30 or not all(type(code) is int and 0 <= code < 256 for code in codes):
            return False
    return len(scale) > 1 and len(gain) != 1
