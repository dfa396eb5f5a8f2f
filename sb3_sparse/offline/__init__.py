"""
Offline reinforcement learning on recorded data: SB3 algorithms whose clock counts gradient updates.

``ALGORITHMS`` lists them by the names that rl-zoo3 and ``--algo`` use. A new algorithm takes one file and one row there.
"""

from sb3_sparse.offline.algorithm import OfflineAlgorithm
from sb3_sparse.offline.bc import BC, MLPPolicy, VAEPolicy
from sb3_sparse.offline.bcq import BCQ, BCQPolicy
from sb3_sparse.offline.data import OfflineBatch, OfflineDataset
from sb3_sparse.offline.discrete_bc import DiscreteBC, DiscreteBCPolicy
from sb3_sparse.offline.discrete_bcq import DiscreteBCQ, DiscreteBCQPolicy
from sb3_sparse.offline.loop import UpdateLoop
from sb3_sparse.offline.policy import OfflinePolicy

#: The offline algorithms by name.
ALGORITHMS: dict[str, type[OfflineAlgorithm]] = {
    "bc": BC,
    "bcq": BCQ,
    "discrete_bc": DiscreteBC,
    "discrete_bcq": DiscreteBCQ,
}

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
    "UpdateLoop",
    "VAEPolicy",
]
