"""
What a policy remembers, as SB3 hands the state of a recurrent policy around: a tuple of arrays.

    h, c      of a network with LSTM layers, ``[LSTM layers, n, units]`` each
    stacks    of one that stacks frames, ``[n, *shape]``: its last observations, see :class:`Stack`

A network with both has the three of them, in this order. LSTM layers take one row for each of the n environments in place of
the first two, see :attr:`Network.state_shape`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import Floats, Network

#: The state that ``predict`` takes and returns.
State = tuple[NDArray[Any], ...]


def read_state(
    network: Network, count: int, state: State | None, episode_start: Any | None
) -> tuple[Floats, NDArray[Any] | None]:
    """
    :param network: A network that remembers.
    :param count: Number of observations.
    :param state: The argument of ``predict``: what the last call returned, or None for zeros.
    :param episode_start: The argument of ``predict``: for each observation whether it begins an episode, where nothing is
        remembered; None if none does.
    :return: The rows of its LSTM layers, ``[count, *state_shape]``, and the stacks, ``[count, *shape]``, or None without; in
        memory of their own
    :raises ValueError: if they do not fit the network or the observations
    """
    _, layers, units = network.state_shape
    rows = np.zeros((count, 2, layers, units), np.float32)
    stacks: NDArray[Any] | None = None if network.stack is None else np.zeros((count, *network.shape), np.uint8)
    if state is not None:
        _check_shapes(network, count, state)
        for part, values in enumerate(state[: 2 * bool(layers)]):
            rows[:, part] = np.moveaxis(np.asarray(values), 1, 0)
        if stacks is not None:
            last = np.asarray(state[-1])
            stacks = last.astype(np.uint8 if last.dtype == np.uint8 else np.float32)
    if episode_start is not None:
        starts = np.asarray(episode_start)
        if starts.size != count or starts.dtype.kind not in "fiub":
            raise ValueError(
                f"episode_start of shape {starts.shape} and type {starts.dtype} does not fit {count} observations"
            )
        begins = starts.reshape(-1) != 0
        rows[begins] = 0
        if stacks is not None:
            stacks[begins] = 0
    return rows, stacks


def _check_shapes(network: Network, count: int, state: Any) -> None:
    _, layers, units = network.state_shape
    expected = [(layers, count, units)] * 2 * bool(layers) + [(count, *network.shape)] * (network.stack is not None)
    shapes = tuple(np.shape(part) for part in state) if isinstance(state, tuple | list) else np.shape(state)
    if shapes != tuple(expected):
        raise ValueError(
            f"a state of shape {shapes} does not fit {count} observations of this policy: pass on the state that the last "
            f"predict() has returned, arrays of shape {' and '.join(map(str, expected))}, or None at the beginning"
        )


def write_state(rows: Floats, stacks: NDArray[Any] | None = None) -> State:
    """
    :param rows: What the LSTM layers remember now, ``[n, *state_shape]``.
    :param stacks: The stacks of frames; None without.
    :return: The state for ``predict`` to return
    """
    pair = tuple(np.ascontiguousarray(rows.transpose(1, 2, 0, 3))) if rows.shape[2] else ()
    return pair if stacks is None else (*pair, stacks)
