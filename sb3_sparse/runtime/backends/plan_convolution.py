"""
Convolutions laid out for the compiled kernels: floats on shifted planes (``c/kernels.h``) or bytes.

In floats every weight multiplies one contiguous stretch of an input plane. In bytes a *quad* of four weights does: those of
four channels at one place of the window, or, where the observation is an image and the horizontal stride is four, of four
pixels of a row. For families whose lanes have two weights, it is the first and the third of a quad, or the second and the
fourth. Those without a weight are left out: that is the gain of sparsity.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.backends.families import Family
from sb3_sparse.runtime.backends.int8 import REGISTERS
from sb3_sparse.runtime.backends.structs import Add, Fields, Kernel
from sb3_sparse.runtime.network.records import Layer, Shape


def float_convolution(add: Add, layer: Layer, before: Shape, after: Shape) -> Fields:
    """
    :param add: Appends an array to the plan.
    :param layer: A convolution.
    :param before: Shape of its input.
    :param after: Shape of its output.
    :return: Members of ``sb3s_layer``, and how many floats the kernel works in as "extra"
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
        "kind": Kernel.CONVOLUTION,
        "weights": add(weight[outputs, channel, y, x]),
        "indices": add(offsets.astype(np.int32)),
        "counts": add(np.bincount(outputs, minlength=layer.outputs).astype(np.int32)),
        "biases": add(layer.biases),
        "pitch": pitch,
        "phase": phase,
        "extra": planes + out_height * pitch + 64,
    }


def byte_convolution(add: Add, layer: Layer, before: Shape, after: Shape, family: Family, *, pixels: bool) -> Fields:
    """
    :param add: Appends an array to the plan.
    :param layer: A convolution of integers.
    :param before: Shape of its input.
    :param after: Shape of its output.
    :param family: The kernels.
    :param pixels: Whether the input is an observation in bytes.
    :return: Members of ``sb3s_layer``, and how many floats the kernel works in as "extra"
    """
    (channels, height, width), (top, side), (down, right) = before, layer.padding, layer.stride
    fields: Fields = _geometry(layer, before, after)
    quads: NDArray[Any]
    places: NDArray[Any]
    if pixels and right == 4 and layer.weight.shape[3] % 4 == 0 and not any(layer.padding):
        # Bytes as they lie in memory; a step is one quad.
        quads = layer.weight.reshape(layer.outputs, -1, 4)
        channel, y, x = np.indices((channels, layer.weight.shape[2], layer.weight.shape[3] // 4)).reshape(3, -1)
        places = (channel * height + y) * width + 4 * x
        fields |= {"pitch": down * width}
        packed = pitch = 0
    else:
        padded = np.pad(layer.weight, ((0, 0), (0, -channels % 4), (0, 0), (0, 0)))
        quads = np.stack([padded[:, k::4] for k in range(4)], axis=-1)
        group, y, x = np.indices(quads.shape[1:4]).reshape(3, -1)
        rows, pitch = -(-(height + 2 * top) // down), -(-(width + 2 * side) // right)
        places = ((((group * down + y % down) * right + x % right) * rows + y // down) * pitch + x // right) * 4
        quads = quads.reshape(layer.outputs, -1, 4)
        # In floats, and whole numbers of registers.
        packed = -(-channels // 4) * down * right * rows * pitch
        packed += -packed % 16
        fields |= {"pitch": 4 * pitch}
    if family.taps == 2:
        # Twice a quad's place, and 1 for the bytes that are not the first.
        quads = np.stack([quads[..., ::2], quads[..., 1::2]], axis=2).reshape(layer.outputs, -1, 2).astype(np.int16)
        places = (2 * places[:, None] + [0, 1]).reshape(-1)
    exists = np.count_nonzero(quads, axis=2) > 0
    used = np.count_nonzero(exists, axis=0) > 0
    outputs, columns = np.nonzero(exists[:, used])
    count = int(used.sum())
    tile, vectors, across = _tile(after, pitch, count, len(columns), family)
    return fields | {
        "kind": Kernel.PATCHES,
        "weights": add(quads[:, used][outputs, columns]),
        "indices": add((columns * 64 * vectors).astype(np.int32)),
        "counts": add(np.bincount(outputs, minlength=layer.outputs).astype(np.int32)),
        "places": add(places[used].astype(np.int32)),
        "biases": add(layer.biases),
        "scales": add(layer.scales),
        "sums": add(layer.weight.reshape(layer.outputs, -1).sum(axis=1, dtype=np.int64).astype(np.float32)),
        "runs": count,
        "tile": tile,
        "vectors": vectors,
        "across": across,
        "phase": packed,
        # A stretch may end beyond the last plane.
        "extra": packed + 16 * vectors * (count + 1),
    }


def _geometry(layer: Layer, before: Shape, after: Shape) -> Fields:
    fields = dict(zip(("channels", "height", "width"), before, strict=True))
    fields |= dict(zip(("stride_height", "stride_width"), layer.stride, strict=True))
    fields |= dict(zip(("pad_height", "pad_width"), layer.padding, strict=True))
    return {**fields, "out_height": after[1], "out_width": after[2]}


def _tile(after: Shape, pitch: int, quads: int, products: int, family: Family) -> tuple[int, int, int]:
    """
    The fastest tile: its output rows, the times 16 lanes that they fill, and the lanes from one row to the next.

    :param after: Shape of the output.
    :param pitch: Lanes between rows of packed inputs, which are copied as they are; 0 if they are not packed.
    :param quads: Number of quads of a window.
    :param products: Number of quads of weights.
    :param family: The kernels.
    """
    channels, height, width = after

    def cost(tile: tuple[int, int, int]) -> float:
        rows, vectors, across = tile
        registers = vectors * 16 // family.rows
        slow = 1 if 64 * vectors * quads <= family.cache else 1.35
        # A copied row crosses cache lines twice.
        copy = quads * (1.5 * registers if across != width else 3.0 * rows * -(-width // family.rows))
        # A quad of weights and its place are read as well as the registers that are summed up at a time.
        sums = products * (registers + 2 * -(-vectors // family.registers)) * slow
        return -(-height // rows) * (copy + sums + 20 * channels)

    tiles = [
        (rows, -(-((rows - 1) * across + width) // 16), across)
        for rows in range(1, height + 1)
        for across in {width, max(pitch, width)}
    ]
    return min((tile for tile in tiles if tile[1] <= REGISTERS), key=cost)
