"""Callbacks: the only hands that change a mask or a quantizer while a model trains."""

from sb3_sparse.callbacks.base import SparsityCallback
from sb3_sparse.callbacks.channels_last import ChannelsLastCallback
from sb3_sparse.callbacks.clock import ClockedCallback
from sb3_sparse.callbacks.multi_step import DelayedMultiStepCallback
from sb3_sparse.callbacks.pruning import GradualPruningCallback, OneShotPruningCallback
from sb3_sparse.callbacks.pruning_base import PruningCallback
from sb3_sparse.callbacks.quantization import QATCallback
from sb3_sparse.callbacks.restore import restore
from sb3_sparse.callbacks.resumable import ResumableCallback
from sb3_sparse.callbacks.rewiring import RewiringCallback
from sb3_sparse.callbacks.state import saved_bits
from sb3_sparse.callbacks.topology import topology_history

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
