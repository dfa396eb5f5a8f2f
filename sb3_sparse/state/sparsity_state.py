"""
The attribute ``sparsity_state`` of a model: everything that a resumed run needs and that SB3 does not save itself.

SB3 saves every attribute of a model, so CheckpointCallback, EvalCallback, rl-zoo3 and ``model.save`` all include it. It
contains only strings, integers, lists and dicts, so SB3 writes it as JSON, and the zip loads where this package is not
installed:

    {"masks": {"actor.latent_pi.0": <packed mask>, ...}, "bits": {"actor.latent_pi.0": 8, ...},
    "inputs": {"actor.latent_pi.2": [3.7, 0, 255, 0, 1], ...},
    "grids": {"actor.latent_pi.0": {"bits": 4, "scale": [0.01, 240, ...], "gain": []}, ...},
    "explored": {"actor.latent_pi.0": <packed mask>, ...}, "pending": {"actor.latent_pi.0": <packed mask>, ...},
    "makers": {"actor.latent_pi.0": <callback and its arguments>, ...}, "topology": {"actor": [[<step>, ...], ...]},
    "callbacks": {<callback and its arguments>: {"timestep": 1200, ...}}}

* masks: they do not follow from the zeros of the weights, because a weight that has just been grown is zero too;
* bits: of the layers that compute with quantized weights (the weights in the zip are float);
* inputs: the grids of the layers that round their inputs, see :meth:`~sb3_sparse.nn.InputGrid.numbers`. Their ranges change in
  every gradient step, and are written here when the model is saved;
* grids: of the layers whose weights are on a grid of their own, see :class:`~sb3_sparse.state.saved_grids.SavedGrid`;
* explored: weights that have existed at any time of dynamic sparse training;
* pending: masks that a run has chosen at its last step, and that the next run starts with;
* makers: each mask's owner, the callback that changed it last (the name is that of old files);
* topology: one :class:`TopologyRow` per rewiring;
* callbacks: the clock of each callback, see :class:`~sb3_sparse.state.Clock`.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch as th

from sb3_sparse.nn import InputGrid, check_bits
from sb3_sparse.state.packing import pack, unpack

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

_ATTRIBUTE = "sparsity_state"
#: The parts that hold one packed mask per layer.
_KINDS = ("masks", "explored", "pending")


class TopologyRow(NamedTuple):
    """
    A rewiring of one network, in numbers of weights.

    :param timestep: Environment step.
    :param replaced: Weights that were grown.
    :param existing: Weights that exist.
    :param explored: Weights that have existed at any time.
    :param total: Weights of a dense network.
    :param active: Neurons (output channels of convolutions) with at least one weight.
    """

    timestep: int
    replaced: int
    existing: int
    explored: int
    total: int
    active: int


class SparsityState:
    """
    View of a model's ``sparsity_state``, which is created if it is missing. Changes go straight to the model.

    :param model: The model.
    :raises ValueError: if the saved state is damaged
    """

    def __init__(self, model: "BaseAlgorithm") -> None:
        state = model.__dict__.setdefault(_ATTRIBUTE, {})
        if not isinstance(state, dict):
            raise ValueError(f"the saved {_ATTRIBUTE} of this model is damaged: it is not a dict")
        self._packed: dict[str, dict[str, str]] = {kind: state.setdefault(kind, {}) for kind in _KINDS}
        self._bits: dict[str, int] = state.setdefault("bits", {})
        self._state = state
        self._owners: dict[str, str] = state.setdefault("makers", {})
        self._topology: dict[str, list[list[int]]] = state.setdefault("topology", {})
        #: By key: the integers of each callback's clock.
        self.clocks: dict[str, dict[str, int]] = state.setdefault("callbacks", {})
        if not all(isinstance(part, dict) for part in state.values()):
            raise ValueError(f"the saved {_ATTRIBUTE} of this model is damaged: a part of it is not a dict")
        for clock in self.clocks.values():
            if not isinstance(clock, dict) or not all(type(value) is int for value in clock.values()):
                raise ValueError(f"the saved {_ATTRIBUTE} of this model is damaged: its clocks do not hold integers")
        for history in self._topology.values():
            if not isinstance(history, list) or not all(_is_row(row) for row in history):
                raise ValueError(f"the saved {_ATTRIBUTE} of this model is damaged: it does not hold topologies")

    @property
    def masked(self) -> set[str]:
        """Full names of the layers with a saved mask."""
        return set(self._packed["masks"])

    def save_mask(self, layer: str, mask: th.Tensor, kind: str = "masks") -> None:
        """
        :param layer: Full name of the layer.
        :param mask: Its boolean mask.
        :param kind: "masks", "explored" or "pending".
        """
        self._packed[kind][layer] = pack(mask)

    def load_mask(self, layer: str, shape: th.Size, kind: str = "masks") -> th.Tensor | None:
        """
        :param layer: Full name of the layer.
        :param shape: Shape of its weight.
        :param kind: "masks", "explored" or "pending".
        :return: The saved mask, or None if there is none
        :raises ValueError: if the saved mask is damaged, or does not fit the shape
        """
        if layer not in self._packed[kind]:
            return None
        what = f"the saved mask of layer '{layer}'" if kind == "masks" else f"the saved mask of layer '{layer}' ({kind})"
        return unpack(self._packed[kind][layer], shape, what)

    def drop_mask(self, layer: str, kind: str = "masks") -> None:
        """
        :param layer: Full name of a layer, with a saved mask or without.
        :param kind: "masks", "explored" or "pending".
        """
        self._packed[kind].pop(layer, None)

    def save_owner(self, layer: str, callback: str) -> None:
        """
        :param layer: Full name of a layer.
        :param callback: Key of the callback that has changed its mask.
        """
        self._owners[layer] = callback

    def owner(self, layer: str) -> str | None:
        """
        :param layer: Full name of a layer.
        :return: Key of the callback that changed its mask last, or None
        """
        return self._owners.get(layer)

    def save_topology(self, network: str, row: TopologyRow) -> None:
        """
        :param network: Name of a network.
        :param row: A rewiring, to be added to the network's history.
        """
        self._topology.setdefault(network, []).append(list(row))

    def topologies(self) -> dict[str, list[TopologyRow]]:
        """All rewirings, by network."""
        return {network: [TopologyRow(*row) for row in history] for network, history in self._topology.items()}

    def save_bits(self, layer: str, bits: int) -> None:
        """
        :param layer: Full name of the layer.
        :param bits: Bits of its quantized weights.
        """
        self._bits[layer] = bits

    def load_bits(self) -> dict[str, int]:
        """
        :return: The saved bits by full layer name
        :raises ValueError: if the saved bits are damaged
        """
        try:
            return {layer: check_bits(bits) for layer, bits in self._bits.items()}
        except ValueError as error:
            raise ValueError(f"the saved bits of this model's layers are damaged: {error}") from error

    @property
    def grids(self) -> dict[str, dict[str, object]]:
        """The saved grids of weights by full layer name, to be changed in place."""
        grids: dict[str, dict[str, object]] = self._state.setdefault("grids", {})
        return grids

    def save_inputs(self, layer: str, grid: InputGrid) -> None:
        """
        :param layer: Full name of the layer.
        :param grid: The grid of its inputs.
        """
        self._state.setdefault("inputs", {})[layer] = grid.numbers()

    def load_inputs(self) -> dict[str, InputGrid]:
        """
        :return: New grids by full layer name
        :raises ValueError: if the saved grids are damaged
        """
        try:
            return {layer: InputGrid.from_numbers(numbers) for layer, numbers in self._state.get("inputs", {}).items()}
        except ValueError as error:
            raise ValueError(f"the saved inputs of this model's layers are damaged: {error}") from error


def saved_bits(model: "BaseAlgorithm") -> dict[str, int]:
    """
    :param model: A model, as it was loaded.
    :return: By full layer name: bits of the layers that computed with quantized weights when the model was saved
    :raises ValueError: if the saved bits are damaged
    """
    return SparsityState(model).load_bits() if has_state(model) else {}


def saved_inputs(model: "BaseAlgorithm") -> dict[str, InputGrid]:
    """
    :param model: A model, as it was loaded.
    :return: By full layer name: grids of the layers that rounded their inputs when the model was saved
    :raises ValueError: if the saved grids are damaged
    """
    return SparsityState(model).load_inputs() if has_state(model) else {}


def has_state(model: "BaseAlgorithm") -> bool:
    """
    :param model: A model.
    :return: Whether a callback of this package has worked on it
    """
    return _ATTRIBUTE in model.__dict__


def _is_row(row: object) -> bool:
    if not isinstance(row, list) or len(row) != len(TopologyRow._fields) or not all(type(value) is int for value in row):
        return False
    _, replaced, existing, explored, total, active = row
    return bool(0 <= replaced <= existing <= explored <= total and existing > 0 and active >= 0)
