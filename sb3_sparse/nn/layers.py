"""
Layers with a mask.

A masked layer has the forward pass of the plain layer: the weight itself is zero where the mask is False. It stays zero
because the gradient is multiplied by the mask before anything reads it (clipping, conjugate gradients, the optimizer). So the
optimizer's moments are zero too, and a step of zero moves nothing. A layer with all its weights computes as before.

Layers are converted in place and stripped back (:mod:`~sb3_sparse.nn.masking`) with the same ``Parameter`` objects, so
optimizers, shared modules and the names of a state dict stay valid.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NoReturn, TypeVar

import torch as th
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from sb3_sparse.nn.fake_quantize import QuantizableLayer
from sb3_sparse.nn.lstm import LSTMWeight

#: A layer that can be pruned, masked or not.
Layer = nn.Linear | nn.Conv1d | nn.Conv2d | LSTMWeight
#: The attributes that a masked layer has in addition to those of its plain type.
_ATTRIBUTES = ("mask", "multiplier", "pruned", "listeners", "_hook", "bits", "weight_grid", "input_grid", "_saves_bits")

SelfMasked = TypeVar("SelfMasked", bound="MaskedLayer")
AnyModule = TypeVar("AnyModule", bound=nn.Module)


class MaskedLayer(QuantizableLayer):
    """
    Base class of masked layers: the buffer ``mask`` and a hook that masks the gradient of ``weight``. Biases are never masked.

    ``mask`` is a boolean tensor of the weight's shape, True where a weight exists. :meth:`set_mask` and loading a state dict
    change it; it is never changed in place. ``multiplier`` is the same mask in the weight's dtype, which is faster to multiply
    with. State dicts that hold the mask also hold the bits of a quantized weight.
    """

    #: Attributes that torch.jit.script leaves out: it does not know their types, and the forward pass does not use them.
    __jit_ignored_attributes__: ClassVar[list[str]] = ["listeners", "_hook"]
    #: The type that it is a masked one of.
    plain: ClassVar[type[nn.Module]]

    weight: Tensor
    mask: Tensor
    multiplier: Tensor
    #: Whether the mask takes any weight away.
    pruned: bool
    #: While the layer is pruned: called with every gradient of the weight, before it is masked.
    listeners: list[Callable[[Tensor], None]]
    _hook: RemovableHandle | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The arguments of the plain layer, the next class in the method resolution order.
        super().__init__(*args, **kwargs)
        self._init_mask(persistent=True)

    def _init_mask(self, persistent: bool) -> None:
        self.register_buffer("mask", th.ones_like(self.weight, dtype=th.bool), persistent=persistent)
        self.register_buffer("multiplier", th.ones_like(self.weight, requires_grad=False), persistent=False)
        self.pruned = False
        self.listeners = []
        self._hook = None
        self._init_bits(persistent)

    def _hook_gradient(self) -> None:
        if self.pruned and self.weight.requires_grad and self._hook is None:
            # A tensor hook, not a post-accumulate hook: torch.autograd.grad has to see it too (TRPO's natural gradient).
            self._hook = self.weight.register_hook(self._mask_gradient)  # type: ignore[no-untyped-call]

    def _mask_gradient(self, gradient: Tensor) -> Tensor:
        for listen in self.listeners:
            listen(gradient.detach())
        return gradient * self.multiplier

    @th.no_grad()
    def set_mask(self, mask: Tensor) -> None:
        """
        Replace the mask and zero the weights that it removes.

        Same as: ``layer.mask = mask; layer.weight *= mask``. The state of an optimizer is not changed; see
        :func:`sb3_sparse.nn.optim.apply_mask`.

        :param mask: Boolean tensor of the weight's shape.
        :raises ValueError: if the shape does not fit
        """
        if mask.shape != self.weight.shape:
            raise ValueError(f"a mask of shape {tuple(mask.shape)} does not fit a weight of shape {tuple(self.weight.shape)}")
        self.mask.copy_(mask)
        self._obey_mask()

    def _obey_mask(self) -> None:
        self.multiplier.copy_(self.mask)
        self.weight.masked_fill_(~self.mask, 0.0)
        self.pruned = not bool(self.mask.all())
        self._hook_gradient()

    @classmethod
    def from_dense(cls: type[SelfMasked], layer: Layer) -> SelfMasked:
        """
        Same as: ``mask_layers(layer)``, but on a second module with the same ``Parameter`` objects; ``layer`` stays as
        it is.

        :param layer: The plain layer whose parameters to take.
        :return: The masked layer, with a mask of ones
        :raises TypeError: if the layer is not of exactly the plain type
        """
        if type(layer) is not cls.plain:
            raise TypeError(f"{cls.__name__} cannot be made from {type(layer).__name__}")
        masked: Any = _second_module(layer)
        cls._mask(masked, persistent=True)
        return masked  # type: ignore[no-any-return]

    def to_dense(self) -> Layer:
        """
        Same as: ``unmask_layers(layer)``, but on a second module with the same ``Parameter`` objects; this one stays as
        it is.

        :return: The plain layer with the float weights, zeros where the mask is
        """
        dense: Any = _second_module(self)
        dense._strip()
        return dense  # type: ignore[no-any-return]

    @classmethod
    def _mask(cls, layer: nn.Module, *, persistent: bool) -> None:
        """Make a masked layer of a plain one, in place."""
        layer.__class__ = cls
        assert isinstance(layer, MaskedLayer)
        layer._init_mask(persistent)

    def _strip(self) -> None:
        """Make a plain layer of it, in place."""
        if self._hook is not None:
            self._hook.remove()
        for attribute in _ATTRIBUTES:
            delattr(self, attribute)
        self.__class__ = self.plain  # type: ignore[assignment]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        with th.no_grad():
            self._obey_mask()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_hook": None, "listeners": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Copies and pickles of a Parameter come without its hooks.
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._hook_gradient()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, kept={int(self.mask.sum())}/{self.mask.numel()}"


class MaskedLinear(MaskedLayer, nn.Linear):
    """
    ``nn.Linear`` with a mask on its weight, of shape ``[out, in]``. It takes the arguments of ``nn.Linear``.

    >>> layer = MaskedLinear(3, 2)
    >>> layer.set_mask(th.tensor([[True, False, False], [True, True, False]]))
    >>> layer
    MaskedLinear(in_features=3, out_features=2, bias=True, kept=3/6)
    """

    plain = nn.Linear

    def forward(self, input: Tensor) -> Tensor:
        """
        :param input: Of shape ``[..., in]``.
        :return: Of shape ``[..., out]``
        """
        return F.linear(self._forward_input(input), self._forward_weight(), self.bias)


def _convolve(layer: Any, input: Tensor) -> Tensor:
    """
    :param input: Of shape ``[n, in, ...]`` or ``[in, ...]``.
    :return: Of shape ``[n, out, ...]`` or ``[out, ...]``
    """
    output: Tensor = layer._conv_forward(layer._forward_input(input), layer._forward_weight(), layer.bias)
    return output


class MaskedConv1d(MaskedLayer, nn.Conv1d):
    """
    ``nn.Conv1d`` with a mask on its weight, of shape ``[out, in / groups, width]``. It takes the arguments of ``nn.Conv1d``.
    """

    plain = nn.Conv1d
    forward = _convolve


class MaskedConv2d(MaskedLayer, nn.Conv2d):
    """
    ``nn.Conv2d`` with a mask on its weight, of shape ``[out, in / groups, height, width]``. It takes the arguments of
    ``nn.Conv2d``.
    """

    plain = nn.Conv2d
    forward = _convolve


class MaskedLSTMWeight(MaskedLayer, LSTMWeight):
    """A matrix of an LSTM with a mask. It is a child of the LSTM, whose forward pass computes with its bits."""

    plain = LSTMWeight

    def _init_mask(self, persistent: bool) -> None:
        super()._init_mask(persistent)
        self.join()

    def _strip(self) -> None:
        super()._strip()
        self.leave()

    def _hook_gradient(self) -> None:
        # A copy belongs to no LSTM until that is copied as well, and links it.
        if self.lstm is not None:
            super()._hook_gradient()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The LSTMs of sparse policies had no masks at first.
        if self._saves_bits:
            state_dict.setdefault(f"{prefix}mask", th.ones_like(self.mask))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "lstm": None}

    @classmethod
    def from_dense(cls, layer: Layer) -> NoReturn:
        """
        :raises TypeError: always
        """
        raise TypeError("the weights of an LSTM are masked in place: use mask_layers")

    def to_dense(self) -> NoReturn:
        """
        :raises TypeError: always
        """
        raise TypeError("the weights of an LSTM are unmasked in place: use unmask_layers")


def _second_module(layer: AnyModule) -> AnyModule:
    """A second module with the same parameters and buffers."""
    second = layer.__class__.__new__(layer.__class__)
    second.__dict__.update(
        {name: value.copy() if isinstance(value, dict) else value for name, value in layer.__dict__.items()}
    )
    if isinstance(second, MaskedLayer):
        second._hook = None  # The first module keeps it.
        second.listeners = []
    return second
