"""Each activation of the records as operators of ONNX, all of them in every opset since 14."""

from collections.abc import Callable

import numpy as np

from sb3_sparse.export.onnx_graph import OnnxGraph
from sb3_sparse.runtime.network.records import Layer

#: From a graph, the name of a layer, the layer and the name of its sums to the name of its outputs.
_Writer = Callable[[OnnxGraph, str, Layer, str], str]


def _operator(operator: str, attribute: str = "") -> _Writer:
    """One operator, and the attribute that the activation's first number is."""
    return lambda graph, name, layer, x: graph.add(
        operator, x, name="", **({attribute: layer.activation.low} if attribute else {})
    )


def _clip(graph: OnnxGraph, name: str, layer: Layer, x: str) -> str:
    low, high = layer.activation.low, layer.activation.high
    return graph.add("Clip", x, graph.tensor(f"{name}.low", low), graph.tensor(f"{name}.high", high))


def _silu(graph: OnnxGraph, name: str, layer: Layer, x: str) -> str:
    return graph.add("Mul", x, graph.add("Sigmoid", x))


def _gelu(graph: OnnxGraph, name: str, layer: Layer, x: str) -> str:
    # x / 2 * (1 + erf(x / sqrt(2)))
    erf = graph.add("Erf", graph.add("Mul", x, graph.tensor(f"{name}.root", np.sqrt(0.5))))
    half = graph.add("Mul", x, graph.tensor(f"{name}.half", 0.5))
    return graph.add("Mul", half, graph.add("Add", erf, graph.tensor(f"{name}.one", 1.0)))


def _gelu_tanh(graph: OnnxGraph, name: str, layer: Layer, x: str) -> str:
    # x * sigmoid(2 * sqrt(2 / pi) * (x + 0.044715 * x**3))
    twice = 2 * np.sqrt(2 / np.pi)
    cubic = graph.add("Mul", graph.add("Mul", x, x), graph.tensor(f"{name}.cubic", 0.044715 * twice))
    inner = graph.add("Mul", x, graph.add("Add", cubic, graph.tensor(f"{name}.linear", twice)))
    return graph.add("Mul", x, graph.add("Sigmoid", inner))


def _mish(graph: OnnxGraph, name: str, layer: Layer, x: str) -> str:
    return graph.add("Mul", x, graph.add("Tanh", graph.add("Softplus", x)))


def _prelu(graph: OnnxGraph, name: str, layer: Layer, x: str) -> str:
    # One slope per channel, for all its places.
    slopes = np.reshape(np.asarray(layer.activation.slopes), (-1, *[1] * (layer.weight.ndim - 2)))
    return graph.add("PRelu", x, graph.tensor(f"{name}.slopes", slopes))


#: Name of an activation -> what writes its operators.
WRITERS: dict[str, _Writer] = {
    "identity": lambda graph, name, layer, x: x,
    "relu": _operator("Relu"),
    "tanh": _operator("Tanh"),
    "clip": _clip,
    "leaky_relu": _operator("LeakyRelu", "alpha"),
    "elu": _operator("Elu", "alpha"),
    "sigmoid": _operator("Sigmoid"),
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "mish": _mish,
    "softplus": _operator("Softplus"),
    "softsign": _operator("Softsign"),
    "hardswish": _operator("HardSwish"),
    "prelu": _prelu,
}
