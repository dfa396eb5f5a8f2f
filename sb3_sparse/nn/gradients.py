"""Dense gradients: those of all weights, pruned ones included, as the optimizer's step would use them without masks."""

from collections.abc import Iterable
from functools import partial

from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from sb3_sparse.nn.layers import MaskedLayer

# The attribute of an optimizer that holds the handles of the hooks below while they are registered.
_HANDLES = "_gradient_handles"


class DenseGradients:
    """
    Records the dense gradients of masked layers between :meth:`start` and :meth:`stop`, and costs nothing at other times.

    Autograd computes the gradient of the whole weight in any case; the mask is applied afterwards. This class records the
    gradient present when the weight's own optimizer steps; the last step counts. So a gradient that another network's loss
    leaves on the weight (SB3's actor losses reach the critic's weights) is not recorded as the critic's. For a layer with a
    loss of its own it is the same as ``th.autograd.grad(loss, weight)`` with a mask of ones, at the present weights.

    :param layers: The layers; only those that are pruned are recorded.
    :param optimizers: Optimizers to look for the layers' weights in.
    """

    def __init__(self, layers: Iterable[MaskedLayer], optimizers: Iterable[Optimizer]) -> None:
        self._listeners = {layer: partial(self._accumulate, layer) for layer in layers}
        self._optimizers: list[tuple[Optimizer, list[MaskedLayer]]] = []
        for optimizer in optimizers:
            weights = {id(p) for group in optimizer.param_groups for p in group["params"]}
            self._optimizers.append((optimizer, [layer for layer in self._listeners if id(layer.weight) in weights]))
        self._handles: list[RemovableHandle] = []
        # Ctrl-C in the middle of a step may have left listeners and hooks behind.
        for layer in self._listeners:
            layer.listeners.clear()
        for optimizer, _ in self._optimizers:
            for handle in optimizer.__dict__.pop(_HANDLES, ()):
                handle.remove()
        self._accumulated: dict[MaskedLayer, Tensor] = {}
        self._recorded: dict[MaskedLayer, Tensor] = {}

    def start(self) -> None:
        """Begin to record."""
        self.stop()
        for layer, listener in self._listeners.items():
            layer.listeners.append(listener)
        for optimizer, layers in self._optimizers:
            handle = optimizer.register_step_pre_hook(partial(self._record, layers))
            self._handles.append(handle)
            optimizer.__dict__.setdefault(_HANDLES, []).append(handle)

    def stop(self) -> dict[MaskedLayer, Tensor]:
        """
        Stop recording and remove all listeners and hooks.

        :return: The gradients of the layers that an optimizer has updated since :meth:`start`, of the weights' shapes
        """
        for layer, listener in self._listeners.items():
            if listener in layer.listeners:
                layer.listeners.remove(listener)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for optimizer, _ in self._optimizers:
            optimizer.__dict__.pop(_HANDLES, None)
        self._accumulated.clear()
        recorded, self._recorded = self._recorded, {}
        return recorded

    def _accumulate(self, layer: MaskedLayer, gradient: Tensor) -> None:
        # SB3 clears gradients that other losses have left to None before the backward pass of the layer's own loss.
        fresh = layer.weight.grad is None or layer not in self._accumulated
        self._accumulated[layer] = gradient if fresh else self._accumulated[layer] + gradient

    def _record(self, layers: list[MaskedLayer], *_: object) -> None:
        for layer in layers:
            if layer.weight.grad is not None and layer in self._accumulated:
                self._recorded[layer] = self._accumulated.pop(layer)
