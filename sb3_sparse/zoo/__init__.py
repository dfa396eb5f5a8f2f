"""
Recipes for rl-zoo3 by name, and rl-zoo3's commands with the offline algorithms registered.

A recipe is an rl-zoo3 hyperparameter file ``<algo>_<name>.yml``, so ``python -m rl_zoo3.train -conf
hyperparams/sac_gmp.yml`` runs it unmodified. Only the offline algorithms are unknown there, until :func:`register`.
"""

from sb3_sparse.zoo.commands import check_registered, enjoy, register, train, train_arguments
from sb3_sparse.zoo.overrides import with_sparsity
from sb3_sparse.zoo.recipes import RECIPES, check_dataset, check_environment, find_recipe, read_recipe

__all__ = [
    "RECIPES",
    "check_dataset",
    "check_environment",
    "check_registered",
    "enjoy",
    "find_recipe",
    "read_recipe",
    "register",
    "train",
    "train_arguments",
    "with_sparsity",
]
