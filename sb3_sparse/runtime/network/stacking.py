"""Observations of a network that stacks frames, as SB3's ``VecFrameStack`` makes them of one frame after the other."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import Network


def push(network: Network, stacks: NDArray[Any], frames: NDArray[Any]) -> NDArray[Any]:
    """
    :param network: A network with a stack.
    :param stacks: The last stacks, ``[n, *shape]``, zeros where an episode begins.
    :param frames: The next observations, ``[n, *frame_shape]``.
    :return: The stacks without their oldest frame and with the new one, in memory of their own
    """
    size = network.frame_shape[0 if network.image else -1]
    kept = stacks[:, size:] if network.image else stacks[..., size:]
    return np.ascontiguousarray(np.concatenate([kept, _normalized(network, frames)], axis=stack_axis(network)))


def unroll(
    network: Network, frames: NDArray[Any], starts: NDArray[np.bool_] | None, chosen: NDArray[np.int64]
) -> NDArray[Any]:
    """
    :param network: A network with a stack.
    :param frames: Observations in the order of time, ``[n, *frame_shape]``; the first of them begins an episode.
    :param starts: Which of them begin an episode, ``[n]``; by default only the first.
    :param chosen: Indices of some of them, ``[m]``.
    :return: The stacks that end in these, ``[m, *shape]``
    """
    assert network.stack is not None
    begins = np.zeros(len(frames), np.int64)
    if starts is not None:
        begins = np.maximum.accumulate(np.where(starts, np.arange(len(frames)), 0))
    parts = []
    for age in reversed(range(network.stack.frames)):
        index = chosen - age
        part = _normalized(network, frames[np.maximum(index, 0)])
        exists = (index >= begins[chosen]).reshape(-1, *[1] * (part.ndim - 1))
        parts.append(np.where(exists, part, np.zeros((), part.dtype)))
    return np.concatenate(parts, axis=stack_axis(network))


def stack_axis(network: Network) -> int:
    """
    :param network: A network with a stack.
    :return: The axis of a batch ``[n, *shape]`` along which frames lie
    """
    return 1 if network.image else -1


def _normalized(network: Network, frames: NDArray[Any]) -> NDArray[Any]:
    assert network.stack is not None
    return frames if network.stack.normalize is None else network.stack.normalize(frames)
