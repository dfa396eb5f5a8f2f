"""Calibration observations as the passes take them: channels first, finite, and not too many."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import Floats, Network

#: Most observations that calibration looks at, evenly spread, or the first ones if the network remembers; fewer of images,
#: whose convolutions unfold.
_OBSERVATIONS, _IMAGES = 4096, 256


def calibration_inputs(network: Network, calibration: NDArray[Any]) -> Floats:
    """
    :param network: A network.
    :param calibration: Observations as the environment gives them, ``[n, ...]``; images may have their channels last.
    :return: Some or all of them, ``[m, *network.shape]``
    :raises ValueError: if they have the wrong shape or type, or are not finite
    """
    array = np.asarray(calibration)
    if network.image and array.shape[1:] != network.shape and array.ndim == len(network.shape) + 1:
        array = np.moveaxis(array, -1, 1)
    if array.ndim == 0 or array.dtype.kind not in "fiub" or array.shape[1:] != network.shape or not len(array):
        raise ValueError(
            f"calibration must be an array of observations of shape {('n', *network.shape)}, but has shape {array.shape} and "
            f"type {array.dtype}"
        )
    most = _IMAGES if any(layer.convolution for layer in network.layers) else _OBSERVATIONS
    most = min(most, len(array))
    chosen = np.arange(most) if network.lstms else np.linspace(0, len(array) - 1, most).round().astype(int)
    observations: Floats = array[chosen].astype(np.float32)
    if not np.isfinite(observations).all():
        raise ValueError("some calibration observations are not finite: leave them out")
    return observations
