"""Callbacks: the only code that changes a mask or a quantizer while a model trains."""

from sb3_sparse.callbacks.base import LayerCallback
from sb3_sparse.callbacks.channels_last import ChannelsLastCallback
from sb3_sparse.callbacks.multi_step import DelayedMultiStepCallback
from sb3_sparse.callbacks.pruning import GradualPruningCallback, OneShotPruningCallback, PruningCallback
from sb3_sparse.callbacks.quantization import QATCallback
from sb3_sparse.callbacks.rewiring import RewiringCallback, topology_history
from sb3_sparse.state import restore, saved_bits

__all__ = [
    "ChannelsLastCallback",
    "DelayedMultiStepCallback",
    "GradualPruningCallback",
    "LayerCallback",
    "OneShotPruningCallback",
    "PruningCallback",
    "QATCallback",
    "RewiringCallback",
    "restore",
    "saved_bits",
    "topology_history",
]
