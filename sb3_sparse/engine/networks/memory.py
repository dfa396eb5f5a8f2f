"""Memory for the kernels, which read whole aligned vectors."""

import numpy as np


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
