"""Sparse policies of the off-policy algorithms."""

import stable_baselines3.dqn.policies as dqn
import stable_baselines3.sac.policies as sac
import stable_baselines3.td3.policies as td3
from sb3_contrib.crossq.policies import CrossQPolicy
from sb3_contrib.qrdqn import policies as qrdqn
from sb3_contrib.tqc import policies as tqc

from sb3_sparse.policies.mixin import SparsePolicyMixin


class SparseSACPolicy(SparsePolicyMixin, sac.SACPolicy):
    """``SACPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparseSACCnnPolicy(SparsePolicyMixin, sac.CnnPolicy):
    """SAC's ``CnnPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparseSACMultiInputPolicy(SparsePolicyMixin, sac.MultiInputPolicy):
    """SAC's ``MultiInputPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparseTD3Policy(SparsePolicyMixin, td3.TD3Policy):
    """``TD3Policy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparseTD3CnnPolicy(SparsePolicyMixin, td3.CnnPolicy):
    """TD3's ``CnnPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparseTD3MultiInputPolicy(SparsePolicyMixin, td3.MultiInputPolicy):
    """TD3's ``MultiInputPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


# As in SB3, DDPG is a TD3 with other settings.
SparseDDPGPolicy = SparseTD3Policy
SparseDDPGCnnPolicy = SparseTD3CnnPolicy
SparseDDPGMultiInputPolicy = SparseTD3MultiInputPolicy


class SparseDQNPolicy(SparsePolicyMixin, dqn.DQNPolicy):
    """``DQNPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparseDQNCnnPolicy(SparsePolicyMixin, dqn.CnnPolicy):
    """DQN's ``CnnPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparseDQNMultiInputPolicy(SparsePolicyMixin, dqn.MultiInputPolicy):
    """DQN's ``MultiInputPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparseTQCPolicy(SparsePolicyMixin, tqc.TQCPolicy):
    """``TQCPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparseTQCCnnPolicy(SparsePolicyMixin, tqc.CnnPolicy):
    """TQC's ``CnnPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparseTQCMultiInputPolicy(SparsePolicyMixin, tqc.MultiInputPolicy):
    """TQC's ``MultiInputPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparseQRDQNPolicy(SparsePolicyMixin, qrdqn.QRDQNPolicy):
    """``QRDQNPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparseQRDQNCnnPolicy(SparsePolicyMixin, qrdqn.CnnPolicy):
    """QR-DQN's ``CnnPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparseQRDQNMultiInputPolicy(SparsePolicyMixin, qrdqn.MultiInputPolicy):
    """QR-DQN's ``MultiInputPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparseCrossQPolicy(SparsePolicyMixin, CrossQPolicy):
    """``CrossQPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""
