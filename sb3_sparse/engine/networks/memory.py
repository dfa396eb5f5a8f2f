"""Memory for the kernels, which read whole aligned vectors."""

from typing import NamedTuple

import numpy as np


class Flat(NamedTuple):
    """
    Ranges of flat vectors that an instruction works on.

    :param operands: Their addresses, by the name of the operand.
    :param n: Number of floats.
    :param k: The instruction's second number.
    :param data: Address of what else it needs.
    """

    operands: dict[str, int]
    n: int
    k: int = 0
    data: int | None = None


def zeros(size: int, dtype: type = np.float32) -> np.ndarray:
    """
    :param size: Number of entries.
    :param dtype: Their type.
    :return: Zeros that begin at a multiple of 64 bytes, the width of a cache line
    """
    itemsize = np.dtype(dtype).itemsize
    raw = np.zeros(size * itemsize + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size * itemsize].view(dtype)
