"""A trained agent to a smaller one: ``distill``."""

from sb3_sparse.distillation.recipe import distill

__all__ = ["distill"]
