"""
The weights of a layer in the compact file to bytes and back; ``docs/guide/format.md`` describes them byte by byte.

From version 5 on there are three layouts, and integers have codes of as few bits as the layer needs, or of more where these
deflate better. The writer measures all of them and takes the smallest.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.format.bytestream import Reader, Writer, require
from sb3_sparse.runtime.format.codes import code_width, pack_codes, unpack_codes
from sb3_sparse.runtime.format.deflate import deflated_size
from sb3_sparse.runtime.format.delta import ESCAPE, delta_decode, delta_encode, to_runs
from sb3_sparse.runtime.network.records import Floats

Matrix = NDArray[np.int8] | Floats

#: The first version with layouts.
LAYOUT_VERSION = 5
#: Most entries of one row of deltas: their count has two bytes.
MAX_ENTRIES = (1 << 16) - 1
#: Layouts by their numbers in the file: a new one goes to the end.
_DENSE, _MASK, _DELTAS = range(3)
#: A layout that takes so many times the bytes of another before deflate is not smaller behind it.
_FUTILE = 4
#: Largest distance of a weight in deltas, before version 5 and from then on.
_OLD_LARGEST, _LARGEST = ESCAPE, ESCAPE - 1


class _Layout(NamedTuple):
    """
    :param kind: Dense, mask or deltas.
    :param width: Bits of a code, 1 to 8; 0 for floats.
    """

    kind: int
    width: int


def write_weights(writer: Writer, matrix: Matrix, version: int) -> None:
    """
    :param writer: The file to write to.
    :param matrix: Weights of a layer, ``[rows, columns]``.
    :param version: Version of the file.
    :raises ValueError: if a row has too many entries for a version without layouts
    """
    if version < LAYOUT_VERSION:
        counts, deltas, weights = delta_encode(matrix != 0, _OLD_LARGEST)
        values = np.zeros(len(deltas), matrix.dtype)
        values[weights] = matrix[matrix != 0]
        _write_deltas(writer, counts, deltas)
        writer.array(values, "i1" if matrix.dtype == np.int8 else "f4")
        return
    writer.extend(min(_written(matrix), key=lambda layout: sum(map(deflated_size, layout.parts))))


def fits_deltas(matrix: Matrix, largest: int = _OLD_LARGEST) -> bool:
    """
    :param matrix: Weights of a layer, ``[rows, columns]``.
    :param largest: The largest distance that is written without another entry; by default that of versions without layouts.
    :return: Whether deltas can hold them
    """
    return len(matrix[0]) <= MAX_ENTRIES or int(delta_encode(matrix != 0, largest)[0].max(initial=0)) <= MAX_ENTRIES


def _written(matrix: Matrix) -> Iterator[Writer]:
    """The weights in all layouts."""
    integers, fits, total = matrix.dtype == np.int8, fits_deltas(matrix, _LARGEST), int(np.count_nonzero(matrix))
    for kind in (_DENSE, _MASK, *[_DELTAS] * fits):
        narrow = code_width(matrix.astype(np.int8), zeros=kind == _DENSE) if integers else 0
        for width in sorted({narrow, 8}) if integers else (0,):
            bits = width or 32
            size = {_DENSE: matrix.size * bits, _MASK: matrix.size + total * bits, _DELTAS: 0}[kind]
            if not fits or size <= _FUTILE * total * (8 + bits):
                writer = Writer()
                _write_layout(writer, matrix, _Layout(kind, width))
                yield writer


def _write_layout(writer: Writer, matrix: Matrix, layout: _Layout) -> None:
    writer.pack("B", layout.kind << 4 | layout.width)
    exists = matrix != 0
    if layout.kind == _MASK:
        writer.array(np.packbits(exists.reshape(-1), bitorder="little"), "u1")
    elif layout.kind == _DELTAS:
        counts, deltas, _ = delta_encode(exists, _LARGEST)
        _write_deltas(writer, counts, deltas)
    values = matrix.reshape(-1) if layout.kind == _DENSE else matrix[exists]
    if layout.width:
        writer.array(pack_codes(values.astype(np.int8), layout.width, zeros=layout.kind == _DENSE), "u1")
    else:
        writer.array(values, "f4")


def _write_deltas(writer: Writer, counts: NDArray[np.int64], deltas: NDArray[np.uint8]) -> None:
    runs = to_runs(counts)
    writer.pack("H", len(runs))
    writer.array(runs, "u2")
    writer.array(deltas, "u1")


def read_weights(reader: Reader, version: int, rows: int, columns: int, *, integers: bool) -> Matrix:
    """
    :param reader: The file to read from.
    :param version: Version of the file.
    :param rows: Rows of the matrix.
    :param columns: Columns of the matrix.
    :param integers: Whether the weights are integers.
    :return: The weights, ``[rows, columns]``
    :raises ValueError: if they are damaged
    """
    if version < LAYOUT_VERSION:
        counts, deltas = _read_deltas(reader, rows, columns)
        values: Matrix = reader.array(len(deltas), "i1" if integers else "f4")
        return _place(counts, deltas, values != 0, values[values != 0], columns, _OLD_LARGEST)
    kind, width = divmod(reader.integer("B"), 16)
    require(kind <= _DELTAS and width <= 8 and (width > 0) == integers, "its weights have an unknown layout")
    if kind == _DENSE:
        return _read_values(reader, rows * columns, width, zeros=True).reshape(rows, columns)
    if kind == _MASK:
        bits = np.unpackbits(reader.array(-(-rows * columns // 8), "u1"), bitorder="little")
        require(not bits[rows * columns :].any(), "there are bits behind its mask")
        exists = bits[: rows * columns].astype(bool).reshape(rows, columns)
        matrix = np.zeros((rows, columns), np.int8 if integers else np.float32)
        matrix[exists] = _read_values(reader, int(np.count_nonzero(exists)), width, zeros=False)
        return matrix
    counts, deltas = _read_deltas(reader, rows, columns)
    weights = deltas != ESCAPE
    values = _read_values(reader, int(np.count_nonzero(weights)), width, zeros=False)
    return _place(counts, deltas, weights, values, columns, _LARGEST)


def _read_deltas(reader: Reader, rows: int, columns: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    runs = reader.array(2 * reader.integer("H"), "u2").astype(np.int64).reshape(-1, 2)
    require(int(runs[:, 1].sum()) == rows, "its rows do not add up")
    require(bool((runs[:, 0] <= columns).all()), "a row has more weights than columns")
    counts = np.repeat(runs[:, 0], runs[:, 1])
    return counts, reader.array(int(counts.sum()), "u1")


def _read_values(reader: Reader, count: int, width: int, *, zeros: bool) -> Matrix:
    if width:
        return unpack_codes(reader.array(-(-count * width // 8), "u1"), count, width, zeros=zeros)
    values = reader.array(count, "f4") + np.float32(0)
    require(zeros or bool(values.all()), "a weight is zero")
    return values


def _place(
    counts: NDArray[np.int64],
    deltas: NDArray[np.uint8],
    weights: NDArray[np.bool_],
    values: Matrix,
    columns: int,
    largest: int,
) -> Matrix:
    matrix = np.zeros((len(counts), columns), values.dtype)
    matrix[delta_decode(counts, deltas, weights, columns, largest)] = values
    return matrix
