"""
ONNX: the whole policy as one graph, from an observation as the environment gives it to an action as it takes it.

Input ``observation``: ``[n, *shape]`` with any n. It is uint8 of a network of images (channels first, not divided by anything)
and float32 of all others, whatever the type of the environment's array. Output ``action``: ``[n, *action_shape]``, int64 of
``Discrete`` and ``MultiDiscrete``, else float32. VecNormalize, image scaling, unscaling, clipping and argmax are part of the
graph. The three forms compute the same to float rounding and differ in how weights lie on disk:

- ``float``: float32, scales and gains multiplied in. Every tool reads it.
- ``qdq``: quantized layers keep their int8 weights, with a ``DequantizeLinear`` of one scale per row (axis 0; zero point 0,
  which ONNX takes where none is given) before the product. Gains, which are per column, multiply the inputs. Observations,
  activations and biases stay float, and so do float layers. A quarter of the bytes.
- ``sparse``: as ``qdq``, but a weight is a sparse initializer (its nonzeros and their linear indices) where that saves bytes,
  and float32 where a layer has so few weights that the scales cost more than int8 saves.

Neither of the latter brings speed: ONNX Runtime multiplies in float32 and makes sparse initializers dense when it loads
them. Other tools may not read sparse initializers at all, and ONNX's own shape inference and reference evaluator do not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.capabilities import Capabilities, require_known
from sb3_sparse.runtime.network.records import Activation, Fixed, Head, Layer, Minifloats, Network, Normalize, Pool
from sb3_sparse.version import __version__

if TYPE_CHECKING:
    from onnx import SparseTensorProto

WEIGHT_FORMS = ("float", "qdq", "sparse")
#: Old enough for every runtime of the last years: all that is needed here has been there since opset 13.
_OPSET, _IR_VERSION = 17, 8
#: ``TensorProto.FLOAT``, a number of the format.
_FLOAT = 1
#: Activations that are one operator, and the attribute that their first number is.
_OPERATORS: dict[str, tuple[str, tuple[str, ...]]] = {
    "relu": ("Relu", ()),
    "tanh": ("Tanh", ()),
    "leaky_relu": ("LeakyRelu", ("alpha",)),
    "elu": ("Elu", ("alpha",)),
    "sigmoid": ("Sigmoid", ()),
}

ONNX = Capabilities(
    "the ONNX export",
    instead="use the compact file, or export the policy without it",
    records={
        Network: "shape image normalize layers head ranges",
        Normalize: "mean scale limit",
        Layer: "weight bias activation scale gain stride padding rectify residual pool",
        Activation: "name low high",
        Pool: "kernel stride padding",
        Minifloats: "codes unit",
        Fixed: "codes unit",
        Head: "kind shape low high groups",
    },
    activations=("identity", "clip", "silu", *_OPERATORS),
    heads=("unscale", "clip", "argmax", "positive"),
)


def to_onnx(network: Network, *, form: str = "float") -> bytes:
    """
    Write a network as an ONNX model. The same network gives the same bytes.

    :param network: The network.
    :param form: "float", "qdq" or "sparse", as said above.
    :return: What an ``.onnx`` file holds
    :raises ValueError: if the form is unknown, the layers do not fit each other, or ONNX has no operators for the network here
    :raises ImportError: if the package ``onnx`` is not installed
    """
    if form not in WEIGHT_FORMS:
        raise ValueError(f"unknown form '{form}': use one of {', '.join(WEIGHT_FORMS)}")
    require_known(network, ONNX)
    try:
        import_module("onnx")
    except ImportError as error:
        raise ImportError(f"writing ONNX needs the package onnx ({error}): pip install sb3_sparse[export]") from error
    graph = _Graph()
    x = "observation"
    if network.image:
        x = graph.add("Cast", x, to=_FLOAT)
    if network.normalize is not None:
        x = _normalize(graph, network.normalize, x)
    before = x
    for index, (layer, shape) in enumerate(zip(network.layers, network.shapes, strict=False)):
        if not layer.convolution and len(shape) != 1:
            x = graph.add("Flatten", x, axis=1)
        before, x = x, _layer(graph, layer, f"layers.{index}", x, before, form)
    _head(graph, network.head, x)
    return _serialize(graph, network, form)


class _Graph:
    """Nodes and their numbers as plain data, in order; the output of the last node is the graph's."""

    def __init__(self) -> None:
        self.nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []
        self.tensors: dict[str, NDArray[Any]] = {}

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append((operator, list(inputs), output, attributes))
        return output

    def tensor(self, name: str, values: Any, dtype: type[np.generic] = np.float32) -> str:
        self.tensors[name] = np.array(values, dtype, order="C")
        return name


