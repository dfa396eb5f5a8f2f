"""Dynamic sparse training: SET and RigL, the target rule of DS-TD3, and the history of a topology."""

from sb3_sparse.callbacks.rewiring.callback import RewiringCallback
from sb3_sparse.callbacks.rewiring.topology import topology_history

__all__ = ["RewiringCallback", "topology_history"]
