"""Callbacks: the only hands that change a mask or a quantizer while a model trains."""

from sb3_sparse.callbacks.base import SparsityCallback
from sb3_sparse.callbacks.channels_last import ChannelsLastCallback
from sb3_sparse.callbacks.clock import ClockedCallback
from sb3_sparse.callbacks.multi_step import DelayedMultiStepCallback
from sb3_sparse.callbacks.pruning import GradualPruningCallback, OneShotPruningCallback
from sb3_sparse.callbacks.pruning_base import PruningCallback
from sb3_sparse.callbacks.quantization import QATCallback
from sb3_sparse.callbacks.resumable import ResumableCallback
from sb3_sparse.callbacks.rewiring import RewiringCallback, topology_history
from sb3_sparse.state import restore, saved_bits

__all__ = [
    "ChannelsLastCallback",
    "ClockedCallback",
    "DelayedMultiStepCallback",
    "GradualPruningCallback",
    "OneShotPruningCallback",
    "PruningCallback",
    "QATCallback",
    "ResumableCallback",
    "RewiringCallback",
    "SparsityCallback",
    "restore",
    "saved_bits",
    "topology_history",
]
