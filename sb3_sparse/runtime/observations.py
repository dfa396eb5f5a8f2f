"""Read the argument of ``predict``: an array or a list, one observation or a batch, images with channels first or last."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import Network

#: Kinds of arrays that can be observations: floats, integers with and without sign, booleans.
_NUMBERS = "fiub"


def read_observation(observation: Any, network: Network) -> tuple[NDArray[Any], bool]:
    """
    :param observation: The argument of ``predict``.
    :param network: The network that will compute it.
    :return: One observation, an array of the network's shape, and False; or a contiguous batch, ``[n, *shape]`` in float32 or
        uint8, and True
    :raises ValueError: if it is not an array of numbers, or has another shape
    """
    shape = network.shape
    if type(observation) is np.ndarray and observation.shape == shape and observation.dtype.kind in _NUMBERS:
        return observation, False
    array = _as_array(observation, network)
    for candidate in (array, np.moveaxis(array, -1, -3)) if network.image and array.ndim >= 3 else (array,):
        if candidate.shape == shape:
            return np.ascontiguousarray(candidate), False
        if candidate.shape[1:] == shape:
            # Images stay bytes: the kernels take them as they are.
            kind = np.uint8 if candidate.dtype == np.uint8 else np.float32
            return np.ascontiguousarray(candidate, kind), True
    raise ValueError(
        f"an observation of shape {array.shape} does not fit this policy: it needs {shape}, or {('n', *shape)} for a batch"
    )


def _as_array(observation: Any, network: Network) -> NDArray[Any]:
    if isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict):
        raise ValueError("predict() was given a tuple: `obs, info = env.reset()` returns two things, pass the first alone")
    try:
        array = np.asarray(observation)
        if array.dtype.kind not in _NUMBERS:
            raise ValueError(f"an array of {array.dtype}")
    except ValueError as error:
        raise ValueError(f"an observation must be an array of numbers of shape {network.shape}: {error}") from error
    return array
