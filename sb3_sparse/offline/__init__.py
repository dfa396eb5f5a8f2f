"""Offline reinforcement learning on Minari data: BCQ and behaviour cloning as SB3 algorithms whose clock counts updates."""

from sb3_sparse.offline.algorithm import OfflineAlgorithm
from sb3_sparse.offline.bc import BC, MLPPolicy, VAEPolicy
from sb3_sparse.offline.bcq import BCQ, BCQPolicy
from sb3_sparse.offline.data import OfflineBatch, OfflineDataset
from sb3_sparse.offline.discrete import DiscreteBC, DiscreteBCPolicy, DiscreteBCQ, DiscreteBCQPolicy
from sb3_sparse.offline.policy import OfflinePolicy

#: The algorithms by their name in rl-zoo3.
ALGORITHMS: dict[str, type[OfflineAlgorithm]] = {"bc": BC, "bcq": BCQ, "discrete_bc": DiscreteBC, "discrete_bcq": DiscreteBCQ}

__all__ = [
    "ALGORITHMS",
    "BC",
    "BCQ",
    "BCQPolicy",
    "DiscreteBC",
    "DiscreteBCPolicy",
    "DiscreteBCQ",
    "DiscreteBCQPolicy",
    "MLPPolicy",
    "OfflineAlgorithm",
    "OfflineBatch",
    "OfflineDataset",
    "OfflinePolicy",
    "VAEPolicy",
]
