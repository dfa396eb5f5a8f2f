"""The gradients that the masks hide: those of all weights, as an optimizer's step would have used them."""

from collections.abc import Iterable
from functools import partial

from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from sb3_sparse.nn.layers import MaskedLayer

# Where an optimizer keeps the handles of the hooks of those that catch.
_CATCHERS = "_gradient_catchers"


class DenseGradients:
    """
    Catches the dense gradients of masked layers between :meth:`start` and :meth:`stop`, and costs nothing at other times.

    The gradient is computed anyhow, for the whole weight; a mask then hides a part of it. Caught is what has been
    accumulated when the weight's own optimizer steps, and the last step counts. Gradients that another network's loss
    leaves behind (SB3's actor losses reach the critic's weights) are not taken for the critic's. Same as, for a layer with a
    loss of its own: ``th.autograd.grad(loss, weight)`` with a mask of ones, at the weights as they are.

    :param layers: The layers; those that are not pruned have no hidden part and are never caught.
    :param optimizers: Optimizers to look for the layers' weights in.
    """

    def __init__(self, layers: Iterable[MaskedLayer], optimizers: Iterable[Optimizer]) -> None:
        self._receivers = {layer: partial(self._accumulate, layer) for layer in layers}
        self._optimizers: list[tuple[Optimizer, list[MaskedLayer]]] = []
        for optimizer in optimizers:
            weights = {id(p) for group in optimizer.param_groups for p in group["params"]}
            self._optimizers.append((optimizer, [layer for layer in self._receivers if id(layer.weight) in weights]))
        self._handles: list[RemovableHandle] = []
        # Ctrl-C in the middle of a step may have left a catcher behind.
        for layer in self._receivers:
            layer.receivers.clear()
        for optimizer, _ in self._optimizers:
            for handle in optimizer.__dict__.pop(_CATCHERS, ()):
                handle.remove()
        self._accumulated: dict[MaskedLayer, Tensor] = {}
        self._caught: dict[MaskedLayer, Tensor] = {}

    def start(self) -> None:
        """Begin to catch."""
        self.stop()
        for layer, receiver in self._receivers.items():
            layer.receivers.append(receiver)
        for optimizer, layers in self._optimizers:
            handle = optimizer.register_step_pre_hook(partial(self._catch, layers))
            self._handles.append(handle)
            optimizer.__dict__.setdefault(_CATCHERS, []).append(handle)

    def stop(self) -> dict[MaskedLayer, Tensor]:
        """
        Leave off, and leave nothing behind.

        :return: The gradients of the layers that an optimizer has moved since :meth:`start`, of the weights' shapes
        """
        for layer, receiver in self._receivers.items():
            if receiver in layer.receivers:
                layer.receivers.remove(receiver)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for optimizer, _ in self._optimizers:
            optimizer.__dict__.pop(_CATCHERS, None)
        self._accumulated.clear()
        caught, self._caught = self._caught, {}
        return caught

    def _accumulate(self, layer: MaskedLayer, gradient: Tensor) -> None:
        # What other losses have left there is cleared to None before the backward pass of the layer's own.
        fresh = layer.weight.grad is None or layer not in self._accumulated
        self._accumulated[layer] = gradient if fresh else self._accumulated[layer] + gradient

    def _catch(self, layers: list[MaskedLayer], *_: object) -> None:
        for layer in layers:
            if layer.weight.grad is not None and layer in self._accumulated:
                self._caught[layer] = self._accumulated.pop(layer)
