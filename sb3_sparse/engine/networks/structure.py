"""How the weights of a layer that exist are laid out for the kernels: as a sparse matrix by rows, or as packed dense rows."""

from __future__ import annotations

import numpy as np

from sb3_sparse.engine.kernels.structs import LANES, Kind, Layer

#: Number of floats that vectors are padded to.
ALIGNMENT = 16
#: Number of rows that are packed together in a dense layer.
ROWS = 8
#: A layer runs as a sparse one if at most this share of its weights exists.
SPARSE_DENSITY = 0.5
#: The same where dense products are of bfloat16, of which a processor computes twice as many.
HALF_DENSITY = 0.25
#: A layer with fewer outputs would waste most of the packed rows, so it runs as a sparse one in any case.
FEW_OUTPUTS = 4

Array = np.ndarray


def padded(size: int) -> int:
    """The size, rounded up to whole vectors."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def choose(mask: Array | None, shape: tuple[int, int], first: int, *, half: bool = False) -> Structure:
    """
    :param mask: Boolean matrix of the weights that exist, of shape ``[outputs, inputs]``; None if all do.
    :param shape: Its shape.
    :param first: Number of leading inputs whose gradient nobody needs.
    :param half: Whether dense products are of bfloat16.
    :return: The faster layout
    """
    dense = mask is None or int(mask.sum()) > (HALF_DENSITY if half else SPARSE_DENSITY) * mask.size
    if dense and shape[0] >= FEW_OUTPUTS:
        return (Half if half else Dense)(mask, shape, first)
    return Sparse(np.ones(shape, dtype=bool) if mask is None else mask, shape, first)


class Structure:
    """
    Base class of the layouts.

    :param shape: Outputs and inputs.
    :param first: Number of leading inputs whose gradient nobody needs.
    """

    kind: Kind
    #: Number of floats that hold the weights.
    size: int
    #: Of each of them the index in the flattened weight, of shape ``[outputs, inputs]``; -1 for those that only fill up.
    index: Array
    #: Number of floats that hold the weights in the order of the input gradient.
    transposed_size: int
    #: Number of pairs of weights.
    pairs_size = 0

    def __init__(self, shape: tuple[int, int], first: int) -> None:
        self.shape = shape
        self.first = first

    def holds(self, weight: Array) -> bool:
        """
        :param weight: A matrix of weights.
        :return: Whether there is room for all that are not zero
        """
        return True

    def exists(self) -> Array | None:
        """Which of the floats hold weights that exist, if only some do."""
        return None

    def describe(self, layer: Layer) -> None:
        """Fill in the part of the kernels' description that depends on the layout alone."""
        layer.kind = self.kind
        layer.outputs, layer.inputs = self.shape
        layer.first = self.first


class Sparse(Structure):
    """
    Compressed sparse rows, those with many weights first, and the same weights by columns for the input gradient.

    :param mask: Boolean matrix of the weights that exist.
    """

    kind = Kind.SPARSE

    def __init__(self, mask: Array, shape: tuple[int, int], first: int) -> None:
        super().__init__(shape, first)
        inputs = shape[1]
        self.start, self.row, rows, columns = _by_rows(mask)
        self.offset = _offsets(columns)
        self.index = _padded_copy(rows * np.int32(inputs) + columns, fill=-1)
        position = np.zeros(shape, dtype=np.int32)
        position[rows, columns] = np.arange(len(rows), dtype=np.int32)
        self.t_start, self.t_row, t_rows, t_columns = _by_rows(mask[:, first:].T)
        self.t_offset = _offsets(t_columns)
        self.t_index = _padded_copy(position[t_columns, first + t_rows])
        self.size = padded(len(rows))
        self.transposed_size = padded(len(t_rows))

    def holds(self, weight: Array) -> bool:
        exists = weight.reshape(-1) != 0
        return int(np.count_nonzero(exists)) == int(np.count_nonzero(exists[self.index[: self.start[-1]]]))

    def describe(self, layer: Layer) -> None:
        super().describe(layer)
        for name in ("start", "row", "offset", "t_start", "t_row", "t_offset", "t_index"):
            setattr(layer, name, getattr(self, name).ctypes.data)


class Dense(Structure):
    """
    Rows packed by eights: ``[ceil(outputs / 8)][inputs][8]``.

    :param mask: Boolean matrix of the weights that exist, in a layer that is pruned a little; None in one that is not.
    """

    kind = Kind.DENSE

    def __init__(self, mask: Array | None, shape: tuple[int, int], first: int) -> None:
        super().__init__(shape, first)
        outputs, inputs = shape
        blocks = -(-outputs // ROWS)
        self.size = padded(blocks * inputs * ROWS)
        self.transposed_size = padded(-(-(inputs - first) // ROWS) * ROWS * outputs)
        self.mask = mask
        rows = np.arange(blocks * ROWS, dtype=np.int32).reshape(blocks, 1, ROWS)
        index = np.where(rows < outputs, rows * np.int32(inputs) + np.arange(inputs, dtype=np.int32)[:, None], -1)
        self.index = _padded_copy(index.reshape(-1), fill=-1)

    def exists(self) -> Array | None:
        if self.mask is None:
            return None
        index = self.index[: self.size]
        exists: Array = (index >= 0) & self.mask.reshape(-1)[index]
        return exists


class Half(Dense):
    """The same with products of bfloat16, in float32 all the same: the kernels read copies of its weights, in pairs."""

    kind = Kind.HALF

    def __init__(self, mask: Array | None, shape: tuple[int, int], first: int) -> None:
        super().__init__(mask, shape, first)
        outputs, inputs = shape
        self.pairs_size = -(-outputs // ROWS) * -(-inputs // 2) * ROWS


def _by_rows(mask: Array) -> tuple[Array, Array, Array, Array]:
    """Where each row starts, which row it is, and row and column of each entry; rows with many entries come first."""
    counts = mask.sum(axis=1)
    order = np.argsort(-counts, kind="stable")
    ranks, columns = np.nonzero(mask[order])
    start = np.zeros(len(order) + 1, dtype=np.int32)
    start[1:] = np.cumsum(counts[order])
    return start, order.astype(np.int32), order[ranks].astype(np.int32), columns.astype(np.int32)


def _offsets(columns: Array) -> Array:
    return _padded_copy(columns * (LANES * 4))


def _padded_copy(array: Array, fill: int = 0) -> Array:
    """The kernels may read, but not use, up to a vector behind the end."""
    copy = np.full(padded(len(array) + 1), fill, dtype=np.int32)
    copy[: len(array)] = array
    return copy
