"""Training on the weights that exist: SB3's algorithms, many times faster on one core."""

from sb3_sparse.engine.callback import EngineCallback

__all__ = ["EngineCallback"]
