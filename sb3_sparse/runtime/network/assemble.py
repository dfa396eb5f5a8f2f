"""The vector that a network computes with, from the parts of an observation."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import Floats, Network, Part
from sb3_sparse.runtime.network.reference import layer_inputs

#: Observations by the key of their part, ``[n, *shape]`` each.
Arrays = Mapping[str, NDArray[Any]]
#: An encoder: from ``[n, *shape]`` to ``[n, width]``.
Encoder = Callable[[NDArray[Any]], NDArray[Any]]


def assemble(network: Network, arrays: Arrays, encoders: Mapping[str, Encoder] | None = None) -> Floats:
    """
    :param network: A network with parts.
    :param arrays: The observations.
    :param encoders: What computes the encoders, by key; the reference by default.
    :return: The observations as the network's layers take them, ``[n, *network.shape]``
    :raises ValueError: if a class does not exist
    """
    stretches = []
    for part in network.parts:
        array = arrays[part.key]
        if part.sizes:
            stretches.append(_one_hot(part, array))
        elif part.encoder is None:
            stretches.append(array.reshape(len(array), part.width).astype(np.float32, copy=False))
        else:
            encode = encoders[part.key] if encoders else _reference(part.encoder)
            stretches.append(encode(array).reshape(len(array), part.width).astype(np.float32, copy=False))
    return np.concatenate(stretches, axis=1)


def _one_hot(part: Part, array: NDArray[Any]) -> Floats:
    values, sizes = array.reshape(len(array), len(part.sizes)), np.array(part.sizes)
    # Before the cast, so that NaN is refused as well.
    if not (exists := (values >= 0) & (values < sizes) & (values == np.trunc(values))).all():
        row, column = np.argwhere(~exists)[0]
        where = f"'{part.key}' of the observation" if part.key else "an observation"
        raise ValueError(f"{where} has the class {values[row, column]}, and there are only 0 to {sizes[column] - 1}")
    x = np.zeros((len(array), part.width), np.float32)
    x[np.arange(len(array))[:, None], values.astype(np.int64) + (np.cumsum(sizes) - sizes)] = 1
    return x


def _reference(encoder: Network) -> Encoder:
    return lambda array: encoder.head(layer_inputs(encoder, array.astype(np.float32))[-1])
