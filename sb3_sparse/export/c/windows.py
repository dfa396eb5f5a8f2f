"""The steps of a convolution around its sums in C: its padded input, its pool, and the buffers for them."""

from dataclasses import replace
from math import prod

from sb3_sparse.export.c import text
from sb3_sparse.export.c.tables import Tables
from sb3_sparse.runtime.network.records import Layer, Shape


class Buffers:
    """
    The buffers of one function: each is as large as the largest array that it ever holds.

    :param kind: Type of their elements.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.sizes: dict[str, int] = {}

    def take(self, shape: Shape, *busy: str) -> str:
        """The name of a buffer for an array of this shape; never one of those that are busy."""
        name = next(name for name in "abcd" if name not in busy)
        self.sizes[name] = max(self.sizes.get(name, 1), prod(shape))
        return name

    def widen(self, name: str, size: int) -> None:
        """Make room for so many elements in a buffer that has been taken."""
        self.sizes[name] = max(self.sizes[name], size)

    def declaration(self, storage: str) -> str:
        """The line that declares them."""
        return f"{storage} {self.kind} {', '.join(f'{name}[{size}]' for name, size in self.sizes.items())};"


def padded(
    tables: Tables, buffers: Buffers, layer: Layer, shape: Shape, x: str, *busy: str
) -> tuple[list[str], Layer, Shape, str]:
    """
    :param tables: Where functions go.
    :param buffers: Where a copy goes.
    :param layer: A layer.
    :param shape: Shape of its input.
    :param x: Name of the buffer with its input.
    :param busy: Buffers that hold something else.
    :return: Lines that copy the input with zeros around it, rectified if the layer rectifies; and the rest of the computation:
        the layer without padding, and the shape and the buffer of its input
    """
    (top, side), bare = layer.padding, replace(layer, padding=(0, 0), rectify=False)
    if not any(layer.padding) and not layer.rectify:
        return [], bare, shape, x
    channels, height, width = shape
    after = (channels, height + 2 * top, width + 2 * side)
    copy = buffers.take(after, x, *busy)
    parts = {"TYPE": buffers.kind, "VALUE": "*x < 0 ? 0 : *x" if layer.rectify else "*x"}
    function = tables.function("rectify" if layer.rectify else "pad", text.PAD, parts)
    return [f"{function}({channels}, {height}, {width}, {top}, {side}, {x}, {copy});"], bare, after, copy


def pooled(tables: Tables, buffers: Buffers, layer: Layer, shape: Shape, x: str, *busy: str) -> tuple[list[str], str]:
    """
    :param tables: Where functions go.
    :param buffers: Where the result goes.
    :param layer: A layer.
    :param shape: Shape of its input.
    :param x: Name of the buffer with the outputs of its activation.
    :param busy: Buffers that hold something else.
    :return: The lines of its pool, and the name of the buffer with its outputs
    """
    if layer.pool is None:
        return [], x
    after = layer.output_shape(shape)
    y = buffers.take(after, x, *busy)
    numbers = (*layer.sum_shape(shape), *after[1:], *layer.pool.kernel, *layer.pool.stride, *layer.pool.padding)
    function = tables.function("pool", text.POOL, {"TYPE": buffers.kind})
    return [f"{function}({', '.join(map(str, numbers))}, {x}, {y});"], y
