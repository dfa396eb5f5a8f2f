"""The networks of the offline policies. Each has its own features extractor, its own loss and its own optimizer."""

from sb3_sparse.offline.networks.base import Network
from sb3_sparse.offline.networks.mlp import Head, TwinCritic
from sb3_sparse.offline.networks.vae import VAE

__all__ = ["VAE", "Head", "Network", "TwinCritic"]
