"""Sparse and 8-bit policies for Stable-Baselines3."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sb3_sparse.version import __version__

if TYPE_CHECKING:
    from sb3_sparse.callbacks import (
        ChannelsLastCallback,
        DelayedMultiStepCallback,
        GradualPruningCallback,
        OneShotPruningCallback,
        QATCallback,
        RewiringCallback,
        topology_history,
    )
    from sb3_sparse.cost import summarize
    from sb3_sparse.distillation import distill
    from sb3_sparse.distillation.search import fit
    from sb3_sparse.engine import EngineCallback
    from sb3_sparse.export import CompressedPolicy, compress
    from sb3_sparse.state import restore

__all__ = [
    "ChannelsLastCallback",
    "CompressedPolicy",
    "DelayedMultiStepCallback",
    "EngineCallback",
    "GradualPruningCallback",
    "OneShotPruningCallback",
    "QATCallback",
    "RewiringCallback",
    "__version__",
    "compress",
    "distill",
    "fit",
    "restore",
    "summarize",
    "topology_history",
]

#: Where a name comes from. They are imported when asked for: sb3_sparse.runtime runs where there is no torch.
_HOMES = {
    "ChannelsLastCallback": "callbacks",
    "CompressedPolicy": "export",
    "DelayedMultiStepCallback": "callbacks",
    "EngineCallback": "engine",
    "GradualPruningCallback": "callbacks",
    "OneShotPruningCallback": "callbacks",
    "QATCallback": "callbacks",
    "RewiringCallback": "callbacks",
    "compress": "export",
    "distill": "distillation",
    "fit": "distillation.search",
    "restore": "state",
    "summarize": "cost",
    "topology_history": "callbacks",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sb3_sparse' has no attribute '{name}'")
    return getattr(import_module(f"sb3_sparse.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
