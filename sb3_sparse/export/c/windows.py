"""The steps of a convolution around its sums in C: its padded input, its pool, and the buffers for them."""

from dataclasses import replace
from math import prod

from sb3_sparse.export.c.tables import Tables, fill
from sb3_sparse.runtime.network.records import Layer, Shape

#: The input of a convolution with zeros around it.
_PAD = """
static void @FUNCTION@(int channels, int height, int width, int top, int side, const @TYPE@ *x, @TYPE@ *y) {
    int i, j;
    for (; channels != 0; channels--)
        for (i = -top; i < height + top; i++)
            for (j = -side; j < width + side; j++)
                if (i >= 0 && i < height && j >= 0 && j < width) {
                    *y++ = @VALUE@;
                    x++;
                } else
                    *y++ = 0;
}
"""

#: A pool: what it begins each window with, does with each element v, and writes. Its padding is at most half of its window, so
#: every window has an element of x.
_POOL = """
static void @FUNCTION@(int channels, int height, int width, int rows, int columns, int tall, int wide, int down, int right,
                       int above, int beside, const @TYPE@ *x, @TYPE@ *y) {
    int i, j, k, l;
    for (; channels != 0; channels--, x += height * width)
        for (i = 0; i < rows; i++)
            for (j = 0; j < columns; j++) {
                const int top = i * down - above < 0 ? 0 : i * down - above;
                const int side = j * right - beside < 0 ? 0 : j * right - beside;
                const int bottom = i * down - above + tall < height ? i * down - above + tall : height;
                const int end = j * right - beside + wide < width ? j * right - beside + wide : width;
                @BEGIN@
                for (k = top; k < bottom; k++)
                    for (l = side; l < end; l++) {
                        const @TYPE@ v = x[k * width + l];
                        @EACH@
                    }
                *y++ = @RESULT@;
            }
}
"""
_LARGEST = {"BEGIN": "@TYPE@ largest = x[top * width + side];", "EACH": "if (v > largest) largest = v;", "RESULT": "largest"}
#: The mean counts the padding as zeros. That of integers is rounded to the nearest, and is positive where it is divided.
_MEAN = {
    "float": {"BEGIN": "float sum = 0.0f;", "EACH": "sum += v;", "RESULT": "sum / (float)(tall * wide)"},
    "int16_t": {
        "BEGIN": "uint32_t sum = 32768u * (uint32_t)(tall * wide) + (uint32_t)(tall * wide) / 2;",
        "EACH": "sum += (uint32_t)v;",
        "RESULT": "(int16_t)((int32_t)(sum / (uint32_t)(tall * wide)) - 32768)",
    },
}


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
    function = tables.function("rectify" if layer.rectify else "pad", _PAD, parts)
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
    steps = _MEAN[buffers.kind] if layer.pool.mean else _LARGEST
    snippet = fill(_POOL, steps)
    function = tables.function("mean_pool" if layer.pool.mean else "pool", snippet, {"TYPE": buffers.kind})
    return [f"{function}({', '.join(map(str, numbers))}, {x}, {y});"], y
