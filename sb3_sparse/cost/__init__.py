"""The cost of a policy: connections, neurons, bytes, and the FLOPs of a decision and of a training run."""

from sb3_sparse.cost.algorithms import Training, read_training
from sb3_sparse.cost.counting import summarize, summarize_parameters
from sb3_sparse.cost.counts import Counts, LayerSummary, NetworkSummary
from sb3_sparse.cost.summary import Summary
from sb3_sparse.sparsity import Schedule

__all__ = [
    "Counts",
    "LayerSummary",
    "NetworkSummary",
    "Schedule",
    "Summary",
    "Training",
    "read_training",
    "summarize",
    "summarize_parameters",
]
