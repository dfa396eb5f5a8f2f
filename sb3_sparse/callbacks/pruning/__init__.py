"""Pruning: weights are removed, at once or gradually, and never come back."""

from sb3_sparse.callbacks.pruning.callback import PruningCallback
from sb3_sparse.callbacks.pruning.gradual import GradualPruningCallback
from sb3_sparse.callbacks.pruning.one_shot import OneShotPruningCallback

__all__ = ["GradualPruningCallback", "OneShotPruningCallback", "PruningCallback"]
