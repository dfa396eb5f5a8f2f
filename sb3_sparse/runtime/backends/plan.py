"""
A network laid out for the compiled kernels: one block of memory with everything at its offset (``c/kernels.h``).

Each layer takes the kernel that suits it: dense by columns or by rows where most weights exist, runs of sparse rows where few
do, shifted planes for convolutions, and where a family is given those of its kernels that fit.
"""

from collections.abc import Sequence
from math import prod

import numpy as np

from sb3_sparse.runtime.backends import structs
from sb3_sparse.runtime.backends.families import Family
from sb3_sparse.runtime.backends.int8 import INT8, exact_in_bytes, in_bytes
from sb3_sparse.runtime.backends.plan_convolution import byte_convolution, float_convolution
from sb3_sparse.runtime.backends.plan_linear import byte_linear, float_linear, lane_linear, sparse_linear
from sb3_sparse.runtime.backends.structs import Block, Fields, Kernel
from sb3_sparse.runtime.network.capabilities import Capabilities, require_known
from sb3_sparse.runtime.network.records import (
    Activation,
    Fixed,
    Grid,
    Head,
    Layer,
    Minifloats,
    Network,
    Norm,
    Normalize,
    Part,
    Pool,
    Shape,
)

COMPILED = Capabilities(
    "the compiled backend",
    instead="use backend='numpy'",
    records={
        Network: "shape image normalize layers head ranges parts view",
        Part: "key shape sizes encoder",
        Normalize: "mean scale limit",
        Layer: "weight bias activation scale gain stride padding rectify residual pool lstm norm grid",
        Activation: "name low high slopes",
        Norm: "epsilon scale shift",
        Pool: "kernel stride padding mean",
        Grid: "unit low top",
        Minifloats: "codes unit",
        Fixed: "codes unit",
        Head: "kind shape low high groups",
    },
    activations=structs.ACTIVATIONS,
    heads=structs.HEADS,
)
#: Observations of a panel, in which each weight of a sparse layer is read once for all of them.
PANEL = 16
#: A panel does not pay for a network that has more than this share of its weights, if it is not small, nor for more than the
#: other share of more weights than stay in the second cache with their indices.
_SHARE, _SMALL, _FEW_WEIGHTS, _CACHED = 0.8, 1 << 14, 0.25, (1 << 20) // 6
#: By the share of weights that exist: how few observations take less time one by one than as a panel.
_FEW = ((0.25, 4), (0.5, 8), (1.0, 16))
#: The kernel by lanes is the best one for this many inputs at most.
_NARROW = 32


