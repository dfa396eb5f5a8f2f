"""
What a recurrent policy remembers, as SB3 hands it around: a tuple (h, c) of arrays ``[LSTM layers, n, units]``.

The networks take one row for each of the n environments instead, see :attr:`Network.state_shape`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import Floats, Network

#: The state that ``predict`` takes and returns.
State = tuple[NDArray[Any], ...]


def read_state(network: Network, count: int, state: State | None, episode_start: Any | None) -> Floats:
    """
    :param network: A network that remembers.
    :param count: Number of observations.
    :param state: The argument of ``predict``: what the last call returned, or None for zeros.
    :param episode_start: The argument of ``predict``: for each observation whether it begins an episode, where nothing is
        remembered; None if none does.
    :return: The rows of the network, ``[count, *state_shape]``, in memory of their own
    :raises ValueError: if they do not fit the network or the observations
    """
    _, layers, units = network.state_shape
    rows = np.zeros((count, 2, layers, units), np.float32)
    if state is not None:
        shapes = tuple(np.shape(part) for part in state) if isinstance(state, tuple | list) else np.shape(state)
        if shapes != 2 * ((layers, count, units),):
            raise ValueError(
                f"a state of shape {shapes} does not fit {count} observations of this policy: pass on the state that the last "
                f"predict() has returned, two arrays of shape {(layers, count, units)}, or None at the beginning"
            )
        for part, values in enumerate(state):
            rows[:, part] = np.moveaxis(np.asarray(values), 1, 0)
    if episode_start is not None:
        starts = np.asarray(episode_start)
        if starts.size != count or starts.dtype.kind not in "fiub":
            raise ValueError(
                f"episode_start of shape {starts.shape} and type {starts.dtype} does not fit {count} observations"
            )
        rows[starts.reshape(-1) != 0] = 0
    return rows


def write_state(rows: Floats) -> State:
    """
    :param rows: What the network remembers now, ``[n, *state_shape]``.
    :return: The state for ``predict`` to return
    """
    hidden, cell = np.ascontiguousarray(rows.transpose(1, 2, 0, 3))
    return hidden, cell
