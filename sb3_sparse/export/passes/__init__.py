"""Passes from a traced graph to a small network: fold, shrink, center, round, shrink again, order, and round the biases."""

from sb3_sparse.export.passes.capabilities import PASSES
from sb3_sparse.export.passes.center import center
from sb3_sparse.export.passes.features import shrink_features
from sb3_sparse.export.passes.fold import fold
from sb3_sparse.export.passes.order import order
from sb3_sparse.export.passes.quantize import round_weights
from sb3_sparse.export.passes.shrink import shrink
from sb3_sparse.export.passes.storage import round_biases, to_minifloats

__all__ = ["PASSES", "center", "fold", "order", "round_biases", "round_weights", "shrink", "shrink_features", "to_minifloats"]
