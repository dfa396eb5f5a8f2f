"""Tools for images: a replay buffer that stores each frame once, MinAtar's games, and a test for Atari's games."""

from sb3_sparse.pixels.replay import FrameReplayBuffer

__all__ = ["FrameReplayBuffer"]
