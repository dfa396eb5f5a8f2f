"""``fit``: the smallest policy that still plays, among widths, sparsities and bits."""

from sb3_sparse.distillation.search.fit import fit
from sb3_sparse.distillation.search.front import Front, Point, Unmet

__all__ = ["Front", "Point", "Unmet", "fit"]