def _normalize(graph: _Graph, normalize: Normalize, x: str) -> str:
    x = graph.add("Sub", x, graph.tensor("normalize.mean", normalize.mean))
    x = graph.add("Mul", x, graph.tensor("normalize.scale", normalize.scale))
    if np.isinf(normalize.limit):
        return x
    bounds = graph.tensor("normalize.low", -normalize.limit), graph.tensor("normalize.high", normalize.limit)
    return graph.add("Clip", x, *bounds)


def _layer(graph: _Graph, layer: Layer, name: str, x: str, before: str, form: str) -> str:
    """What computes a layer; ``before`` is the input of the layer before."""
    weight, bias = f"{name}.weight", graph.tensor(f"{name}.bias", layer.biases)
    if layer.rectify:
        x = graph.add("Relu", x)
    if not _keeps_integers(layer, form):
        graph.tensor(weight, layer.dense())
    else:
        if layer.gain is not None:
            x = graph.add("Mul", x, graph.tensor(f"{name}.gain", layer.gain.values))
        graph.tensor(weight, layer.weight, np.int8)
        weight = graph.add("DequantizeLinear", weight, graph.tensor(f"{name}.scale", layer.scales), axis=0)
    if layer.convolution:
        x = graph.add("Conv", x, weight, bias, strides=[*layer.stride], pads=[*layer.padding, *layer.padding])
    else:
        x = graph.add("Gemm", x, weight, bias, transB=1)
    if layer.residual:
        x = graph.add("Add", x, before)
    x = _activation(graph, layer.activation, name, x)
    if layer.pool is not None:
        kernel, stride, padding = layer.pool
        x = graph.add("MaxPool", x, kernel_shape=[*kernel], strides=[*stride], pads=[*padding, *padding])
    return x


def _keeps_integers(layer: Layer, form: str) -> bool:
    """An int8 saves three bytes of each weight and costs four for each scale and gain: a few weights are smaller as floats."""
    numbers = layer.outputs + (0 if layer.gain is None else len(layer.gain.codes))
    saves = form == "qdq" or 3 * np.count_nonzero(layer.weight) > 4 * numbers
    return form != "float" and layer.quantized and bool(saves)


def _activation(graph: _Graph, activation: Activation, name: str, x: str) -> str:
    if activation.name == "identity":
        return x
    if activation.name == "clip":
        return graph.add("Clip", x, graph.tensor(f"{name}.low", activation.low), graph.tensor(f"{name}.high", activation.high))
    if activation.name == "silu":
        return graph.add("Mul", x, graph.add("Sigmoid", x))
    operator, attributes = _OPERATORS[activation.name]
    return graph.add(operator, x, **dict.fromkeys(attributes, activation.low))


def _head(graph: _Graph, head: Head, x: str) -> None:
    size = head.inputs
    if head.kind == "argmax":
        x, size = _argmax(graph, head.groups, x), len(head.groups)
    elif head.kind == "positive":
        x = graph.add("Cast", graph.add("Greater", x, graph.tensor("head.zero", 0.0)), to=_FLOAT)
    else:
        assert head.low is not None and head.high is not None
        x = (_unscale if head.kind == "unscale" else _clip)(graph, head.low, head.high, x)
    if head.shape != (size,):
        # 0 stands for the batch, whatever it is; -1 would not do for an empty one.
        graph.add("Reshape", x, graph.tensor("head.shape", (0, *head.shape), np.int64))


