"""The updates of the offline algorithms."""

from sb3_sparse.engine.updates.base import Update
from sb3_sparse.engine.updates.offline.bc import BCUpdate
from sb3_sparse.engine.updates.offline.bcq import BCQUpdate
from sb3_sparse.engine.updates.offline.discrete_bc import DiscreteBCUpdate
from sb3_sparse.engine.updates.offline.discrete_bcq import DiscreteBCQUpdate

#: All of them.
OFFLINE: tuple[type[Update], ...] = (BCUpdate, BCQUpdate, DiscreteBCUpdate, DiscreteBCQUpdate)

__all__ = ["OFFLINE"]
