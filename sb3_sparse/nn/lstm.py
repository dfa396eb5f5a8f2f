"""
The weights of an ``nn.LSTM`` as layers.

An LSTM computes with several matrices, and a mask belongs to one. So each is a layer of its own, named by its part:
``lstm_actor.ih_l0`` has the weight ``lstm_actor.weight_ih_l0``. The LSTM holds the ``Parameter`` in any case, so optimizers,
state dicts and the forward pass are those of torch.
"""

import re
from typing import Any

import torch as th
from torch import Tensor, nn

from sb3_sparse.nn.fake_quantize import fake_quantize

_PREFIX = "weight_"
_NAME = re.compile(rf"(.*\.)?{_PREFIX}([ih]h_l\d+(?:_reverse)?|hr_l\d+(?:_reverse)?)")


class LSTMWeight(nn.Module):
    """
    One matrix of an LSTM as a layer. It computes nothing; the LSTM does.

    :param lstm: The LSTM.
    :param part: Name of the matrix without ``weight_``, such as "ih_l0".
    """

    #: The LSTM; None in a copy without one.
    lstm: nn.LSTM

    def __init__(self, lstm: nn.LSTM, part: str) -> None:
        super().__init__()
        self.part = part
        self.link(lstm)

    def link(self, lstm: nn.LSTM | None) -> None:
        """Belong to an LSTM, which may be its parent: it is not a child."""
        self.__dict__["lstm"] = lstm

    @property
    def weight(self) -> Tensor:
        """The matrix, ``[4 * out, in]`` or ``[4 * out, out]``: the rows of the input, forget, cell and output gates."""
        weight: Tensor = getattr(self.lstm, f"{_PREFIX}{self.part}")
        return weight

    def extra_repr(self) -> str:
        return "" if self.lstm is None else "{}, {}".format(*self.weight.shape)

    def join(self) -> None:
        """Become a child of the LSTM, which then computes with this layer's bits."""
        assert self.part not in self.lstm._modules, f"{self.part} is masked already: find the layers again"
        self.lstm.add_module(self.part, self)
        self.lstm.__class__ = MaskedLSTM

    def leave(self) -> None:
        """The inverse of :meth:`join`."""
        del self.lstm._modules[self.part]
        if not self.lstm._modules:
            self.lstm.__class__ = nn.LSTM


class MaskedLSTM(nn.LSTM):
    """``nn.LSTM`` with masks on some of its weights, which are its children; made by :func:`~sb3_sparse.nn.mask_layers`."""

    def forward(self, input: Tensor, hx: Any = None) -> Any:  # type: ignore[override]
        """
        :param input: As ``nn.LSTM`` takes it.
        :param hx: The state before it, likewise.
        :return: Outputs and the next state
        """
        bits = self._bits()
        if not bits:
            return super().forward(input, hx)
        floats = self._flat_weights
        weights = self._forward_weights(bits)
        self._flat_weights = _in_one_chunk(weights, floats) if input.is_cuda else weights
        try:
            return super().forward(input, hx)
        finally:
            self._flat_weights = floats

    def _bits(self) -> dict[str, int]:
        """Bits of the quantized matrices, by name."""
        layers: dict[str, Any] = {f"{_PREFIX}{part}": layer for part, layer in self._modules.items()}
        return {name: layer.bits for name, layer in layers.items() if layer.bits is not None}

    def _forward_weights(self, bits: dict[str, int]) -> list[Any]:
        """
        The weights and biases in torch's order. The two matrices of a layer are one matrix of an exported policy, so they have
        one scale if they have the same bits.
        """
        weights: dict[str, Any] = dict(zip(self._flat_weights_names, self._flat_weights, strict=True))
        for name, width in bits.items():
            other = name.replace("_ih_", "_hh_") if "_ih_" in name else name.replace("_hh_", "_ih_")
            if other == name or bits.get(other) != width:
                weights[name] = fake_quantize(weights[name], width)
            elif "_ih_" in name:
                sizes = [weights[name].shape[1], weights[other].shape[1]]
                both = fake_quantize(th.cat([weights[name], weights[other]], dim=1), width)
                weights[name], weights[other] = th.split(both, sizes, dim=1)
        return list(weights.values())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        # The copies of its children do not know it yet.
        layers: dict[str, Any] = self._modules
        for layer in layers.values():
            layer.link(self)
            layer._hook_gradient()


def lstm_weights(lstm: nn.Module) -> dict[str, LSTMWeight]:
    """
    :param lstm: Any module.
    :return: The weights of an ``nn.LSTM`` or a :class:`MaskedLSTM` by part; those that are masked are its children. Empty for
        other modules, and without weights that are computed from other parameters
    """
    if type(lstm) not in (nn.LSTM, MaskedLSTM):
        return {}
    assert isinstance(lstm, nn.LSTM)
    parts = (name.removeprefix(_PREFIX) for name in _matrices(lstm) if name in lstm._parameters)
    found = {part: lstm._modules.get(part) or LSTMWeight(lstm, part) for part in parts}
    return {part: layer for part, layer in found.items() if isinstance(layer, LSTMWeight)}


def has_plain_weights(module: nn.Module) -> bool:
    """
    :param module: Any module.
    :return: Whether it is an LSTM all of whose matrices are in :func:`lstm_weights`
    """
    return type(module) in (nn.LSTM, MaskedLSTM) and len(lstm_weights(module)) == len(_matrices(module))


def _in_one_chunk(weights: list[Any], like: list[Any]) -> list[Any]:
    """cuDNN wants the weights in one chunk of memory, in the order that it has given the parameters."""
    order = sorted(range(len(like)), key=lambda index: int(like[index].data_ptr()))
    parts = th.split(th.cat([weights[index].flatten() for index in order]), [like[index].numel() for index in order])
    found = {index: part.view(like[index].shape) for index, part in zip(order, parts, strict=True)}
    return [found[index] for index in range(len(like))]


def _matrices(lstm: Any) -> list[str]:
    return [name for name in lstm._flat_weights_names if name.startswith(_PREFIX)]


def layer_name(parameter: str) -> str | None:
    """
    >>> layer_name("actor.mu.weight"), layer_name("lstm_actor.weight_ih_l0"), layer_name("actor.mu.bias")
    ('actor.mu', 'lstm_actor.ih_l0', None)

    :param parameter: Name of a tensor in a state dict.
    :return: Name of the layer whose weight it is, if that may be pruned
    """
    if parameter.endswith(".weight"):
        return parameter.removesuffix(".weight")
    match = _NAME.fullmatch(parameter)
    return None if match is None else f"{match[1] or ''}{match[2]}"
