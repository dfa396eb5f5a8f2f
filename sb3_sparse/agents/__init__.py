"""
Any trained agent of SB3, sb3-contrib or :mod:`sb3_sparse.offline`: loaded from its files, played in its environment, and
compared with its exported policy.
"""

from sb3_sparse.agents.compression.compare import compress_agent
from sb3_sparse.agents.compression.latency import Latency, measure_latency
from sb3_sparse.agents.environment import make_environment
from sb3_sparse.agents.load import ALGORITHMS, load_agent
from sb3_sparse.agents.normalization import load_normalization
from sb3_sparse.agents.opening import Agent, open_agent
from sb3_sparse.agents.player import Act, Player, model_act
from sb3_sparse.agents.progress import Progress
from sb3_sparse.agents.returns import Returns, compare_returns, play, play_observations, play_returns, play_starts

__all__ = [
    "ALGORITHMS",
    "Act",
    "Agent",
    "Latency",
    "Player",
    "Progress",
    "Returns",
    "compare_returns",
    "compress_agent",
    "load_agent",
    "load_normalization",
    "make_environment",
    "measure_latency",
    "model_act",
    "open_agent",
    "play",
    "play_observations",
    "play_returns",
    "play_starts",
]