class Plan:
    """
    The block of memory that the kernels read, and the size of the memory that they work in.

    :param network: A network.
    :param family: The kernels for vectors to take where they fit, which round hidden activations to 8 bits; None for none.
    :param floats: The kernels for vectors of floats to take where they fit; None for none.
    :param panels: Whether to lay a network of linear layers out for panels as well, unless that makes it slower.
    :raises ValueError: if the kernels do not compute the network, it is too large for them, or both kinds of them are given
    """

    #: The block; it must lie at a multiple of 64 bytes.
    data: bytes
    #: Bytes of memory that a call works in.
    scratch: int
    #: Whether a batch is computed in panels of observations.
    panels: bool

    def __init__(
        self, network: Network, family: Family | None = None, *, floats: Family | None = None, panels: bool = False
    ) -> None:
        if family and floats:
            raise ValueError("a plan is for kernels that round hidden activations, or for those of floats: not for both")
        require_known(network, INT8 if family else COMPILED)
        shapes = network.shapes
        block = Block(structs.PLAN.itemsize + structs.LAYER.itemsize * len(network.layers))
        fields = _ends(block, network)
        layers = [_layer(block, network, index, shape, family, floats) for index, shape in enumerate(shapes[:-1])]
        extra = [int(layer.pop("extra", 0)) for layer in layers]
        _, lstms, units = network.state_shape
        fields["memory"] = lstms * units
        remembering = (layer for layer in layers if layer["units"])
        for number, layer in enumerate(remembering):
            layer["state"] = number * units
        if family and exact_in_bytes(network):
            first = _pixels(block, network, family)
            extra.append(int(first.pop("extra")))
            fields["pixels"] = block.add(np.frombuffer(structs.pack(structs.LAYER, first), np.uint8))
        # Buffers are a multiple of 64 bytes, and hold whole slices of 16 rows. A pool needs a third one, and so does an input
        # that is read twice.
        sums = [layer.sum_shape(shape) for layer, shape in zip(network.layers, shapes, strict=False)]
        # An LSTM layer has its last outputs behind its input, and four gates for each output.
        gates = [(size,) for layer in network.lstms for size in layer.weight.shape]
        half = max(64, *(-(-prod(shape) // 64) * 64 for shape in (*shapes, *sums, *gates)))
        fields |= _panel(block, network, layers) if panels else {}
        self.panels = bool(fields.get("panel"))
        buffers = 3 if any(layer.rectify or layer.residual or layer.pool is not None for layer in network.layers) else 2
        fields |= {"half": half, "buffers": buffers}
        self.scratch = 4 * max(buffers * half + max(extra), 2 * PANEL * half * self.panels) + 64
        head = [structs.pack(structs.PLAN, fields), *(structs.pack(structs.LAYER, layer) for layer in layers)]
        self.data = b"".join(head) + block.bytes()


def _ends(block: Block, network: Network) -> Fields:
    """The normalization, the head and the sizes of both ends."""
    head, normalize = network.head, network.normalize
    fields: Fields = {
        "layers": len(network.layers),
        "inputs": prod(network.shape),
        "outputs": head.inputs,
        "head": structs.HEADS.index(head.kind),
        "actions": prod(head.shape),
    }
    if normalize is not None:
        fields |= {"normalize": 1, "limit": block.add(np.minimum(normalize.limits, np.finfo(np.float32).max))}
        fields |= {"mean": block.add(normalize.mean), "scale": block.add(normalize.scale)}
    if head.low is not None and head.high is not None:
        fields |= {"low": block.add(head.low), "high": block.add(head.high)}
    if head.kind == "argmax":
        fields["groups"] = block.add(np.array(head.groups, np.int32))
    return fields


def _layer(block: Block, network: Network, index: int, before: Shape, family: Family | None, floats: Family | None) -> Fields:
    layer = network.layers[index]
    fields = _common(block, layer, before)
    if family and in_bytes(network, index):
        if layer.convolution:
            return fields | byte_convolution(block.add, layer, before, layer.sum_shape(before), family, pixels=False)
        return fields | byte_linear(block.add, layer, family)
    if layer.convolution:
        return fields | float_convolution(block.add, layer, before, layer.sum_shape(before))
    if family and index == 0 and prod(before) <= _NARROW:
        return fields | lane_linear(block.add, layer, family)
    return fields | float_linear(block.add, layer, floats)


def _panel(block: Block, network: Network, singles: Sequence[Fields]) -> Fields:
    """Where the layers for panels are, of a network of linear layers alone, whose sparse layers for one observation serve."""
    layers = network.layers
    if any(layer.convolution or layer.lstm or layer.norm or layer.rectify or layer.residual or layer.pool for layer in layers):
        return {}
    weights = [layer.dense() for layer in layers]
    size, left = sum(weight.size for weight in weights), sum(int(np.count_nonzero(weight)) for weight in weights)
    share = left / size
    pays = size <= _SMALL or share <= (_SHARE if left <= _CACHED else _FEW_WEIGHTS)
    if not pays or max(weight.shape[1] for weight in weights) > 1 << 16:
        return {}
    records = []
    for layer, shape, single in zip(layers, network.shapes, singles, strict=False):
        fields = single if single["kind"] == Kernel.SPARSE else _common(block, layer, shape) | sparse_linear(block.add, layer)
        # The slope of a neuron is that of all its numbers, as of a plane.
        records.append(fields | {"out_height": PANEL, "out_width": 1})
    data = np.frombuffer(b"".join(structs.pack(structs.LAYER, record) for record in records), np.uint8)
    return {"panel": block.add(data), "few": next(few for limit, few in _FEW if share <= limit)}


def _pixels(block: Block, network: Network, family: Family) -> Fields:
    """The first layer, for observations in bytes."""
    layer, before, after = network.layers[0], network.shape, network.layers[0].sum_shape(network.shape)
    return _common(block, layer, before) | byte_convolution(block.add, layer, before, after, family, pixels=True)


def _common(block: Block, layer: Layer, before: Shape) -> Fields:
    """The members that every kernel reads: sizes, and the steps around the sums."""
    fields: Fields = {
        "activation": structs.ACTIVATIONS.index(layer.activation.name),
        "low": layer.activation.low,
        "high": layer.activation.high,
        "in": prod(before) + (layer.outputs if layer.lstm else 0),
        "out": layer.rows,
        "units": layer.outputs if layer.lstm else 0,
        "rectify": layer.rectify,
        "residual": layer.residual,
    }
    if layer.grid is not None:
        fields |= {"lowest": layer.grid.low, "highest": layer.grid.top, "unit": layer.grid.unit}
    if layer.pool is not None:
        names = (f"pool_{name}" for name in ("height", "width", "down", "right", "top", "side", "mean"))
        numbers = (*layer.pool.kernel, *layer.pool.stride, *layer.pool.padding, layer.pool.mean)
        fields |= dict(zip(names, numbers, strict=True))
    if layer.activation.slopes is not None:
        # Kernels for slices of 16 rows fill up the last one.
        fields["slopes"] = block.add(np.pad(layer.activation.slopes, (0, -layer.outputs % 16)))
    if layer.norm is not None:
        fields |= {"norm_scale": block.add(layer.norm.scale), "norm_shift": block.add(layer.norm.shift)}
        fields["epsilon"] = layer.norm.epsilon
    return fields
