"""
What a policy remembers in an ONNX graph: from the inputs h and c of LSTM layers, and frames of a stack, to the outputs next_h,
next_c and next_frames.
"""

import numpy as np

from sb3_sparse.export.onnx_graph import OnnxGraph
from sb3_sparse.runtime.network.records import Network
from sb3_sparse.runtime.network.stacking import stack_axis


def push_frame(graph: OnnxGraph, network: Network, x: str) -> str:
    """
    :param graph: Where nodes go.
    :param network: A network with a stack of frames.
    :param x: Name of a frame, ``[n, *frame_shape]``.
    :return: Name of the stack that ends in it, ``[n, *shape]``, which is an output of the graph
    """
    axis = stack_axis(network) % (len(network.shape) + 1)
    bounds = (network.frame_shape[axis - 1], network.shape[axis - 1], axis)
    names = [graph.tensor(f"states.at.{number}", [number], np.int64) for number in bounds]
    return graph.add("Concat", graph.add("Slice", "frames", *names), x, name="next_frames", axis=axis)


class OnnxStates:
    """
    The LSTM layers of a graph, in order.

    :param graph: The graph.
    :param network: The network that it computes.
    """

    def __init__(self, graph: OnnxGraph, network: Network) -> None:
        self._graph = graph
        self._sizes = [layer.outputs for layer in network.lstms]
        self._found: dict[str, list[str]] = {"next_h": [], "next_c": []}

    def last_outputs(self) -> str:
        """What the next LSTM layer has given one step ago, ``[n, out]``."""
        return self._part("h")

    def remember(self, gates: str) -> str:
        """
        :param gates: The gates of that layer, ``[n, 4 * out]``.
        :return: Its outputs, ``[n, out]``
        """
        graph, size = self._graph, self._sizes[len(self._found["next_h"])]
        given, forget, candidate, output = (self._slice(gates, 1, gate * size, (gate + 1) * size) for gate in range(4))
        kept = graph.add("Mul", graph.add("Sigmoid", forget), self._part("c"))
        cell = graph.add("Add", kept, graph.add("Mul", graph.add("Sigmoid", given), graph.add("Tanh", candidate)))
        hidden = graph.add("Mul", graph.add("Sigmoid", output), graph.add("Tanh", cell))
        for name, value in (("next_h", hidden), ("next_c", cell)):
            self._found[name].append(self._fill(value, size))
        return hidden

    def finish(self) -> None:
        """Append the outputs, if there are LSTM layers."""
        for name, parts in self._found.items():
            if parts:
                self._graph.add("Concat", *parts, name=name, axis=0)

    def _part(self, name: str) -> str:
        """The rows of the next layer in an input."""
        number = len(self._found["next_h"])
        index = self._graph.tensor(f"states.{number}", number, np.int64)
        part = self._graph.add("Gather", name, index, axis=0)
        size = self._sizes[number]
        return part if size == max(self._sizes) else self._slice(part, 1, 0, size)

    def _slice(self, x: str, axis: int, start: int, end: int) -> str:
        bounds = [self._graph.tensor(f"states.at.{number}", [number], np.int64) for number in (start, end, axis)]
        return self._graph.add("Slice", x, *bounds)

    def _fill(self, x: str, size: int) -> str:
        """``[1, n, units]``, with zeros behind the units of a layer that is narrower than others."""
        missing = max(self._sizes) - size
        if missing:
            x = self._graph.add("Pad", x, self._graph.tensor(f"states.pad.{missing}", [0, 0, 0, missing], np.int64))
        return self._graph.add("Unsqueeze", x, self._graph.tensor("states.at.0", [0], np.int64))
