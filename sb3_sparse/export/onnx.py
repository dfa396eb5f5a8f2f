"""ONNX: being written."""

from sb3_sparse.runtime.records import Network


def to_onnx(network: Network, *, form: str = "float") -> bytes:
    raise NotImplementedError
