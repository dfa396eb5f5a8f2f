"""
What the kernels for 8-bit activations compute: the layers whose inputs they round, and the same computation in numpy. It is
the same for every family of them (``families.py``).

Hidden layers of integers take their inputs in 8 bits between the smallest (at most 0) and the largest of all inputs of the
layer, or on the grid that training has rounded them to. All other layers are computed in float, as by the portable kernels.
"""

from math import prod

import numpy as np

from sb3_sparse.runtime.backends import structs
from sb3_sparse.runtime.network.capabilities import Capabilities, require_known
from sb3_sparse.runtime.network.records import (
    Activation,
    Fixed,
    Floats,
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
from sb3_sparse.runtime.network.reference import apply_layer

INT8 = Capabilities(
    "the int8 backend",
    instead="use backend='auto'",
    records={
        Network: "shape image normalize layers head ranges parts view",
        Part: "key shape sizes encoder",
        Normalize: "mean scale limit",
        Layer: "weight bias activation scale gain stride padding rectify residual pool grid",
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
#: How many times 16 lanes a tile of a convolution's output fills at most.
REGISTERS = 8
#: Most inputs of a window: sums of bytes must fit into 32 bits.
_INPUTS = 1 << 16
#: Activations without negative outputs.
_POSITIVE = ("relu", "sigmoid")


def in_bytes(network: Network, index: int) -> bool:
    """
    :param network: A network.
    :param index: Number of a layer.
    :return: Whether the kernels round its inputs to 8 bits. They do in hidden layers of integers; but not in convolutions with
        padding whose inputs may be negative (0 is not one of the 256 steps then), with wide rows or strides, or with a part
        that only residual networks have
    """
    layer = network.layers[index]
    if index == 0 or not layer.quantized or layer.gain is not None:
        return False
    if layer.grid is not None and layer.grid.top - layer.grid.low > 255:
        return False
    if not layer.convolution:
        return prod(layer.weight.shape[1:]) <= _INPUTS
    if layer.rectify or layer.residual or layer.pool is not None:
        return False
    positive = network.layers[index - 1].activation.name in _POSITIVE
    return _fits(layer, network.shapes[index + 1]) and (positive or not any(layer.padding))


def exact_in_bytes(network: Network) -> bool:
    """
    :param network: A network.
    :return: Whether it begins with a convolution of integers that takes bytes as they are
    """
    layer = network.layers[0]
    if not network.image or network.normalize is not None or not layer.quantized or not layer.convolution:
        return False
    if layer.grid is not None:
        return False
    return not layer.rectify and _fits(layer, layer.sum_shape(network.shape))


def _fits(layer: Layer, after: Shape) -> bool:
    return after[-1] <= 16 * REGISTERS and max(layer.stride) <= 16 and prod(layer.weight.shape[1:]) <= _INPUTS


def simulate_int8(network: Network, observations: Floats) -> Floats:
    """
    The kernels in numpy. The first layer has float inputs here; pixels are whole numbers, so bytes give the same.

    :param network: A quantized network.
    :param observations: ``[n, *shape]``.
    :return: Outputs of the last layer, ``[n, out]``
    :raises ValueError: if the kernels do not compute the network
    """
    require_known(network, INT8)
    x = before = network.read(observations)
    for index, layer in enumerate(network.layers):
        if layer.grid is None and in_bytes(network, index):
            axes = tuple(range(1, x.ndim))
            low = np.minimum(x.min(axis=axes, keepdims=True), np.float32(0))
            unit = (np.maximum(x.max(axis=axes, keepdims=True), np.float32(0)) - low) * np.float32(1 / 255)
            x = np.rint((x - low) / np.where(unit > 0, unit, np.float32(1))) * unit + low
        before, x = x, apply_layer(layer, x, before)
    return x
