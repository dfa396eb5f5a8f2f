"""A replay buffer that stores each frame of a stack of frames once."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_sparse.pixels.pool import FramePool
from sb3_sparse.pixels.stacks import FrameStacks, Newest

try:
    import psutil  # type: ignore[import-untyped]
except ImportError:  # as in SB3, which has it in its extra requirements only
    psutil = None


class FrameReplayBuffer(NStepReplayBuffer):
    """
    A ``ReplayBuffer``, or a ``NStepReplayBuffer``, for observations that are stacks of frames, such as those of
    ``VecFrameStack``. Its batches equal those of SB3's buffers to the last bit, whatever the images are. A million Atari
    transitions take 7.1 GB instead of 56.5 GB.

        env = VecFrameStack(make_atari_env("PongNoFrameskip-v4"), n_stack=4)
        DQN("CnnPolicy", env, buffer_size=1_000_000, replay_buffer_class=FrameReplayBuffer)
        DQN(..., replay_buffer_class=FrameReplayBuffer, replay_buffer_kwargs=dict(n_steps=3, gamma=0.99))

    SB3 passes ``n_steps`` to a custom buffer class only through ``replay_buffer_kwargs``, and warns of its own argument.

    A saved model names its buffer class: where this package is not installed,
    ``DQN.load(path, custom_objects={"replay_buffer_class": None})`` loads it, with SB3's buffer. ``save_replay_buffer``
    writes all frames, from memory or from a file. ``load_replay_buffer`` creates a new file in the same folder, and needs the
    memory of the frames for a moment.

    :param buffer_size: Max number of element in the buffer
    :param observation_space: Observation space: a Box ``[channels, ...]`` whose channels are frames, newest last; any other
        order takes more memory and gives the same batches. SB3 brings images into this form.
    :param action_space: Action space
    :param device: PyTorch device
    :param n_envs: Number of parallel environments
    :param optimize_memory_usage: Not supported, and not needed
    :param handle_timeout_termination: Handle timeout termination (due to timelimit)
        separately and treat the task as infinite horizon task.
    :param n_steps: Number of steps to accumulate rewards for n-step returns
    :param gamma: Discount factor for future rewards, used if n_steps > 1
    :param frame_channels: Channels of a frame: 1 for gray, 3 for color.
    :param memmap: Folder for a file with the frames, which has no name and is deleted with the buffer; None for memory. Keep
        room on the disk while the buffer is used: the system kills a process whose mapped file finds no room.
    :raises ValueError: if the observations are not stacks of frames, or with optimize_memory_usage
    :raises OSError: if the disk has no room for the file
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        n_steps: int = 1,
        gamma: float = 0.99,
        frame_channels: int = 1,
        memmap: str | Path | None = None,
    ) -> None:
        if optimize_memory_usage:
            raise ValueError("FrameReplayBuffer stores each frame once as it is: leave out optimize_memory_usage=True")
        if n_steps < 1:
            raise ValueError(f"n_steps must be at least 1, got {n_steps}")
        shape = _stack_shape(observation_space, frame_channels)
        # SB3 allocates all arrays; those of the observations have no elements, and are replaced below.
        without = spaces.Box(0, 255, (0,), np.uint8)
        timeouts = handle_timeout_termination
        super().__init__(buffer_size, without, action_space, device, n_envs, False, timeouts, n_steps=n_steps, gamma=gamma)
        self.observation_space = observation_space
        self.obs_shape = shape
        self.frame_shape = (frame_channels, *shape[1:])
        self.memmap = None if memmap is None else Path(memmap)
        self._make_stacks()
        if memmap is None:
            _warn_of_memory(self._pool.capacity * self._pool.frame_nbytes + self.nbytes)

    def _make_stacks(self) -> None:
        # A transition has one new frame, and an episode begins with one more: this is enough for episodes of 32 steps.
        transitions = self.buffer_size * self.n_envs
        capacity = transitions + transitions // 32 + 1
        newest = Newest.nothing(self.n_envs)
        self._pool = FramePool(self.frame_shape, np.dtype(self.observation_space.dtype), capacity, self.memmap)
        # SB3's code reads and writes these like arrays.
        self.observations, self.next_observations = (  # type: ignore[assignment]
            FrameStacks(self._pool, newest, self.buffer_size, self.n_envs, self.obs_shape) for _ in range(2)
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the stored frames, and of the arrays that are allocated from the beginning."""
        arrays = (self.observations, self.next_observations, self.actions, self.rewards, self.dones, self.timeouts)
        return self._pool.nbytes + sum(array.nbytes for array in arrays)

    def reset(self) -> None:
        """
        Reset the buffer, and drop all frames.
        """
        super().reset()
        self._make_stacks()

    def to_torch(self, array: np.ndarray, copy: bool = False) -> th.Tensor:
        """
        Convert a numpy array to a PyTorch tensor.

        :param array: The array.
        :param copy: Whether to copy it; sampled arrays are copies already.
        :return: The tensor
        """
        return super().to_torch(array, copy)

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> ReplayBufferSamples:
        # With a single step, the algorithm applies its own discount, as with ReplayBuffer.
        sampler = ReplayBuffer if self.n_steps == 1 else NStepReplayBuffer
        return sampler._get_samples(self, batch_inds, env)


def _stack_shape(space: spaces.Space[Any], frame_channels: int) -> tuple[int, ...]:
    """Shape of the observations, if they can be stacks of frames."""
    if not isinstance(space, spaces.Box) or not space.shape:
        raise ValueError(
            f"FrameReplayBuffer takes observations of a Box [channels, height, width], not of a {type(space).__name__} (and "
            "does not replace HerReplayBuffer): leave out replay_buffer_class, and SB3 chooses its own buffer"
        )
    if len(space.shape) == 3 and space.shape[2] < min(space.shape[:2]):
        raise ValueError(
            f"FrameReplayBuffer takes channels first, and observations of shape {space.shape} look like channels last: stack "
            'frames with VecFrameStack(env, n_stack, channels_order="first"), or use uint8 images from 0 to 255, which SB3 '
            "transposes"
        )
    if frame_channels < 1 or space.shape[0] % frame_channels != 0:
        raise ValueError(
            f"{space.shape[0]} channels are not a stack of frames with frame_channels={frame_channels} each: use a divisor"
        )
    return space.shape


def _warn_of_memory(needed: int) -> None:
    available = None if psutil is None else psutil.virtual_memory().available
    if available is not None and needed > available:
        warnings.warn(
            "This system does not have apparently enough memory to store the complete "
            f"replay buffer {needed / 1e9:.2f}GB > {available / 1e9:.2f}GB"
        )
