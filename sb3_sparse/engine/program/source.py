"""Arrays that a program loads the samples of its batch from."""

from __future__ import annotations

import ctypes

import numpy as np
import torch as th

from sb3_sparse.engine.kernels.structs import ElementType, Source

TYPES = {
    np.dtype(np.float32): ElementType.FLOAT32,
    np.dtype(np.float64): ElementType.FLOAT64,
    np.dtype(np.uint8): ElementType.UINT8,
    np.dtype(np.int8): ElementType.INT8,
    np.dtype(np.bool_): ElementType.INT8,
    np.dtype(np.int32): ElementType.INT32,
    np.dtype(np.int64): ElementType.INT64,
}


class Array:
    """
    An array that programs load batches from. It may be another one at every run.

    :param columns: Number of its columns.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._source = Source()
        self._held: tuple[np.ndarray | None, ...] = ()

    def address(self) -> int:
        """Address of the kernels' description of the array, which stays the same."""
        return ctypes.addressof(self._source)

    def set(self, data: np.ndarray, rows: np.ndarray | None = None) -> None:
        """
        :param data: Numbers, of shape ``[rows, columns]``; further dimensions are read as columns.
        :param rows: Index of each sample's row; if None, the samples are the rows in order.
        """
        if data.size != len(data) * self.columns:
            raise ValueError(f"an array of shape {data.shape} does not hold rows of {self.columns} numbers")
        if data.dtype not in TYPES or not data.flags.c_contiguous:
            if rows is not None:
                raise ValueError("an array to read in place must be contiguous, and of a type that the kernels know")
            data = np.ascontiguousarray(data, dtype=None if data.dtype in TYPES else np.float32)
        self._source.data = data.ctypes.data
        self._source.type = TYPES[data.dtype]
        self._source.stride = self.columns * data.itemsize
        self._source.count = len(data if rows is None else rows)
        self._source.rows = None if rows is None else rows.ctypes.data
        # The source holds addresses only.
        self._held = data, rows


class Noise(Array):
    """
    Numbers from a normal distribution, drawn from a generator of torch as SB3 draws them.

    :param size: Number of samples.
    :param columns: Numbers of each.
    :param std: Standard deviation.
    :param generator: The generator; None for torch's global one.
    """

    def __init__(self, size: int, columns: int, std: float, generator: th.Generator | None = None) -> None:
        super().__init__(columns)
        self._std = std
        self._generator = generator
        self._tensor = th.empty(size, columns)
        self.set(self._tensor.numpy())

    def draw(self) -> None:
        """Draw all numbers anew."""
        self._tensor.normal_(0.0, self._std, generator=self._generator)
