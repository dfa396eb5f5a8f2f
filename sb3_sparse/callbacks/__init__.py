"""Callbacks: the only hands that change a mask while a model trains."""

from sb3_sparse.callbacks.base import SparsityCallback
from sb3_sparse.callbacks.pruning import GradualPruningCallback, OneShotPruningCallback
from sb3_sparse.callbacks.pruning_base import PruningCallback

__all__ = ["GradualPruningCallback", "OneShotPruningCallback", "PruningCallback", "SparsityCallback"]
