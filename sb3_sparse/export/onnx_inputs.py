"""The inputs of an ONNX graph: one, ``observation``, or one for each key of a dict, and the vector that is made of them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sb3_sparse.export.onnx_graph import ONNX_FLOAT, ONNX_INT64, ONNX_UINT8, OnnxGraph
from sb3_sparse.runtime.network.records import Network, Part, Shape

_NUMBERS = "Observations as the environment gives them, in its units and not normalized; n is the batch."
_IMAGE = f"{_NUMBERS} Images have values from 0 to 255 and their channels first."
_CLASSES = "Classes as the environment gives them, counted from 0; n is the batch."


class Input(NamedTuple):
    """
    One input of a graph.

    :param name: Its name.
    :param kind: Type of its elements, a number of ``TensorProto``.
    :param shape: Its shape without the batch.
    :param doc: The units of its elements.
    """

    name: str
    kind: int
    shape: Shape
    doc: str


def graph_inputs(network: Network) -> list[Input]:
    """
    :param network: A network.
    :return: The inputs of its graph
    """
    if not network.parts:
        kind = (ONNX_UINT8, _IMAGE) if network.image else (ONNX_FLOAT, _NUMBERS)
        return [Input("observation", kind[0], network.frame_shape, kind[1])]
    inputs = []
    for part in network.parts:
        image = part.encoder is not None and part.encoder.image
        kind = (ONNX_INT64, _CLASSES) if part.sizes else (ONNX_UINT8, _IMAGE) if image else (ONNX_FLOAT, _NUMBERS)
        inputs.append(Input(part.key or "observation", kind[0], part.shape, kind[1]))
    return inputs


def assemble_inputs(graph: OnnxGraph, network: Network, encode: Callable[[str, str], str]) -> str:
    """
    :param graph: Where nodes go.
    :param network: A network with parts.
    :param encode: Appends the nodes of the encoder with this key behind an input; the name of its output.
    :return: Name of the vector that the network's layers take
    """
    stretches = []
    for part in network.parts:
        x = part.key or "observation"
        if part.encoder is not None:
            stretches.append(encode(part.key, x))
            continue
        count = len(part.sizes) or part.width
        if part.shape != (count,):
            x = graph.add("Reshape", x, graph.tensor(f"parts.{x}.shape", (0, count), np.int64))
        stretches.append(_one_hot(graph, part, x) if part.sizes else x)
    return stretches[0] if len(stretches) == 1 else graph.add("Concat", *stretches, axis=1)


def _one_hot(graph: OnnxGraph, part: Part, x: str) -> str:
    """Each element as often as it has classes, and where it is equal to the number of its class."""
    name = part.key or "observation"
    elements = np.repeat(np.arange(len(part.sizes)), part.sizes)
    classes = np.concatenate([np.arange(size) for size in part.sizes])
    x = graph.add("Gather", x, graph.tensor(f"parts.{name}.elements", elements, np.int64), axis=1)
    return graph.add("Cast", graph.add("Equal", x, graph.tensor(f"parts.{name}.classes", classes, np.int64)), to=ONNX_FLOAT)
