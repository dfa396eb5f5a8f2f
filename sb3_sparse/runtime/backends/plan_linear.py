"""Linear layers laid out for the compiled kernels, one function for each family of kernels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.backends.families import Family
from sb3_sparse.runtime.backends.structs import Add, Fields, Kernel
from sb3_sparse.runtime.format.delta import to_runs
from sb3_sparse.runtime.network.records import Floats, Layer

#: A layer with at least this share of its weights goes to a dense kernel, which reads vectors.
_DENSE = 0.2


def float_linear(add: Add, layer: Layer, family: Family | None = None) -> Fields:
    """
    :param add: Appends an array to the plan.
    :param layer: A linear layer.
    :param family: The kernels for vectors; None for portable ones.
    :return: Members of ``sb3s_layer``: dense by columns or by rows, runs of sparse rows, or slices of rows with a weight per
        row and step, all of one block of inputs
    :raises ValueError: if it has too many inputs
    """
    weight = layer.dense()
    outputs, inputs = weight.shape
    if np.count_nonzero(weight) >= _DENSE * weight.size:
        fields: Fields = {"biases": add(layer.biases)}
        if outputs >= 32:
            return fields | {"kind": Kernel.COLUMNS, "weights": add(weight.T)}
        padded = np.zeros((outputs, _round_up(inputs, 16)), np.float32)
        padded[:, :inputs] = weight
        return fields | {"kind": Kernel.ROWS, "weights": add(padded)}
    if inputs > 1 << 16:
        raise ValueError(f"a layer of {inputs} inputs is too wide for the compiled kernels: use backend='numpy'")
    if family:
        return _picks(add, layer, weight, family)
    return sparse_linear(add, layer)


def sparse_linear(add: Add, layer: Layer) -> Fields:
    """
    :param add: Appends an array to the plan.
    :param layer: A linear layer of at most 65,536 inputs.
    :return: Members of ``sb3s_layer``: runs of sparse rows
    """
    weight = layer.dense()
    rows, columns = np.nonzero(weight)
    runs = to_runs(np.bincount(rows, minlength=len(weight)))
    return {
        "kind": Kernel.SPARSE,
        "biases": add(layer.biases),
        "runs": len(runs),
        "counts": add(runs.astype(np.int32)),
        "weights": add(weight[rows, columns]),
        "indices": add(columns.astype(np.uint16)),
    }


def _picks(add: Add, layer: Layer, weight: Floats, family: Family) -> Fields:
    columns, values, places, steps = _steps(weight, family.rows, min(family.floats, weight.shape[1]), 1)
    return {
        "kind": Kernel.PICKS,
        "weights": add(values.astype(np.float32)),
        "indices": add(columns.astype(np.uint8 if family.floats <= 1 << 8 else np.uint16)),
        "places": add(places.astype(np.uint16)),
        "counts": add(steps.astype(np.int32)),
        "biases": add(_pad_rows(layer.biases)),
        "runs": len(steps),
    }


def lane_linear(add: Add, layer: Layer, family: Family) -> Fields:
    """
    :param add: Appends an array to the plan.
    :param layer: A linear layer of few inputs.
    :param family: The kernels.
    :return: Members of ``sb3s_layer``: SELL-16 with one float weight per row and step, or columns of slices of 32 rows
    """
    weight = layer.dense()
    if not family.permutes:
        missing = (0, -len(weight) % 32)
        padded = np.pad(weight, (missing, (0, 0)))
        return {"kind": Kernel.LANES, "weights": add(padded.T), "biases": add(np.pad(layer.biases, missing))}
    indices, values, steps = [], [], []
    for rows in _slices(weight):
        width = int(np.count_nonzero(rows, axis=1).max())
        columns, picked = _compact(rows, width)
        # [row, step] to [four steps, row, step]
        columns = np.pad(columns, ((0, 0), (0, -width % 4))).reshape(16, -1, 4)
        indices.append(columns.transpose(1, 0, 2).reshape(-1))
        values.append(picked.T.reshape(-1))
        steps.append(width)
    return {
        "kind": Kernel.LANES,
        "weights": add(np.concatenate(values).astype(np.float32)),
        "indices": add(np.concatenate(indices).astype(np.uint8)),
        "counts": add(np.array(steps, np.int32)),
        "biases": add(_pad_rows(layer.biases)),
        "runs": len(steps),
    }


def byte_linear(add: Add, layer: Layer, family: Family) -> Fields:
    """
    :param add: Appends an array to the plan.
    :param layer: A linear layer of integers.
    :param family: The kernels.
    :return: Members of ``sb3s_layer``: slices of rows with a few weights per row and step, all of one block of inputs; or
        dense, if that is faster
    """
    weight = layer.weight
    fields: Fields = {
        "biases": add(_pad_rows(layer.biases)),
        "scales": add(_pad_rows(layer.scales)),
        "sums": add(_pad_rows(weight.sum(axis=1, dtype=np.int64).astype(np.float32))),
    }
    columns, values, places, steps = _steps(weight, family.rows, family.block, family.taps)
    outputs, inputs = _round_up(weight.shape[0], 8), _round_up(weight.shape[1], family.dense)
    # Cycles, roughly: a dense step waits for one operand from memory, a sparse one for three; two are read at a time.
    if outputs * inputs / family.dense + 2 * outputs < 1.5 * len(places) + 4 * len(steps):
        padded = np.zeros((outputs, inputs), np.int8)
        padded[: weight.shape[0], : weight.shape[1]] = weight
        # [group, row, block, inputs of a step] to [group, block, row, inputs of a step]
        arranged = padded.reshape(-1, 8, inputs // family.dense, family.dense).transpose(0, 2, 1, 3)
        return fields | {"kind": Kernel.DOTS, "weights": add(arranged)}
    return fields | {
        "kind": Kernel.BYTES,
        # [step, two, row, taps]
        "weights": add(np.stack([columns.astype(np.uint8), values.view(np.uint8)], axis=1)),
        "indices": add(places.astype(np.uint16)),
        "counts": add(steps.astype(np.int32)),
        "runs": len(steps),
    }


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _pad_rows(values: Floats) -> Floats:
    return np.pad(values, (0, -len(values) % 16)).astype(np.float32)


def _steps(
    weight: NDArray[Any], rows: int, block: int, taps: int
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """
    A matrix in slices of so many rows. A step has a few nonzeros of each row of a slice, the taps, all of one block of
    columns.

    :return: Columns in the block and values, ``[steps, rows, taps]``, filled up with column 0 and value 0; the first column
        of the block of each step; and the number of steps of each slice
    """
    padded = np.pad(weight, ((0, -weight.shape[0] % 16), (0, -weight.shape[1] % block)))
    # [slice, row, block, column]
    parts = padded.reshape(len(padded) // rows, rows, -1, block)
    columns = np.argsort(parts == 0, axis=3, kind="stable")
    values = np.take_along_axis(parts, columns, axis=3)
    columns[values == 0] = 0
    widths = -(-np.count_nonzero(parts, axis=3).max(axis=1) // taps)
    exists = np.arange(block // taps) < widths[:, :, None]

    def arrange(array: NDArray[Any]) -> NDArray[Any]:
        by_step: NDArray[Any] = array.reshape(*parts.shape[:3], -1, taps).transpose(0, 2, 3, 1, 4)[exists]
        return by_step

    starts = np.broadcast_to(block * np.arange(parts.shape[2])[:, None], exists.shape)
    return arrange(columns), arrange(values), starts[exists], widths.sum(axis=1)


def _slices(weight: NDArray[Any]) -> list[NDArray[Any]]:
    """A matrix in parts of 16 rows, the last filled up with zeros."""
    padded = np.pad(weight, ((0, -len(weight) % 16), (0, 0)))
    return [padded[start : start + 16] for start in range(0, len(padded), 16)]


def _compact(rows: NDArray[Any], width: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The columns and values of the nonzeros of each row, ``[rows, width]``, filled up with column 0 and value 0."""
    order = np.argsort(rows == 0, axis=1, kind="stable")[:, :width]
    values = np.take_along_axis(rows, order, axis=1)
    order = np.where(values == 0, 0, order)
    if order.shape[1] < width:
        missing = ((0, 0), (0, width - order.shape[1]))
        order, values = np.pad(order, missing), np.pad(values, missing)
    return order, values
