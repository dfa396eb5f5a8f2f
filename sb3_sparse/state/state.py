"""
What a run must remember to be resumed: the attribute ``sparsity_state`` of the model.

SB3 saves every attribute of a model, so CheckpointCallback, EvalCallback, rl-zoo3 and ``model.save`` all carry it. It
holds strings, integers and dicts alone, so SB3 writes it as JSON, and a zip loads where this package is not installed:

    {"masks": {"actor.latent_pi.0": <packed mask>, ...}, "bits": {"actor.latent_pi.0": 8, ...},
    "explored": {"actor.latent_pi.0": <packed mask>, ...}, "pending": {"actor.latent_pi.0": <packed mask>, ...},
    "makers": {"actor.latent_pi.0": <callback and its arguments>, ...}, "topology": {"actor": [[<step>, ...], ...]},
    "callbacks": {<callback and its arguments>: {"timestep": 1200, ...}}}

Masks are kept because they do not follow from the zeros of the weights: a weight that has just been regrown is zero too.
Bits are those of layers that compute with quantized weights; the weights of a zip are float. Explored are the weights that
have existed at any time of dynamic sparse training, pending are masks that a rewiring has chosen at the end of a run and that
the next one begins with, makers are the callbacks that have changed a mask last, and the topology is the history.
"""

import base64
import binascii
import zlib
from typing import TYPE_CHECKING

import numpy as np
import torch as th

from sb3_sparse.nn import check_bits

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

_ATTRIBUTE = "sparsity_state"
#: What is kept of layers as packed masks.
_KINDS = ("masks", "explored", "pending")


class SparsityState:
    """
    View of a model's ``sparsity_state``, which is made when it is missing. Changes go straight to the model.

    :param model: The model.
    :raises ValueError: if what was saved is damaged
    """

    def __init__(self, model: "BaseAlgorithm") -> None:
        state = model.__dict__.setdefault(_ATTRIBUTE, {})
        if not isinstance(state, dict):
            raise ValueError(f"the saved {_ATTRIBUTE} of this model is damaged: it is no dict")
        self._packed: dict[str, dict[str, str]] = {kind: state.setdefault(kind, {}) for kind in _KINDS}
        self._bits: dict[str, int] = state.setdefault("bits", {})
        self._makers: dict[str, str] = state.setdefault("makers", {})
        self._topology: dict[str, list[list[int]]] = state.setdefault("topology", {})
        self._callbacks: dict[str, dict[str, int]] = state.setdefault("callbacks", {})
        if not all(isinstance(part, dict) for part in state.values()):
            raise ValueError(f"the saved {_ATTRIBUTE} of this model is damaged: a part of it is no dict")
        for clock in self._callbacks.values():
            if not isinstance(clock, dict) or not all(type(value) is int for value in clock.values()):
                raise ValueError(f"the saved {_ATTRIBUTE} of this model is damaged: it does not hold clocks")
        for history in self._topology.values():
            if not isinstance(history, list) or not all(_is_row(row) for row in history):
                raise ValueError(f"the saved {_ATTRIBUTE} of this model is damaged: it does not hold topologies")

    @property
    def callbacks(self) -> set[str]:
        """Names, with their arguments, of the callbacks that have a clock."""
        return set(self._callbacks)

    def clock(self, key: str) -> dict[str, int]:
        """
        :param key: Name of a callback with its arguments.
        :return: The integers that this callback keeps, empty at first
        """
        return self._callbacks.setdefault(key, {})

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
        bits = np.packbits(mask.cpu().numpy().reshape(-1))
        self._packed[kind][layer] = base64.b85encode(zlib.compress(bits.tobytes())).decode()

    def load_mask(self, layer: str, shape: th.Size, kind: str = "masks") -> th.Tensor | None:
        """
        :param layer: Full name of the layer.
        :param shape: Shape of its weight.
        :param kind: "masks", "explored" or "pending".
        :return: The saved mask, or None if there is none
        :raises ValueError: if what was saved is damaged, or does not fit the shape
        """
        if layer not in self._packed[kind]:
            return None
        what = f"the saved mask of layer '{layer}'" if kind == "masks" else f"the saved mask of layer '{layer}' ({kind})"
        try:
            # At most the bytes that the mask can have, and one to notice more.
            size = (shape.numel() + 7) // 8
            decompressor = zlib.decompressobj()
            data = decompressor.decompress(base64.b85decode(self._packed[kind][layer]), size + 1)
        except (AttributeError, TypeError, ValueError, binascii.Error, zlib.error) as error:
            raise ValueError(f"{what} is damaged: {error}") from error
        if len(data) != size or not decompressor.eof:
            raise ValueError(f"{what} does not fit its weight of shape {tuple(shape)}")
        bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=shape.numel())
        return th.from_numpy(bits.astype(bool)).view(shape)

    def drop_mask(self, layer: str, kind: str = "masks") -> None:
        """
        :param layer: Full name of a layer, with a saved mask or without.
        :param kind: "masks", "explored" or "pending".
        """
        self._packed[kind].pop(layer, None)

    def save_maker(self, layer: str, callback: str) -> None:
        """
        :param layer: Full name of a layer.
        :param callback: Name, with its arguments, of the callback that has changed its mask.
        """
        self._makers[layer] = callback

    def maker(self, layer: str) -> str | None:
        """
        :param layer: Full name of a layer.
        :return: The callback that has changed its mask last, or None if nobody has
        """
        return self._makers.get(layer)

    def save_topology(self, network: str, row: list[int]) -> None:
        """
        :param network: Name of a network.
        :param row: What a rewiring adds to its history.
        """
        self._topology.setdefault(network, []).append(row)

    def topologies(self) -> dict[str, list[list[int]]]:
        """The rows of all rewirings, by network."""
        return self._topology

    def save_bits(self, layer: str, bits: int) -> None:
        """
        :param layer: Full name of the layer.
        :param bits: Bits of its quantized weights.
        """
        self._bits[layer] = bits

    def load_bits(self) -> dict[str, int]:
        """
        :return: The saved bits by full layer name
        :raises ValueError: if what was saved is damaged
        """
        try:
            return {layer: check_bits(bits) for layer, bits in self._bits.items()}
        except ValueError as error:
            raise ValueError(f"the saved bits of this model's layers are damaged: {error}") from error


def saved_bits(model: "BaseAlgorithm") -> dict[str, int]:
    """
    :param model: A model, as it was loaded.
    :return: By full layer name: bits of the layers that computed with quantized weights when it was saved
    :raises ValueError: if what was saved is damaged
    """
    return SparsityState(model).load_bits() if _ATTRIBUTE in model.__dict__ else {}


def _is_row(row: object) -> bool:
    if not isinstance(row, list) or len(row) != 6 or not all(type(value) is int for value in row):
        return False
    _, replaced, existing, explored, total, active = row
    return bool(0 <= replaced <= existing <= explored <= total and existing > 0 and active >= 0)
