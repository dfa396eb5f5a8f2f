"""Run exported policies. Imports numpy alone: neither torch nor Stable-Baselines3."""

from sb3_sparse.runtime.policy import BACKENDS, Policy, load

__all__ = ["BACKENDS", "Policy", "load"]
