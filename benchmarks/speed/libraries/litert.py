"""
A network of linear layers as a LiteRT (TensorFlow Lite) model: what the fastest dense library is measured with.

The usual converters need TensorFlow, JAX or a torch of their own. Three matrices need none of them: a model is a flatbuffer,
and LiteRT brings the classes that write it. Weights are float32, or int8 with a scale for each row; with the latter LiteRT
rounds the inputs of every layer to 8 bits as it goes ("dynamic range"), as the "int8" backend does.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import Layer, Network


def make_litert(network: Network, *, int8: bool) -> Callable[..., tuple[NDArray[Any], None]]:
    """
    :param network: A network.
    :param int8: Whether the weights are int8, where the layers' are.
    :return: What runs it in one thread, called as SB3's ``predict`` is
    :raises ImportError: if LiteRT is not installed
    :raises ValueError: if the network has more than ReLU, tanh and bounds of -1 and 1
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    if not _is_plain(network):
        raise ValueError("only linear layers with ReLU and tanh, and actions between -1 and 1, are written for LiteRT")
    builder = flatbuffers.Builder(0)
    builder.Finish(_model(schema, network, int8).Pack(builder), b"TFL3")
    interpreter = Interpreter(model_content=bytes(builder.Output()), num_threads=1)
    interpreter.allocate_tensors()
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    source, target = inputs["index"], outputs["index"]

    def predict(observation: NDArray[Any], deterministic: bool = True) -> tuple[NDArray[Any], None]:
        interpreter.set_tensor(source, observation[None].astype(np.float32))
        interpreter.invoke()
        return interpreter.get_tensor(target)[0], None

    return predict


def _is_plain(network: Network) -> bool:
    head = network.head
    plain = all(not layer.convolution and layer.activation.name in ("identity", "relu", "tanh") for layer in network.layers)
    bounded = head.kind == "unscale" and head.low is not None and bool((head.low == -1).all() and (head.high == 1).all())
    return plain and bounded and network.normalize is None


def _model(schema: Any, network: Network, int8: bool) -> Any:
    """The model in LiteRT's own classes."""
    types, codes = schema.TensorType, schema.BuiltinOperator
    operators = [codes.FULLY_CONNECTED, codes.TANH]
    graph = schema.SubGraphT(tensors=[], operators=[], inputs=[0])
    # Buffer 0 is empty by definition: the one of tensors that are computed.
    model = schema.ModelT(version=3, buffers=[schema.BufferT()], subgraphs=[graph])
    model.operatorCodes = [schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=code, version=1) for code in operators]

    def tensor(shape: tuple[int, ...], values: NDArray[Any] | None = None, scales: NDArray[Any] | None = None) -> int:
        new = schema.TensorT(shape=list(shape), type=types.FLOAT32, buffer=0, name=f"tensor_{len(graph.tensors)}")
        if values is not None:
            new.type = types.INT8 if values.dtype == np.int8 else types.FLOAT32
            new.buffer = len(model.buffers)
            model.buffers.append(schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
        if scales is not None:
            zeros = [0] * len(scales)
            new.quantization = schema.QuantizationParametersT(scale=scales.tolist(), zeroPoint=zeros, quantizedDimension=0)
        graph.tensors.append(new)
        return len(graph.tensors) - 1

    def operator(code: int, inputs: list[int], width: int, kind: int = 0, options: Any = None) -> int:
        output = tensor((1, width))
        graph.operators.append(
            schema.OperatorT(
                opcodeIndex=operators.index(code),
                inputs=inputs,
                outputs=[output],
                builtinOptionsType=kind,
                builtinOptions=options,
            )
        )
        return output

    x = tensor((1, *network.shape))
    for layer in network.layers:
        weight, scales = _weight(layer, int8)
        inputs = [x, tensor(weight.shape, weight, scales), tensor(layer.biases.shape, layer.biases)]
        relu = schema.ActivationFunctionType.RELU if layer.activation.name == "relu" else 0
        options = schema.FullyConnectedOptionsT(fusedActivationFunction=relu)
        x = operator(codes.FULLY_CONNECTED, inputs, layer.outputs, schema.BuiltinOptions.FullyConnectedOptions, options)
        if layer.activation.name == "tanh":
            x = operator(codes.TANH, [x], layer.outputs)
    graph.outputs = [x]
    return model


def _weight(layer: Layer, int8: bool) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Weights and their scales; LiteRT has no gains, so a layer that has them stays float."""
    if int8 and layer.quantized and layer.gain is None:
        return layer.weight, layer.scales
    return layer.dense(), None
