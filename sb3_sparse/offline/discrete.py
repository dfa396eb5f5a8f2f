"""The former home of the discrete algorithms: zips that were saved then look for their policies here."""

from sb3_sparse.offline.discrete_bc import DiscreteBC, DiscreteBCPolicy
from sb3_sparse.offline.discrete_bcq import DiscreteBCQ, DiscreteBCQPolicy

__all__ = ["DiscreteBC", "DiscreteBCPolicy", "DiscreteBCQ", "DiscreteBCQPolicy"]
