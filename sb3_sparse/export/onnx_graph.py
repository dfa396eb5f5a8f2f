"""A graph of ONNX operators as plain data, and as the bytes of an ``.onnx`` file."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import Network, Shape
from sb3_sparse.version import __version__

if TYPE_CHECKING:
    from onnx import SparseTensorProto

#: ``TensorProto.FLOAT``, ``UINT8``, ``INT64`` and ``BOOL``, numbers of the format.
ONNX_FLOAT, ONNX_UINT8, ONNX_INT64, ONNX_BOOL = 1, 2, 7, 9
#: Old enough for every runtime of the last years; layer norms exist since opset 17, all other operators since 13 or 14.
_OPSET, _IR_VERSION = 17, 8
_ACTIONS = {
    "unscale": "Actions in the units of the environment, within its bounds.",
    "clip": "Actions in the units of the environment, within its bounds.",
    "argmax": "Numbers of the chosen actions, counted from 0.",
    "positive": "1 for what is on, 0 for what is off.",
}

_STATES = {
    "h": "Outputs of the LSTM layers one step ago, zeros where an episode begins.",
    "c": "Cells of the LSTM layers one step ago, zeros where an episode begins.",
    "frames": "The last observations, zeros where an episode begins.",
}


class OnnxGraph:
    """Nodes and their tensors in order."""

    def __init__(self) -> None:
        self.nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []
        self.tensors: dict[str, NDArray[Any]] = {}

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Append a node; the name of its output, which may be given."""
        output = name or f"{operator}_{len(self.nodes)}"
        self.nodes.append((operator, list(inputs), output, attributes))
        return output

    def tensor(self, name: str, values: Any, dtype: type[np.generic] = np.float32) -> str:
        """
        :param name: A name; several nodes may use it for the same numbers.
        :param values: The numbers that nodes use.
        :param dtype: Their type.
        :return: The name
        :raises ValueError: if it is the name of other numbers
        """
        array = np.array(values, dtype, order="C")
        known = self.tensors.setdefault(name, array)
        if known.dtype != array.dtype or known.shape != array.shape or known.tobytes() != array.tobytes():
            raise ValueError(f"two tensors of the graph are named '{name}': use the compact file")
        return name


def serialize(
    graph: OnnxGraph, network: Network, inputs: Sequence[tuple[str, int, Shape, str]], action: str, *, sparse: bool
) -> bytes:
    """
    :param graph: The nodes from the observation to the action.
    :param network: The network that they compute.
    :param inputs: Name, type, shape without the batch, and documentation of each observation.
    :param action: Name of the output that is the action.
    :param sparse: Whether weights become sparse initializers where that saves bytes.
    :return: The bytes of an ``.onnx`` file
    :raises ValueError: if an input has a name that something else in the graph has
    """
    from onnx import TensorProto, helper, numpy_helper

    names = {action: "action"}
    nodes = [
        helper.make_node(operator, [names.get(name, name) for name in inputs], [names.get(output, output)], **attributes)
        for operator, inputs, output, attributes in graph.nodes
    ]
    initializers: list[TensorProto] = []
    sparse_initializers: list[SparseTensorProto] = []
    for name, values in graph.tensors.items():
        tensor = numpy_helper.from_array(values, name)
        thin = _sparse(name, values) if sparse and name.endswith(".weight") else None
        if thin is not None and thin.ByteSize() < tensor.ByteSize():
            sparse_initializers.append(thin)
        else:
            initializers.append(tensor)
    kind = TensorProto.INT64 if network.head.kind == "argmax" else TensorProto.FLOAT
    given, returned = (
        [
            helper.make_tensor_value_info(f"{prefix}{name}", type_, shape, text.format(_STATES[name], name))
            for name, (type_, shape) in _states(network).items()
        ]
        for prefix, text in (("", "{}"), ("next_", "{1} of the next step."))
    )
    taken = {"action", *graph.tensors, *(output for *_, output, _ in graph.nodes), *(state.name for state in given)}
    asked = [name for name, *_ in inputs]
    if taken := {name for name in asked if name in taken or asked.count(name) > 1}:
        raise ValueError(
            f"the graph cannot have an input named '{min(taken)}', the name of something else in it: rename this key of the "
            "observation, or use the compact file"
        )
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "policy",
            [*(helper.make_tensor_value_info(name, type_, ["n", *shape], doc) for name, type_, shape, doc in inputs), *given],
            [
                helper.make_tensor_value_info("action", kind, ["n", *network.head.shape], _ACTIONS[network.head.kind]),
                *returned,
            ],
            initializers,
            sparse_initializer=sparse_initializers,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="sb3_sparse",
        producer_version=__version__,
        doc_string="The deterministic policy of a Stable-Baselines3 model, normalization and rescaling included.",
    )
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _states(network: Network) -> dict[str, tuple[int, list[int | str]]]:
    """Type and shape of everything that the network remembers, by name."""
    _, lstms, size = network.state_shape
    states: dict[str, tuple[int, list[int | str]]] = {name: (ONNX_FLOAT, [lstms, "n", size]) for name in "hc" if lstms}
    if network.stack is not None:
        states["frames"] = (ONNX_UINT8 if network.image else ONNX_FLOAT, ["n", *network.shape])
    return states


def _sparse(name: str, values: NDArray[Any]) -> "SparseTensorProto":
    from onnx import TensorProto, helper, numpy_helper

    indices = np.flatnonzero(values)
    nonzeros = numpy_helper.from_array(values.reshape(-1)[indices], name)
    # As a list of integers and not as raw bytes: protobuf writes one to three bytes for each then instead of eight.
    return helper.make_sparse_tensor(nonzeros, helper.make_tensor("", TensorProto.INT64, indices.shape, indices), values.shape)
