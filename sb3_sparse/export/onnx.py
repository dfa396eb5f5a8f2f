"""
ONNX: the whole policy as one graph, from an observation as the environment gives it to an action as it takes it.

Input ``observation``: ``[n, *shape]`` with any n. It is uint8 for a network of images (channels first, values from 0 to 255),
int64 for classes (one that does not exist counts as none), and float32 for all others, whatever the type of the environment's
array. Where the observation is a dict, each key is such an input. Output ``action``: ``[n, *action_shape]``, int64 of
``Discrete`` and ``MultiDiscrete``, else float32. VecNormalize, image scaling, unscaling, clipping and argmax are part of the
graph. A recurrent policy has the inputs ``h`` and ``c``, ``[LSTM layers, n, units]``, zeros where an episode begins, and the
outputs ``next_h`` and ``next_c``. One that stacks frames has the input ``frames``, ``[n, *stacked shape]``, and the output
``next_frames``. The three forms compute the same to float rounding and differ in how weights lie on disk:

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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.export.onnx_activations import WRITERS
from sb3_sparse.export.onnx_graph import ONNX_BOOL, ONNX_FLOAT, OnnxGraph, serialize
from sb3_sparse.export.onnx_inputs import Input, assemble_inputs, graph_inputs
from sb3_sparse.export.onnx_states import OnnxStates, push_frame
from sb3_sparse.runtime.masks import with_outputs
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
    Stack,
)

WEIGHT_FORMS = ("float", "qdq", "sparse")

ONNX = Capabilities(
    "the ONNX export",
    instead="use the compact file, or export the policy without it",
    records={
        Network: "shape image normalize layers head ranges parts stack view",
        Stack: "frames normalize",
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
    activations=WRITERS,
    heads=("unscale", "clip", "argmax", "positive"),
)


def to_onnx(network: Network, *, form: str = "float", masks: bool = False) -> bytes:
    """
    Write a network as an ONNX model. The same network gives the same bytes.

    :param network: The network.
    :param form: "float", "qdq" or "sparse", as said above.
    :param masks: Whether the graph has the input ``action_masks``, ``[n, actions]``: which discrete actions are allowed.
    :return: The bytes of an ``.onnx`` file
    :raises ValueError: if the form is unknown, the layers do not fit each other, a part of the network is not supported, or
        there are masks and the actions are not discrete
    :raises ImportError: if the package ``onnx`` is not installed
    """
    if form not in WEIGHT_FORMS:
        raise ValueError(f"unknown form '{form}': use one of {', '.join(WEIGHT_FORMS)}")
    require_known(network, ONNX)
    _ = network.shapes  # Raises an error if layers do not fit each other.
    inputs = graph_inputs(network)
    if masks:
        (size,) = with_outputs(network).head.shape
        inputs.append(Input("action_masks", ONNX_BOOL, (size,), "Whether each discrete action is allowed."))
    try:
        import_module("onnx")
    except ImportError as error:
        raise ImportError(f"writing ONNX needs the package onnx ({error}): pip install sb3_sparse[export]") from error
    graph = OnnxGraph()
    encoders, x = network.encoders, "observation"
    if network.parts:
        x = assemble_inputs(graph, network, lambda key, x: _layers(graph, encoders[key], f"parts.{key}.", x, form))
    if network.stack is not None:
        x = x if network.stack.normalize is None else _normalize(graph, network.stack.normalize, "frames.normalize", x)
        x = push_frame(graph, network, x)
    x = _layers(graph, network, "", x, form)
    if masks:
        x = graph.add("Where", "action_masks", x, graph.tensor("head.forbidden", -np.inf))
    return serialize(graph, network, inputs, _head(graph, network.head, x), sparse=form == "sparse")


def _layers(graph: OnnxGraph, network: Network, prefix: str, x: str, form: str) -> str:
    """Append the nodes of the normalization and of all layers."""
    if network.image:
        x = graph.add("Cast", x, to=ONNX_FLOAT)
    if network.normalize is not None:
        x = _normalize(graph, network.normalize, f"{prefix}normalize", x)
    if network.view is not None:
        x = graph.add("Reshape", x, graph.tensor(f"{prefix}view", (0, *network.view), np.int64))
    before, states = x, OnnxStates(graph, network)
    for index, (layer, shape) in enumerate(zip(network.layers, network.shapes, strict=False)):
        if not layer.convolution and len(shape) != 1:
            x = graph.add("Flatten", x, axis=1)
        if layer.lstm:
            x = graph.add("Concat", x, states.last_outputs(), axis=1)
        before, x = x, _layer(graph, layer, f"{prefix}layers.{index}", x, before, form)
        if layer.lstm:
            x = states.remember(x)
    states.finish()
    return x


def _normalize(graph: OnnxGraph, normalize: Normalize, name: str, x: str) -> str:
    x = graph.add("Sub", x, graph.tensor(f"{name}.mean", normalize.mean))
    x = graph.add("Mul", x, graph.tensor(f"{name}.scale", normalize.scale))
    if np.isinf(normalize.limit).all():
        return x
    low, high = graph.tensor(f"{name}.low", -normalize.limit), graph.tensor(f"{name}.high", normalize.limit)
    # The bounds of Clip are one number each.
    return graph.add("Min", graph.add("Max", x, low), high) if np.ndim(normalize.limit) else graph.add("Clip", x, low, high)


def _layer(graph: OnnxGraph, layer: Layer, name: str, x: str, before: str, form: str) -> str:
    """Append the nodes of a layer; ``before`` is the input of the layer before it."""
    weight, bias = f"{name}.weight", graph.tensor(f"{name}.bias", layer.biases)
    if layer.rectify:
        x = graph.add("Relu", x)
    if layer.grid is not None:
        x = _round(graph, layer.grid, f"{name}.grid", x)
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
    if layer.norm is not None:
        numbers = [graph.tensor(f"{name}.norm.{key}", getattr(layer.norm, key)) for key in ("scale", "shift")]
        x = graph.add("LayerNormalization", x, *numbers, axis=1, epsilon=layer.norm.epsilon)
    x = WRITERS[layer.activation.name](graph, name, layer, x)
    if layer.pool is not None:
        kernel, stride, padding, mean = layer.pool
        options: dict[str, Any] = {"kernel_shape": [*kernel], "strides": [*stride], "pads": [*padding, *padding]}
        x = graph.add("AveragePool", x, **options, count_include_pad=1) if mean else graph.add("MaxPool", x, **options)
    return x


def _round(graph: OnnxGraph, grid: Grid, name: str, x: str) -> str:
    """Not QuantizeLinear: it has 8 bits. Round takes halves to even numbers, as training does."""
    x = graph.add("Round", graph.add("Div", x, graph.tensor(f"{name}.unit", grid.unit)))
    x = graph.add("Clip", x, *(graph.tensor(f"{name}.{key}", getattr(grid, key)) for key in ("low", "top")))
    return graph.add("Mul", x, graph.tensor(f"{name}.unit", grid.unit))


def _keeps_integers(layer: Layer, form: str) -> bool:
    """An int8 saves three bytes of each weight and costs four for each scale and gain: a few weights are smaller as floats."""
    numbers = layer.rows + (0 if layer.gain is None else len(layer.gain.codes))
    saves = form == "qdq" or 3 * np.count_nonzero(layer.weight) > 4 * numbers
    return form != "float" and layer.quantized and bool(saves)


def _head(graph: OnnxGraph, head: Head, x: str) -> str:
    size = head.inputs
    if head.kind == "argmax":
        x, size = _argmax(graph, head.groups, x), len(head.groups)
    elif head.kind == "positive":
        x = graph.add("Cast", graph.add("Greater", x, graph.tensor("head.zero", 0.0)), to=ONNX_FLOAT)
    else:
        assert head.low is not None and head.high is not None
        x = (_unscale if head.kind == "unscale" else _clip)(graph, head.low, head.high, x)
    if head.shape != (size,):
        # 0 keeps the size of the batch; -1 would fail for an empty one.
        x = graph.add("Reshape", x, graph.tensor("head.shape", (0, *head.shape), np.int64))
    return x


def _argmax(graph: OnnxGraph, groups: tuple[int, ...], x: str) -> str:
    ends = np.cumsum(groups)
    parts = []
    for index, (start, end) in enumerate(zip(ends - groups, ends, strict=True)):
        part = x
        if len(groups) > 1:
            cuts = [graph.tensor(f"head.{key}.{index}", [value], np.int64) for key, value in (("start", start), ("end", end))]
            part = graph.add("Slice", x, *cuts, graph.tensor("head.axis", [1], np.int64))
        parts.append(graph.add("ArgMax", part, axis=1))
    return parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)


def _unscale(graph: OnnxGraph, low: NDArray[np.float32], high: NDArray[np.float32], x: str) -> str:
    half = (high - low) / 2
    if (half == 1).all() and (low == -1).all():
        return x
    x = graph.add("Mul", x, graph.tensor("head.scale", half))
    return graph.add("Add", x, graph.tensor("head.shift", low + half))


def _clip(graph: OnnxGraph, low: NDArray[np.float32], high: NDArray[np.float32], x: str) -> str:
    # Max and Min, because the bounds of Clip are one number each; infinite bounds change nothing.
    if not np.isneginf(low).all():
        x = graph.add("Max", x, graph.tensor("head.low", low))
    if not np.isposinf(high).all():
        x = graph.add("Min", x, graph.tensor("head.high", high))
    return x
