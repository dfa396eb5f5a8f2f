"""The structs and enums of ``c/kernels.h`` in Python, and the block of memory that holds them."""

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Activations and heads by their numbers in the kernels.
ACTIVATIONS = (
    *("identity", "relu", "tanh", "clip", "leaky_relu", "elu", "sigmoid", "silu"),
    *("gelu", "gelu_tanh", "mish", "softplus", "softsign", "hardswish", "prelu"),
)
HEADS = ("unscale", "clip", "argmax", "positive")


class Kernel(IntEnum):
    """The kernels of a layer."""

    COLUMNS, ROWS, SPARSE, CONVOLUTION, LANES, BYTES, DOTS, PATCHES, PICKS = range(9)


def _struct(members: str, floats: str) -> np.dtype[Any]:
    """Members of four bytes each, in their order in memory."""
    return np.dtype([(name, "f4" if name in floats.split() else "i4") for name in members.split()])


#: ``sb3s_layer``. Its low and high are numbers of the activation.
LAYER = _struct(
    "kind activation in out low high rectify residual pool_height pool_width pool_down pool_right pool_top pool_side "
    "pool_mean weights indices biases counts runs scales sums channels height width "
    "stride_height stride_width pad_height pad_width out_height out_width pitch phase places tile vectors "
    "across units state slopes norm_scale norm_shift epsilon lowest highest unit",
    floats="low high epsilon unit",
)
#: ``sb3s_plan``. Its limit, low and high are offsets of arrays.
PLAN = _struct(
    "layers inputs outputs head actions normalize limit mean scale low high groups half buffers pixels memory panel few",
    floats="",
)

#: Values of the members of a struct by name; the others are 0.
Fields = dict[str, float]
#: Appends an array to a block; its offset.
Add = Callable[[NDArray[Any]], int]


def pack(struct: np.dtype[Any], fields: Mapping[str, float]) -> bytes:
    """
    :param struct: :data:`LAYER` or :data:`PLAN`.
    :param fields: Values of its members.
    :return: Its bytes
    """
    record = np.zeros((), struct)
    for name, value in fields.items():
        record[name] = value
    return record.tobytes()


class Block:
    """
    Memory in which every array begins at a multiple of 64 bytes.

    :param reserved: Bytes at its beginning that are written elsewhere.
    """

    def __init__(self, reserved: int) -> None:
        self._parts: list[bytes] = []
        self._size = reserved
        self._pad()

    def add(self, array: NDArray[Any]) -> int:
        """
        :param array: The array to append.
        :return: Its offset
        :raises ValueError: if the offsets no longer fit into 32 bits
        """
        offset = self._size
        data = np.ascontiguousarray(array).tobytes()
        self._parts.append(data)
        self._size += len(data)
        self._pad()
        if self._size >= 1 << 31:
            raise ValueError("this policy is too large for the compiled kernels: use backend='numpy'")
        return offset

    def _pad(self) -> None:
        missing = -self._size % 64
        self._parts.append(bytes(missing))
        self._size += missing

    def bytes(self) -> bytes:
        """
        :return: Everything after the reserved bytes
        """
        return b"".join(self._parts)
