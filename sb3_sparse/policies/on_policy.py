"""Sparse policies of the on-policy algorithms."""

from sb3_contrib.common.maskable import policies as maskable
from sb3_contrib.common.recurrent import policies as recurrent
from stable_baselines3.common import policies as actor_critic

from sb3_sparse.policies.mixin import SparsePolicyMixin


class SparsePPOPolicy(SparsePolicyMixin, actor_critic.ActorCriticPolicy):
    """``ActorCriticPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparsePPOCnnPolicy(SparsePolicyMixin, actor_critic.ActorCriticCnnPolicy):
    """``ActorCriticCnnPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparsePPOMultiInputPolicy(SparsePolicyMixin, actor_critic.MultiInputActorCriticPolicy):
    """``MultiInputActorCriticPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


# As in SB3 and contrib, A2C and TRPO have PPO's policies.
SparseA2CPolicy = SparseTRPOPolicy = SparsePPOPolicy
SparseA2CCnnPolicy = SparseTRPOCnnPolicy = SparsePPOCnnPolicy
SparseA2CMultiInputPolicy = SparseTRPOMultiInputPolicy = SparsePPOMultiInputPolicy


class SparseMaskablePPOPolicy(SparsePolicyMixin, maskable.MaskableActorCriticPolicy):
    """``MaskableActorCriticPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparseMaskablePPOCnnPolicy(SparsePolicyMixin, maskable.MaskableActorCriticCnnPolicy):
    """``MaskableActorCriticCnnPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparseMaskablePPOMultiInputPolicy(SparsePolicyMixin, maskable.MaskableMultiInputActorCriticPolicy):
    """``MaskableMultiInputActorCriticPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparseRecurrentPPOPolicy(SparsePolicyMixin, recurrent.RecurrentActorCriticPolicy):
    """``RecurrentActorCriticPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparseRecurrentPPOCnnPolicy(SparsePolicyMixin, recurrent.RecurrentActorCriticCnnPolicy):
    """``RecurrentActorCriticCnnPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""


class SparseRecurrentPPOMultiInputPolicy(SparsePolicyMixin, recurrent.RecurrentMultiInputActorCriticPolicy):
    """``RecurrentMultiInputActorCriticPolicy`` with masked layers; takes the arguments of :class:`SparsePolicyMixin` too."""
