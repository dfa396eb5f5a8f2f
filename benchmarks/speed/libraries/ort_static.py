"""
ONNX Runtime, with models as they are, and with a network of images as it runs it fastest: in 8 bits throughout.

``to_onnx(form="qdq")`` keeps activations in floats, so ONNX Runtime multiplies in floats. Here its own tools calibrate
unsigned 8-bit activations, one range per tensor, on observations, and int8 weights with a scale per channel; then every
convolution is an integer kernel (VNNI where the processor has it). They would still turn the pixels to floats and back: that
is taken out, for an image of bytes has the scale 1 already.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def make_onnx(path: Path) -> Callable[..., tuple[NDArray[Any], None]]:
    """
    :param path: An ONNX model.
    :return: What runs it, in one thread
    :raises ImportError: if ONNX Runtime is not installed
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    dtype = np.uint8 if session.get_inputs()[0].type == "tensor(uint8)" else np.float32

    def predict(observation: NDArray[Any], deterministic: bool = True) -> tuple[NDArray[Any], None]:
        return session.run(None, {"observation": observation[None].astype(dtype, copy=False)})[0][0], None

    return predict


def quantize_onnx(source: Path, target: Path, observations: NDArray[Any]) -> None:
    """
    :param source: A float model of ``to_onnx``, with images as input.
    :param target: Where to write the quantized one.
    :param observations: What to calibrate on, ``[n, *shape]``, uint8.
    :raises ImportError: if ONNX Runtime or its tools are not installed
    :raises ValueError: if the observations do not use the whole range
    """
    import onnx
    from onnx import numpy_helper
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Frames(CalibrationDataReader):  # type: ignore[misc]
        """One observation after the other."""

        def __init__(self) -> None:
            self.rest: Iterator[NDArray[Any]] = iter(observations)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            observation = next(self.rest, None)
            return None if observation is None else {"observation": observation[None]}

    # It advises a pass over the graph that a plain chain of layers does not need.
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            str(source),
            str(target),
            Frames(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
    finally:
        logging.disable(logging.NOTSET)
    model = onnx.load(str(target))
    graph = model.graph
    (cast,) = [node for node in graph.node if node.op_type == "Cast" and node.input[0] == "observation"]
    (rounding,) = [node for node in graph.node if cast.output[0] in node.input]
    (back,) = [node for node in graph.node if rounding.output[0] in node.input]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    if constants[back.input[1]] != 1 or constants[back.input[2]] != 0:
        raise ValueError("the observations must reach from 0 to 255, for else a step is no pixel value")
    back.input[0] = "observation"
    graph.node.remove(cast)
    graph.node.remove(rounding)
    target.write_bytes(model.SerializeToString())
