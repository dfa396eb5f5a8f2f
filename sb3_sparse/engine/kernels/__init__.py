"""
The training engine's kernels: programs over panels of samples, run by C++ that is compiled on first use.

``c/interface.h`` says what the structs hold, :mod:`~sb3_sparse.engine.kernels.structs` what each instruction computes.
"""
