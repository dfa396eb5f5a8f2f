"""
Modules that follow each other as layers: activations, norms and pools belong to the layer before them. Where that layer cannot
have them, a unit layer carries them.
"""

from collections.abc import Iterable
from dataclasses import replace
from math import prod
from typing import NamedTuple

from torch import nn

from sb3_sparse.export.trace.graph import Affine, ends_in_sums, unit_layer
from sb3_sparse.export.trace.modules import records, refuse
from sb3_sparse.export.trace.record import At, Bits, Content, Reshape
from sb3_sparse.runtime.network.records import IDENTITY, Activation, Layer, Norm, Pool, Shape

#: Activations that do not fall anywhere, whatever their numbers are: they may change places with a max pool.
_RISING = ("relu", "tanh", "clip", "sigmoid", "softplus", "softsign")
#: Most units or channels of a unit layer, whose weights are as many squared.
_WIDEST = 1024


class Chain(NamedTuple):
    """
    What some modules compute.

    :param operations: What they compute, in order.
    :param names: Names of the layers among it.
    :param carriers: The names among these of unit layers.
    :param view: The shape in which the first layer reads an observation of another one; None where it has that shape.
    """

    operations: list[Layer | Affine]
    names: list[str]
    carriers: list[str]
    view: Shape | None


def chain(modules: Iterable[tuple[str, nn.Module]], bits: Bits, shape: Shape) -> Chain:
    """
    :param modules: Modules with their full names, in the order in which they are called, without their containers.
    :param bits: See :data:`~sb3_sparse.export.trace.record.Bits`.
    :param shape: Shape of what the first of them takes, without the batch.
    :return: What they compute
    :raises ValueError: if something in them cannot be exported
    """
    builder = _Builder(shape)
    for name, module in modules:
        for part, record in records(module, At(name, bits, builder.shape)):
            builder.add(part, record, f"'{name}' ({module})")
    return Chain(builder.operations, builder.names, builder.carriers, builder.view)


class _Builder:
    """
    The operations so far, and the shape of what they give.

    :param shape: Shape of what the first of them takes.
    """

    def __init__(self, shape: Shape) -> None:
        self.operations: list[Layer | Affine] = []
        self.names: list[str] = []
        self.carriers: list[str] = []
        self.view: Shape | None = None
        # The last is that of the last layer, before its output was flattened.
        self.shape = self._first = self._inner = shape

    def add(self, name: str, content: Content, what: str) -> None:
        """
        :param name: Name of a module.
        :param content: What it becomes.
        :param what: The module in errors.
        """
        if isinstance(content, Layer):
            self._append(name, content)
        elif isinstance(content, Affine):
            last = self._last()
            if last is not None and ends_in_sums(last) and len(content.scale) in (1, last.rows):
                self.operations[-1] = content.after(last)
            else:
                self.operations.append(content)
        elif isinstance(content, Reshape):
            if self.names and len(content.shape) > 1 and content.shape != self.shape:
                refuse(f"the layer {what}, which is behind a layer and does not flatten its output,")
            self.shape = content.shape
        elif isinstance(content, Pool):
            self._pool(name, content, what)
        elif isinstance(content, Norm):
            last = self._last()
            layer = last if last is not None and ends_in_sums(last) else self._carrier(name, what)
            scale, shift = (each.reshape(self._inner) for each in (content.scale, content.shift))
            self.operations[-1] = replace(layer, norm=Norm(content.epsilon, scale, shift))
        else:
            last = self._last()
            layer = last if last is not None and _can_have(last, content) else self._carrier(name, what)
            self.operations[-1] = replace(layer, activation=content)

    def _last(self, back: int = 1) -> Layer | None:
        last = self.operations[-back] if len(self.operations) >= back else None
        return last if isinstance(last, Layer) else None

    def _append(self, name: str, layer: Layer) -> None:
        shape = _in_three(self.shape) if layer.convolution else (prod(self.shape),)
        if layer.convolution and not self.names and shape != self._first:
            self.view = shape
        self.operations.append(layer)
        self.names.append(name)
        self.shape = self._inner = layer.output_shape(shape) if layer.convolution else (layer.outputs,)

    def _carrier(self, name: str, what: str) -> Layer:
        """A unit layer behind the others."""
        shape = _in_three(self.shape)
        if len(shape) not in (1, 3) or shape[0] > _WIDEST:
            reads = f"the layer {what}, which reads an input of shape {self.shape} that no layer gives,"
            refuse(reads, "one directly behind a linear layer or a convolution")
        layer = unit_layer(shape)
        self._append(name, layer)
        self.carriers.append(name)
        return layer

    def _pool(self, name: str, pool: Pool, what: str) -> None:
        if len(self.shape) not in (2, 3):
            refuse(f"the pool {what}, which does not follow a convolution,")
        last, affine, at = self._last(), self.operations[-1] if self.operations else None, -1
        if isinstance(affine, Affine):
            # The largest number stays the largest where all are multiplied by a positive one, and the mean stays the mean.
            passes = not any(pool.padding) if pool.mean else bool((affine.scale > 0).all())
            last, at = self._last(2) if passes else None, -2
        if last is None or not last.convolution or last.pool is not None:
            last, at = self._carrier(name, what), -1
        self.operations[at] = replace(last, pool=pool)
        self.shape = self._inner = pool.output_shape(self.shape)


def _in_three(shape: Shape) -> Shape:
    """Channels and one more dimension as channels, a height of 1 and a width."""
    return (shape[0], 1, shape[1]) if len(shape) == 2 else shape


def _can_have(layer: Layer, activation: Activation) -> bool:
    """Whether a layer has no activation yet, and this one can change places with its pool."""
    pooled = layer.pool is not None and (layer.pool.mean or activation.name not in _RISING)
    fits = activation.slopes is None or len(activation.slopes) == layer.outputs
    return layer.activation == IDENTITY and not layer.lstm and not pooled and fits
