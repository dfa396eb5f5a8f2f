"""Little-endian numbers to bytes and back; reading checks every length and every number."""

import struct
from math import isfinite, isnan, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import Shape

#: Most numbers that an array or the output of a layer may have.
MAX_ELEMENTS = 1 << 24
#: Most dimensions of an observation or an action.
_MAX_DIMENSIONS = 8


class Writer:
    """
    Appends numbers to a file in memory; ValueError of a number that does not fit into its bytes. Each call adds a part to
    ``parts``, which are the file.
    """

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def pack(self, form: str, *values: Any) -> None:
        try:
            self.parts.append(struct.pack(f"<{form}", *values))
        except struct.error as error:
            raise ValueError(f"the file format has no room for {values}: {error}") from error

    def array(self, array: NDArray[Any], dtype: str) -> None:
        kind = np.dtype(dtype)
        if kind.kind != "f" and array.size and array.max() > np.iinfo(kind).max:
            raise ValueError(f"the file format has no room for {array.max()} where it has {kind.itemsize} bytes")
        self.parts.append(np.ascontiguousarray(array, dtype=kind.newbyteorder("<")).tobytes())

    def shape(self, shape: Shape) -> None:
        if len(shape) > _MAX_DIMENSIONS:
            raise ValueError(f"the file format has no room for a shape of {len(shape)} dimensions")
        self.pack(f"B{len(shape)}I", len(shape), *shape)

    def extend(self, other: "Writer") -> None:
        self.parts += other.parts


class Reader:
    """
    Takes numbers from a file in memory; ValueError where the file ends too early or a number is out of range.

    :param data: The bytes of the file.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, size: int) -> bytes:
        end = self._position + size
        if end > len(self._data):
            raise ValueError("this compressed policy is damaged (it ends too early); copy or export it again")
        self._position, begin = end, self._position
        return self._data[begin:end]

    def unpack(self, form: str) -> tuple[Any, ...]:
        form = f"<{form}"
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def integer(self, form: str) -> int:
        return int(self.unpack(form)[0])

    def number(self, *, positive: bool = False, infinite: bool = False) -> float:
        value = float(self.unpack("f")[0])
        require(not isnan(value) and (infinite or isfinite(value)) and (value > 0 or not positive), f"a number is {value}")
        return value

    def array(self, count: int, dtype: str, *, infinite: bool = False) -> NDArray[Any]:
        kind = np.dtype(dtype).newbyteorder("<")
        array = np.frombuffer(self.take(count * kind.itemsize), kind).astype(dtype)
        if kind.kind == "f":
            require(not np.isnan(array).any() and (infinite or bool(np.isfinite(array).all())), "a number is not finite")
        return array

    def shape(self) -> Shape:
        count = self.integer("B")
        require(count <= _MAX_DIMENSIONS, f"a shape has {count} dimensions")
        shape = self.unpack(f"{count}I")
        require(min(shape, default=1) > 0 and prod(shape) <= MAX_ELEMENTS, f"a shape is {shape}")
        return shape

    def end(self) -> None:
        require(self._position == len(self._data), "there are bytes after its end")


def require(condition: bool, what: str) -> None:
    """
    :param condition: A condition that every file meets that is not damaged.
    :param what: The damage, if it does not hold.
    :raises ValueError: if it does not hold
    """
    if not condition:
        raise ValueError(f"this compressed policy is damaged ({what}); copy or export it again")
