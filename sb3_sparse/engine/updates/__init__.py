"""One file per algorithm; this table is all that the rest of the engine knows of them."""

from sb3_sparse.engine.updates.a2c import A2CUpdate
from sb3_sparse.engine.updates.base import Update
from sb3_sparse.engine.updates.dqn import DQNUpdate
from sb3_sparse.engine.updates.offline import OFFLINE
from sb3_sparse.engine.updates.ppo import PPOUpdate
from sb3_sparse.engine.updates.qrdqn import QRDQNUpdate
from sb3_sparse.engine.updates.sac import SACUpdate
from sb3_sparse.engine.updates.td3 import TD3Update
from sb3_sparse.engine.updates.tqc import TQCUpdate

_ALL: tuple[type[Update], ...] = (SACUpdate, TD3Update, TQCUpdate, DQNUpdate, QRDQNUpdate, PPOUpdate, A2CUpdate, *OFFLINE)

#: By the algorithm's class, which has to be exactly this one: a subclass may train in another way.
UPDATES: dict[type, type[Update]] = {algorithm: update for update in _ALL for algorithm in update.algorithms}

__all__ = ["UPDATES", "Update"]
