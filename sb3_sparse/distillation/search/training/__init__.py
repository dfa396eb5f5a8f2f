"""The trainings of a search: what is planned, what there is time for, and who goes on."""

from sb3_sparse.distillation.search.training.halving import Halving
from sb3_sparse.distillation.search.training.plan import UNIT, Rung, is_cut, make_rungs

__all__ = ["UNIT", "Halving", "Rung", "is_cut", "make_rungs"]
