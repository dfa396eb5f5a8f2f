"""
Layers with a mask.

A masked layer has the forward pass of the plain layer: the weight itself is zero where the mask is False. It stays zero
because the gradient is multiplied by the mask before anything reads it (clipping, conjugate gradients, the optimizer). So the
optimizer's moments are zero too, and a step of zero moves nothing. A layer with all its weights computes as before.

Layers are converted in place (:func:`mask_layers`) and stripped back (:func:`unmask_layers`) with the same
``Parameter`` objects, so optimizers, shared modules and the names of a state dict stay valid.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch as th
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from sb3_sparse.nn.compiled import named_modules
from sb3_sparse.nn.fake_quantize import QuantizableLayer

#: A layer that can be pruned, masked or not.
Layer = nn.Linear | nn.Conv1d | nn.Conv2d

SelfMasked = TypeVar("SelfMasked", bound="MaskedLayer")
AnyModule = TypeVar("AnyModule", bound=nn.Module)


class MaskedLayer(QuantizableLayer):
    """
    Base class of masked layers: the buffer ``mask`` and a hook that masks the gradient of ``weight``. Biases are never masked.

    ``mask`` is a boolean tensor of the weight's shape, True where a weight exists. :meth:`set_mask` and loading a state dict
    change it; it is never changed in place. ``multiplier`` is the same mask in the weight's dtype, which is faster to multiply
    with. State dicts that hold the mask also hold the bits of a quantized weight.
    """

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
        if MASKED.get(type(layer)) is not cls:
            raise TypeError(f"{cls.__name__} cannot be made from {type(layer).__name__}")
        masked = _second_module(layer)
        mask_layers(masked)
        assert isinstance(masked, cls)
        return masked

    def to_dense(self) -> Layer:
        """
        Same as: ``unmask_layers(layer)``, but on a second module with the same ``Parameter`` objects; this one stays as
        it is.

        :return: The plain layer with the float weights, zeros where the mask is
        """
        dense: nn.Module = _second_module(self)
        unmask_layers(dense)
        assert isinstance(dense, Layer)
        return dense

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

    def forward(self, input: Tensor) -> Tensor:
        """
        :param input: Of shape ``[..., in]``.
        :return: Of shape ``[..., out]``
        """
        return F.linear(input, self._forward_weight(), self.bias)


def _convolve(layer: Any, input: Tensor) -> Tensor:
    """
    :param input: Of shape ``[n, in, ...]`` or ``[in, ...]``.
    :return: Of shape ``[n, out, ...]`` or ``[out, ...]``
    """
    output: Tensor = layer._conv_forward(input, layer._forward_weight(), layer.bias)
    return output


class MaskedConv1d(MaskedLayer, nn.Conv1d):
    """
    ``nn.Conv1d`` with a mask on its weight, of shape ``[out, in / groups, width]``. It takes the arguments of ``nn.Conv1d``.
    """

    forward = _convolve


class MaskedConv2d(MaskedLayer, nn.Conv2d):
    """
    ``nn.Conv2d`` with a mask on its weight, of shape ``[out, in / groups, height, width]``. It takes the arguments of
    ``nn.Conv2d``.
    """

    forward = _convolve


#: Plain type -> masked type. A layer that is not of exactly one of these types is not pruned.
MASKED: dict[type[nn.Module], type[MaskedLayer]] = {
    nn.Linear: MaskedLinear,
    nn.Conv1d: MaskedConv1d,
    nn.Conv2d: MaskedConv2d,
}
DENSE: dict[type[nn.Module], type[nn.Module]] = {masked: dense for dense, masked in MASKED.items()}


def prunable_layers(module: nn.Module, prefix: str = "") -> dict[str, Layer]:
    """
    :param module: Root of the search.
    :param prefix: Name of the root, to begin the names with.
    :return: The root's linear and convolutional layers, masked or not. Left out are other subclasses, layers whose weight is
        computed (weight norm), and all but the first of layers with the same weight (tied weights)
    """
    layers: dict[str, Layer] = {}
    weights: set[Tensor] = set()
    for name, layer in named_modules(module, prefix):
        if isinstance(layer, Layer) and is_plain(layer) and layer.weight not in weights:
            layers[name] = layer
            weights.add(layer.weight)
    return layers


def is_plain(layer: nn.Module) -> bool:
    """Whether a module is of exactly one of these types, and its weight is a parameter."""
    return type(layer) in {*MASKED, *DENSE} and "weight" in layer._parameters


def mask_layers(module: nn.Module, *, persistent: bool = True) -> None:
    """
    Turn every ``nn.Linear``, ``nn.Conv1d`` and ``nn.Conv2d`` of a module into its masked twin, in place, with a mask of ones.

    :param module: Root of the modules to convert; it may be such a layer itself.
    :param persistent: Whether state dicts hold the masks. If not, they are those of the plain layers.
    """
    for layer in prunable_layers(module).values():
        if type(layer) in MASKED:
            layer.__class__ = MASKED[type(layer)]  # type: ignore[assignment]
            assert isinstance(layer, MaskedLayer)
            layer._init_mask(persistent)


#: The attributes that a masked layer has in addition to those of its plain type.
_ATTRIBUTES = ("mask", "multiplier", "pruned", "listeners", "_hook", "bits", "_saves_bits")


def unmask_layers(module: nn.Module) -> None:
    """
    The inverse of :func:`mask_layers`: plain layers, the same ``Parameter`` objects, zeros where the mask was, no quantizer.

    :param module: Root of the modules to convert.
    """
    for layer in module.modules():
        if isinstance(layer, MaskedLayer):
            if layer._hook is not None:
                layer._hook.remove()
            for attribute in _ATTRIBUTES:
                delattr(layer, attribute)
            layer.__class__ = DENSE[type(layer)]  # type: ignore[assignment]


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
