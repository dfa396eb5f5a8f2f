"""One file per algorithm; this table is all that the rest of the engine knows of them."""

from sb3_sparse.engine.updates.base import Update
from sb3_sparse.engine.updates.sac import SACUpdate

#: By the algorithm's class, which has to be exactly this one: a subclass may train in another way.
UPDATES: dict[type, type[Update]] = {algorithm: update for update in (SACUpdate,) for algorithm in update.algorithms}

__all__ = ["UPDATES", "Update"]
