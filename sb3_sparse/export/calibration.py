"""Calibration observations as the passes take them: channels first, frames stacked, finite, and not too many."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import Floats, Network
from sb3_sparse.runtime.network.stacking import unroll
from sb3_sparse.runtime.observations import read_parts

#: Most observations that calibration looks at, evenly spread, or the first ones if the network remembers; fewer of images,
#: whose convolutions unfold.
_OBSERVATIONS, _IMAGES = 4096, 256
#: Most numbers in them: 128 MiB as floats.
_NUMBERS = 1 << 25


def calibration_inputs(network: Network, calibration: Any, starts: NDArray[np.bool_] | None = None) -> dict[str, NDArray[Any]]:
    """
    :param network: A network.
    :param calibration: Observations as the environment gives them, ``[n, ...]``, or a dict of them; images may have their
        channels last.
    :param starts: What :func:`calibration_starts` returns for them.
    :return: Some or all of them by the key of their part, ``[m, *shape]`` in float32, stacked if the network stacks frames; ""
        for a network without parts
    :raises ValueError: if they have the wrong shape or type, or are not finite
    """
    most = _IMAGES if any(layer.convolution for layer in network.every_layer) else _OBSERVATIONS
    if not network.parts:
        arrays = {"": _read(network, calibration)}
    else:
        arrays, batch = read_parts(calibration, network.parts)
        if not batch or not len(next(iter(arrays.values()))):
            raise ValueError("calibration must be several observations, one array [n, ...] for each key")
    numbers = sum(prod(array.shape[1:]) for array in arrays.values()) if network.stack is None else prod(network.shape)
    most = min(most, max(1, _NUMBERS // numbers))
    chosen = {key: _choose(len(array), most, first=bool(network.lstms)) for key, array in arrays.items()}
    if network.stack is not None:
        return {key: _finite(unroll(network, array, starts, chosen[key])) for key, array in arrays.items()}
    return {key: _finite(array[chosen[key]]) for key, array in arrays.items()}


def calibration_starts(network: Network, calibration: Any, starts: Any) -> NDArray[np.bool_] | None:
    """
    :param network: A network.
    :param calibration: Observations that :func:`calibration_inputs` has taken; None if there are none.
    :param starts: Which of them begin an episode, ``[n]``; None if that is not known.
    :return: The same; None for a network that does not remember, to which it does not matter
    :raises ValueError: if they are not as many as the observations, or something else than true or false
    """
    if starts is None:
        return None
    if calibration is None:
        raise ValueError("episode_starts are those of calibration observations: give calibration as well, or neither")
    array = np.asarray(starts)
    count = len(next(iter(calibration.values())) if isinstance(calibration, Mapping) else calibration)
    if array.shape != (count,) or array.dtype.kind not in "fiub" or not np.isin(array, (0, 1)).all():
        raise ValueError(
            f"episode_starts must be true or false for each of the {count} calibration observations, but has shape "
            f"{array.shape} and type {array.dtype}"
        )
    return array.astype(bool) if network.remembers else None


def _read(network: Network, calibration: Any) -> NDArray[Any]:
    array, shape = np.asarray(calibration), network.frame_shape
    if network.image and array.shape[1:] != shape and array.ndim == len(shape) + 1:
        array = np.moveaxis(array, -1, 1)
    if array.ndim == 0 or array.dtype.kind not in "fiub" or array.shape[1:] != shape or not len(array):
        raise ValueError(
            f"calibration must be an array of observations of shape {('n', *shape)}, but has shape {array.shape} and "
            f"type {array.dtype}"
        )
    return array


def _choose(count: int, most: int, *, first: bool) -> NDArray[np.int64]:
    """Indices of the observations that are looked at."""
    most = min(most, count)
    return np.arange(most) if first else np.linspace(0, count - 1, most).round().astype(np.int64)


def _finite(array: NDArray[Any]) -> Floats:
    observations: Floats = array.astype(np.float32)
    if not np.isfinite(observations).all():
        raise ValueError("some calibration observations are not finite: leave them out")
    return observations
