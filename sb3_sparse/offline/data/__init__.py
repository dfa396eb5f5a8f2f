"""Recorded transitions from Minari, replay buffers or arrays, and the minibatches that a model trains on."""

from sb3_sparse.offline.data.dataset import OfflineBatch, OfflineDataset

__all__ = ["OfflineBatch", "OfflineDataset"]
