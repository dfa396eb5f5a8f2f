"""Sparse policies for Stable-Baselines3: one callback makes them small, and says so with honest figures."""

from importlib.metadata import PackageNotFoundError, version

from sb3_sparse.callbacks import GradualPruningCallback, OneShotPruningCallback
from sb3_sparse.cost import summarize

try:
    __version__ = version("sb3_sparse")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"

__all__ = ["GradualPruningCallback", "OneShotPruningCallback", "__version__", "summarize"]
