"""
Integers in few bits. A code of w bits stands for itself less ``2**(w - 1)``; where zeros have no code, the numbers from there
on move up by one, so that w bits hold ``2**w`` numbers, from ``-2**(w - 1)`` to ``2**(w - 1)``. The first code is in the
lowest bits of the first byte.
"""

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.format.bytestream import require


def code_width(values: NDArray[np.int8], *, zeros: bool) -> int:
    """
    :param values: Integers.
    :param zeros: Whether zeros have a code.
    :return: The bits of a code that all of them fit into, 1 to 8
    """
    low, high = int(values.min(initial=0)), int(values.max(initial=0)) - (not zeros)
    return max(-low - 1, high, 0).bit_length() + 1


def pack_codes(values: NDArray[np.int8], width: int, *, zeros: bool) -> NDArray[np.uint8]:
    """
    :param values: Integers that fit, ``[n]``.
    :param width: Bits of a code, 1 to 8.
    :param zeros: Whether zeros have a code; else no value is 0.
    :return: ``ceil(n * width / 8)`` bytes; the bits behind the last code are 0
    """
    codes: NDArray[np.uint8] = (values.astype(np.int16) + 2 ** (width - 1) - ((values > 0) & (not zeros))).astype(np.uint8)
    if width == 8:
        return codes
    bits = codes[:, None] >> np.arange(width, dtype=np.uint8) & 1
    return np.packbits(bits.reshape(-1), bitorder="little")


def unpack_codes(data: NDArray[np.uint8], count: int, width: int, *, zeros: bool) -> NDArray[np.int8]:
    """
    The inverse of :func:`pack_codes`.

    :param data: ``ceil(count * width / 8)`` bytes.
    :param count: Number of values.
    :param width: Bits of a code.
    :param zeros: Whether zeros have a code.
    :return: The values, ``[count]``
    :raises ValueError: if a bit behind the last code is not 0, or a value does not fit into 8 bits
    """
    codes = data
    if width < 8:
        bits = np.unpackbits(data, bitorder="little")
        require(not bits[count * width :].any(), "there are bits behind its last weight")
        codes = bits[: count * width].reshape(count, width) @ (1 << np.arange(width, dtype=np.uint8))
    values: NDArray[np.int16] = codes.astype(np.int16) - 2 ** (width - 1)
    values += (values >= 0) & (not zeros)
    require(int(values.max(initial=0)) < 128, "a weight is too large")
    return values.astype(np.int8)
