"""
A network as the compiled kernels want it: one block of memory with everything at its offset (``c/kernels.h``).

Each layer takes the kernel that suits it: dense by columns or by rows where most weights exist, runs of sparse rows where few
do, shifted planes for convolutions, and with ``vector`` the AVX-512 VBMI kernels, whose hidden activations have 8 bits.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.backends.plan_convolution import byte_convolution, exact_in_bytes, float_convolution, in_bytes
from sb3_sparse.runtime.format.delta import to_runs
from sb3_sparse.runtime.network.records import ACTIVATIONS, HEADS, Floats, Layer, Network, Shape

_COLUMNS, _ROWS, _SPARSE, _CONVOLUTION, _LANES, _BYTES, _DOTS, _PATCHES = range(8)
#: Fields of sb3s_layer and sb3s_plan, in their order in memory; all have four bytes.
_LAYER = (
    "kind activation in out low high rectify residual pool_height pool_width pool_down pool_right pool_top pool_side "
    "weights indices biases counts runs scales sums channels height width "
    "stride_height stride_width pad_height pad_width out_height out_width pitch phase places tile vectors "
    "across"
).split()
_PLAN = "layers inputs outputs head actions normalize limit mean scale low high groups half buffers pixels".split()
#: A layer is taken for dense if it has at least this share of its weights: a dense kernel reads vectors.
_DENSE = 0.2


class Plan:
    """
    The block of memory and what must be known to call the kernels with it.

    :param network: A network.
    :param vector: Whether to take the AVX-512 VBMI kernels where they fit.
    :raises ValueError: if a layer is too wide for the kernels
    """

    def __init__(self, network: Network, *, vector: bool = False) -> None:
        self._parts: list[bytes] = []
        self._size = 4 * (len(_PLAN) + len(_LAYER) * len(network.layers))
        self._pad()
        shapes = network.shapes
        head = network.head
        fields: dict[str, float] = {
            "layers": len(network.layers),
            "inputs": prod(network.shape),
            "outputs": head.inputs,
            "head": HEADS.index(head.kind),
            "actions": prod(head.shape),
        }
        if network.normalize is not None:
            fields |= {"normalize": 1, "limit": min(network.normalize.limit, float(np.finfo(np.float32).max))}
            fields |= {"mean": self._add(network.normalize.mean), "scale": self._add(network.normalize.scale)}
        if head.low is not None and head.high is not None:
            fields |= {"low": self._add(head.low), "high": self._add(head.high)}
        if head.kind == "argmax":
            fields["groups"] = self._add(np.array(head.groups, np.int32))
        layers, extra = [], 0
        for index, layer in enumerate(network.layers):
            described = self._shape(layer, shapes[index])
            if vector and in_bytes(network, index):
                described |= self._bytes(layer, shapes[index])
            else:
                described |= self._floats(layer, shapes[index], lanes=vector and index == 0)
            extra = max(extra, int(described.pop("extra", 0)))
            layers.append(described)
        if vector and exact_in_bytes(network):
            first = network.layers[0]
            described = self._shape(first, shapes[0]) | {"kind": _PATCHES}
            described |= byte_convolution(self._add, first, shapes[0], first.sum_shape(shapes[0]), pixels=True)
            extra = max(extra, int(described.pop("extra")))
            fields["pixels"] = self._add(np.frombuffer(_record(_LAYER, described), np.uint8))
        # Buffers are a multiple of 64 bytes, and hold whole slices of 16 rows. A pool takes a third, and so does an input that
        # is needed twice.
        sums = [layer.sum_shape(shape) for layer, shape in zip(network.layers, shapes, strict=False)]
        half = max(64, *(_round_up(prod(shape), 64) for shape in (*shapes, *sums)))
        buffers = 3 if any(layer.rectify or layer.residual or layer.pool is not None for layer in network.layers) else 2
        fields |= {"half": half, "buffers": buffers}
        #: Bytes of memory that a call works in.
        self.scratch = 4 * (buffers * half + extra) + 64
        head_bytes = b"".join([_record(_PLAN, fields), *(_record(_LAYER, layer) for layer in layers)])
        body = b"".join(self._parts)
        #: The block; it must lie at a multiple of 64 bytes.
        self.data = head_bytes + body

    def _pad(self) -> None:
        missing = -self._size % 64
        self._parts.append(bytes(missing))
        self._size += missing

    def _add(self, array: NDArray[Any]) -> int:
        """Append an array at a multiple of 64 bytes; its offset."""
        offset = self._size
        data = np.ascontiguousarray(array).tobytes()
        self._parts.append(data)
        self._size += len(data)
        self._pad()
        if self._size >= 1 << 31:
            raise ValueError("this policy is too large for the compiled kernels: use backend='numpy'")
        return offset

    def _shape(self, layer: Layer, before: Shape) -> dict[str, float]:
        return {
            "activation": list(ACTIVATIONS).index(layer.activation.name),
            "low": layer.activation.low,
            "high": layer.activation.high,
            "in": prod(before),
            "out": layer.outputs,
            **_around(layer),
        }

    def _floats(self, layer: Layer, before: Shape, *, lanes: bool) -> dict[str, float]:
        if layer.convolution:
            return {"kind": _CONVOLUTION, **float_convolution(self._add, layer, before, layer.sum_shape(before))}
        return self._lanes(layer) if lanes and prod(before) <= 32 else self._linear(layer)

    def _bytes(self, layer: Layer, before: Shape) -> dict[str, float]:
        if layer.convolution:
            return {"kind": _PATCHES, **byte_convolution(self._add, layer, before, layer.sum_shape(before), pixels=False)}
        return self._bytes_linear(layer)

    def _linear(self, layer: Layer) -> dict[str, float]:
        weight = layer.dense()
        outputs, inputs = weight.shape
        fields: dict[str, float] = {"biases": self._add(layer.biases)}
        if np.count_nonzero(weight) >= _DENSE * weight.size:
            if outputs >= 32:
                return fields | {"kind": _COLUMNS, "weights": self._add(weight.T)}
            padded = np.zeros((outputs, _round_up(inputs, 16)), np.float32)
            padded[:, :inputs] = weight
            return fields | {"kind": _ROWS, "weights": self._add(padded)}
        if inputs > 1 << 16:
            raise ValueError(f"a layer of {inputs} inputs is too wide for the compiled kernels: use backend='numpy'")
        rows, columns = np.nonzero(weight)
        runs = to_runs(np.bincount(rows, minlength=outputs))
        fields |= {"kind": _SPARSE, "runs": len(runs), "counts": self._add(runs.astype(np.int32))}
        indices = self._add(columns.astype(np.uint16))
        return fields | {"weights": self._add(weight[rows, columns]), "indices": indices}

    def _lanes(self, layer: Layer) -> dict[str, float]:
        """SELL-16 with one float weight per row and step."""
        weight = layer.dense()
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
            "kind": _LANES,
            "weights": self._add(np.concatenate(values).astype(np.float32)),
            "indices": self._add(np.concatenate(indices).astype(np.uint8)),
            "counts": self._add(np.array(steps, np.int32)),
            "biases": self._add(_pad_rows(layer.biases)),
            "runs": len(steps),
        }

    def _bytes_linear(self, layer: Layer) -> dict[str, float]:
        """SELL-16 with four int8 weights per row and step, all of one block of 64 inputs; or dense, if that is faster."""
        weight = layer.weight
        fields: dict[str, float] = {
            "biases": self._add(_pad_rows(layer.biases)),
            "scales": self._add(_pad_rows(layer.scales)),
            "sums": self._add(_pad_rows(weight.sum(axis=1, dtype=np.int64).astype(np.float32))),
        }
        parts, steps, places = [], [], []
        for rows in _slices(weight):
            steps.append(0)
            for start in range(0, weight.shape[1], 64):
                part = rows[:, start : start + 64]
                width = -(-int(np.count_nonzero(part, axis=1).max()) // 4)
                columns, picked = _compact(part, 4 * width)
                # Two times [row, step, 4] to [step, two, row, 4]
                both = np.stack([columns.astype(np.uint8), picked.view(np.uint8)]).reshape(2, 16, width, 4)
                parts.append(both.transpose(2, 0, 1, 3).reshape(-1))
                places += [start] * width
                steps[-1] += width
        outputs, inputs = _round_up(weight.shape[0], 8), _round_up(weight.shape[1], 64)
        # Cycles, roughly: a dense step waits for one operand from memory, a sparse one for three; two are read at a time.
        if outputs * inputs / 64 + 2 * outputs < 1.5 * sum(steps) + 4 * len(steps):
            padded = np.zeros((outputs, inputs), np.int8)
            padded[: weight.shape[0], : weight.shape[1]] = weight
            # [group, row, block, 64] to [group, block, row, 64]
            arranged = padded.reshape(-1, 8, inputs // 64, 64).transpose(0, 2, 1, 3)
            return fields | {"kind": _DOTS, "weights": self._add(arranged)}
        return fields | {
            "kind": _BYTES,
            "weights": self._add(np.concatenate(parts)),
            "indices": self._add(np.array(places, np.uint16)),
            "counts": self._add(np.array(steps, np.int32)),
            "runs": len(steps),
        }


def _around(layer: Layer) -> dict[str, float]:
    """What a convolution does before and after its sums."""
    fields: dict[str, float] = {"rectify": layer.rectify, "residual": layer.residual}
    if layer.pool is not None:
        names = (f"pool_{name}" for name in ("height", "width", "down", "right", "top", "side"))
        numbers = (*layer.pool.kernel, *layer.pool.stride, *layer.pool.padding)
        fields |= dict(zip(names, numbers, strict=True))
    return fields


def _record(names: Sequence[str], fields: dict[str, float]) -> bytes:
    """A C struct of four-byte members."""
    # In the plan, low and high are offsets.
    floats = ("low", "high") if names is _LAYER else ("limit",)
    values = (np.array(fields.get(name, 0), np.float32 if name in floats else np.int32) for name in names)
    return b"".join(value.tobytes() for value in values)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _pad_rows(values: Floats) -> Floats:
    return np.pad(values, (0, -len(values) % 16)).astype(np.float32)


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
