"""Export a trained model: a short graph of layers, lossless passes, rounding, and the files."""

from sb3_sparse.export.policy import CompressedPolicy, compress

__all__ = ["CompressedPolicy", "compress"]
