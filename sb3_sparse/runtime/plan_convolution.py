"""
Convolutions as the compiled kernels want them: floats on shifted planes (``c/kernels.h``) or bytes.

In floats every weight multiplies one contiguous stretch of an input plane. In bytes a *quad* of four weights does: those of
four channels at one place of the window, or, where the observation is an image and the horizontal stride is four, of four
pixels of a row. Quads without a weight are left out, which is what sparsity saves.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.records import Layer, Network, Shape

#: Appends an array to a plan; its offset.
Add = Callable[[NDArray[Any]], int]

#: Most registers that a tile fills, and bytes of its inputs that stay in the first cache.
_REGISTERS, _CACHE = 8, 40 << 10
#: Most inputs of a window: sums of bytes must fit into 32 bits.
_INPUTS = 1 << 16
#: Activations without negative outputs.
_POSITIVE = ("relu", "sigmoid")


def in_bytes(network: Network, index: int) -> bool:
    """
    :param network: A network.
    :param index: Number of a layer.
    :return: Whether the AVX-512 VBMI kernels round its inputs to 8 bits: those of hidden layers of integers, but for
        convolutions with padding whose inputs may be negative (0 is no step then), or whose rows are too wide
    """
    layer = network.layers[index]
    if index == 0 or not layer.quantized:
        return False
    if not layer.convolution:
        return prod(layer.weight.shape[1:]) <= _INPUTS
    positive = network.layers[index - 1].activation.name in _POSITIVE
    return _fits(layer, network.shapes[index + 1]) and (positive or not any(layer.padding))


def exact_in_bytes(network: Network) -> bool:
    """
    :param network: A network.
    :return: Whether it begins with a convolution of integers that takes bytes as they are
    """
    layer = network.layers[0]
    if not network.image or network.normalize is not None or not layer.quantized or not layer.convolution:
        return False
    return _fits(layer, network.shapes[1])


def _fits(layer: Layer, after: Shape) -> bool:
    return after[-1] <= 16 * _REGISTERS and prod(layer.weight.shape[1:]) <= _INPUTS


def float_convolution(add: Add, layer: Layer, before: Shape, after: Shape) -> dict[str, float]:
    """
    :param add: What appends to the plan.
    :param layer: A convolution.
    :param before: Shape of its input.
    :param after: Shape of its output.
    :return: Fields of ``sb3s_layer``, and how many floats the kernel works in as "extra"
    """
    weight = layer.dense()
    (channels, height, width), (_, out_height, _) = before, after
    (down, right), (top, side) = layer.stride, layer.padding
    pitch = -(-(width + 2 * side) // right)
    # The last stretch may begin late in the last plane.
    phase = -(-(height + 2 * top) // down) * pitch
    outputs, channel, y, x = np.nonzero(weight)
    plane = (channel * down + y % down) * right + x % right
    offsets = plane * phase + (y // down) * pitch + x // right
    planes = channels * down * right * phase
    return _geometry(layer, before, after) | {
        "weights": add(weight[outputs, channel, y, x]),
        "indices": add(offsets.astype(np.int32)),
        "counts": add(np.bincount(outputs, minlength=layer.outputs).astype(np.int32)),
        "biases": add(layer.biases),
        "pitch": pitch,
        "phase": phase,
        "extra": planes + out_height * pitch + 64,
    }


def byte_convolution(add: Add, layer: Layer, before: Shape, after: Shape, *, pixels: bool) -> dict[str, float]:
    """
    :param add: What appends to the plan.
    :param layer: A convolution of integers.
    :param before: Shape of its input.
    :param after: Shape of its output.
    :param pixels: Whether the input is an observation in bytes.
    :return: Fields of ``sb3s_layer``, and how many floats the kernel works in as "extra"
    """
    (channels, height, width), (top, side) = before, layer.padding
    fields = _geometry(layer, before, after)
    if pixels and layer.stride[1] == 4 and layer.weight.shape[3] % 4 == 0 and not any(layer.padding):
        # Bytes as they lie in memory; a step is one quad.
        quads = layer.weight.reshape(layer.outputs, -1, 4)
        channel, y, x = np.indices((channels, layer.weight.shape[2], layer.weight.shape[3] // 4)).reshape(3, -1)
        places = (channel * height + y) * width + 4 * x
        fields |= {"pitch": width, "stride_width": 1}
        packed = 0
    else:
        padded = np.pad(layer.weight, ((0, 0), (0, -channels % 4), (0, 0), (0, 0)))
        quads = np.stack([padded[:, k::4] for k in range(4)], axis=-1)
        group, y, x = np.indices(quads.shape[1:4]).reshape(3, -1)
        places = ((group * (height + 2 * top) + y) * (width + 2 * side) + x) * 4
        quads = quads.reshape(layer.outputs, -1, 4)
        fields |= {"pitch": 4 * (width + 2 * side)}
        # In floats, and a whole number of registers.
        packed = -(-len(padded[0]) // 4) * (height + 2 * top) * (width + 2 * side)
        packed += -packed % 16
    exists = np.count_nonzero(quads, axis=2) > 0
    used = np.count_nonzero(exists, axis=0) > 0
    rows, columns = np.nonzero(exists[:, used])
    tile, vectors = _tile(after, int(used.sum()))
    return fields | {
        "weights": add(quads[:, used][rows, columns]),
        "indices": add((columns * 64 * vectors).astype(np.int32)),
        "counts": add(np.bincount(rows, minlength=layer.outputs).astype(np.int32)),
        "places": add(places[used].astype(np.int32)),
        "biases": add(layer.biases),
        "scales": add(layer.scales),
        "sums": add(layer.weight.reshape(layer.outputs, -1).sum(axis=1, dtype=np.int64).astype(np.float32)),
        "runs": int(used.sum()),
        "tile": tile,
        "vectors": vectors,
        "phase": packed,
        "extra": packed + 16 * vectors * int(used.sum()) + 16,
    }


def _geometry(layer: Layer, before: Shape, after: Shape) -> dict[str, float]:
    fields = dict(zip(("channels", "height", "width"), before, strict=True))
    fields |= dict(zip(("stride_height", "stride_width"), layer.stride, strict=True))
    fields |= dict(zip(("pad_height", "pad_width"), layer.padding, strict=True))
    return {**fields, "out_height": after[1], "out_width": after[2]}


def _tile(after: Shape, quads: int) -> tuple[int, int]:
    """Output rows of a tile and the registers that they fill: least work, and inputs that fit into the cache."""
    _, height, width = after
    tiles = [(rows, -(-rows * width // 16)) for rows in range(1, height + 1) if rows * width <= 16 * _REGISTERS]

    def cost(tile: tuple[int, int]) -> float:
        # A quad reads its weights and its place beside the registers.
        rows, vectors = tile
        return -(-height // rows) * (vectors + 2) * (1.5 if 64 * vectors * quads > _CACHE else 1)

    return min(tiles, key=cost)
