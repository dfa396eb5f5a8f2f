"""Recorded transitions: from Minari, replay buffers or arrays to one array of observations and an index into it."""

from sb3_sparse.offline.data.dataset import OfflineBatch, OfflineDataset

__all__ = ["OfflineBatch", "OfflineDataset"]
