"""What images need: a replay buffer that stores each frame once, MinAtar's games, and which environments are Atari's."""

from sb3_sparse.pixels.replay import FrameReplayBuffer

__all__ = ["FrameReplayBuffer"]
