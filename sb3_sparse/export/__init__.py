"""Export a trained model: trace it, make it smaller, and write it as a compact file, a C header or an ONNX graph."""

from sb3_sparse.export.pipeline import Compressed, Original, check_bits, compress_network, read_model
from sb3_sparse.export.policy import CompressedPolicy, compress

__all__ = ["Compressed", "CompressedPolicy", "Original", "check_bits", "compress", "compress_network", "read_model"]