def _argmax(graph: _Graph, groups: tuple[int, ...], x: str) -> str:
    ends = np.cumsum(groups)
    parts = []
    for index, (start, end) in enumerate(zip(ends - groups, ends, strict=True)):
        part = x
        if len(groups) > 1:
            cuts = [graph.tensor(f"head.{key}.{index}", [value], np.int64) for key, value in (("start", start), ("end", end))]
            part = graph.add("Slice", x, *cuts, graph.tensor("head.axis", [1], np.int64))
        parts.append(graph.add("ArgMax", part, axis=1))
    return parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)


def _unscale(graph: _Graph, low: NDArray[np.float32], high: NDArray[np.float32], x: str) -> str:
    half = (high - low) / 2
    if (half == 1).all() and (low == -1).all():
        return x
    x = graph.add("Mul", x, graph.tensor("head.scale", half))
    return graph.add("Add", x, graph.tensor("head.shift", low + half))


def _clip(graph: _Graph, low: NDArray[np.float32], high: NDArray[np.float32], x: str) -> str:
    # By Max and Min, for the bounds of Clip are one number each; infinite ones change nothing.
    if not np.isneginf(low).all():
        x = graph.add("Max", x, graph.tensor("head.low", low))
    if not np.isposinf(high).all():
        x = graph.add("Min", x, graph.tensor("head.high", high))
    return x


def _serialize(graph: _Graph, network: Network, form: str) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    # The last node gives the action.
    *nodes, (operator, inputs, _, attributes) = graph.nodes
    dense: list[TensorProto] = []
    sparse: list[SparseTensorProto] = []
    for name, values in graph.tensors.items():
        tensor = numpy_helper.from_array(values, name)
        thin = _sparse(name, values) if form == "sparse" and name.endswith(".weight") else None
        if thin is not None and thin.ByteSize() < tensor.ByteSize():
            sparse.append(thin)
        else:
            dense.append(tensor)
    action = TensorProto.INT64 if network.head.kind == "argmax" else TensorProto.FLOAT
    observation = TensorProto.UINT8 if network.image else TensorProto.FLOAT
    units = _OBSERVATION + (_IMAGE if network.image else "")
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(*node[:2], [node[2]], **node[3]) for node in (*nodes, (operator, inputs, "action", attributes))],
            "policy",
            [helper.make_tensor_value_info("observation", observation, ["n", *network.shape], units)],
            [helper.make_tensor_value_info("action", action, ["n", *network.head.shape], _ACTIONS[network.head.kind])],
            dense,
            sparse_initializer=sparse,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="sb3_sparse",
        producer_version=__version__,
        doc_string="The deterministic policy of a Stable-Baselines3 model, normalization and rescaling included.",
    )
    data: bytes = model.SerializeToString(deterministic=True)
    return data


_OBSERVATION = "Observations as the environment gives them, in its units and not normalized; n is the batch."
_IMAGE = " Images have values from 0 to 255 and their channels first."
_ACTIONS = {
    "unscale": "Actions in the units of the environment, within its bounds.",
    "clip": "Actions in the units of the environment, within its bounds.",
    "argmax": "Numbers of the chosen actions, counted from 0.",
    "positive": "1 for what is on, 0 for what is off.",
}


def _sparse(name: str, values: NDArray[Any]) -> "SparseTensorProto":
    from onnx import TensorProto, helper, numpy_helper

    indices = np.flatnonzero(values)
    nonzeros = numpy_helper.from_array(values.reshape(-1)[indices], name)
    # As a list of integers and not as raw bytes: protobuf writes one to three bytes for each then instead of eight.
    return helper.make_sparse_tensor(nonzeros, helper.make_tensor("", TensorProto.INT64, indices.shape, indices), values.shape)
