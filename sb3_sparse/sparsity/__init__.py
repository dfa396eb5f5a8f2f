"""
The mathematics of sparsity: pure functions on ``dict[str, Tensor]``, without SB3, input, output or state.

A pruning method is a choice on four axes, each a family of functions with one signature and a table of names: when
(:mod:`schedules`), which weights (:mod:`saliency`), how many per layer (:mod:`distributions`), and the mask that follows
from these (:mod:`masks`). Adding a member touches its family's file alone.
"""

from sb3_sparse.sparsity.choice import ChosenDistribution, check_choice, find_distribution, find_lambdas
from sb3_sparse.sparsity.distributions import DISTRIBUTIONS, check_sparsity, erdos_renyi, erk, global_, uniform
from sb3_sparse.sparsity.masks import prune, prune_to, rewire
from sb3_sparse.sparsity.parts import by_parts
from sb3_sparse.sparsity.saliency import (
    MOMENTS,
    SALIENCIES,
    SAMPLES,
    default_samples,
    fisher,
    grasp,
    magnitude,
    magnitude_by_sign,
    random,
    snip,
)
from sb3_sparse.sparsity.schedules import SCHEDULES, Constant, Cosine, Cubic, Linear, check_schedule
from sb3_sparse.sparsity.types import Distribution, Loss, Named, Saliency, Schedule

__all__ = [
    "DISTRIBUTIONS",
    "MOMENTS",
    "SALIENCIES",
    "SAMPLES",
    "SCHEDULES",
    "ChosenDistribution",
    "Constant",
    "Cosine",
    "Cubic",
    "Distribution",
    "Linear",
    "Loss",
    "Named",
    "Saliency",
    "Schedule",
    "by_parts",
    "check_choice",
    "check_schedule",
    "check_sparsity",
    "default_samples",
    "erdos_renyi",
    "erk",
    "find_distribution",
    "find_lambdas",
    "fisher",
    "global_",
    "grasp",
    "magnitude",
    "magnitude_by_sign",
    "prune",
    "prune_to",
    "random",
    "rewire",
    "snip",
    "uniform",
]
