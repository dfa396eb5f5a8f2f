"""Remove dead features: outputs of the encoders of an observation's parts, where two networks meet."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.export.passes.streams import take_rows
from sb3_sparse.runtime.network.records import Floats, Head, Layer, Network, Part


def shrink_features(network: Network) -> Network:
    """
    Remove the features that the first layer does not read. A feature without inputs is the constant ``activation(bias)``,
    which is added to the biases of the first layer, unless a normalization lies between the two. An encoder keeps one feature
    at least.

    :param network: A network whose first layer has no dead neurons; its biases are float.
    :return: The same function with narrower encoders
    """
    first, kept, parts = network.layers[0], np.ones(network.layers[0].weight.shape[1], bool), []
    bias = first.biases.astype(np.float64)
    start = 0
    for part in network.parts:
        columns = np.arange(start, start := start + part.width)
        if part.encoder is not None:
            last = part.encoder.layers[-1]
            fed = last.weight.astype(bool).any(axis=1) | (network.normalize is not None)
            constant = np.logical_not(fed)
            # A norm sees all features.
            keep = _alive(first, columns, constant) if last.norm is None else np.ones(len(columns), bool)
            value = last.activation(last.biases)
            value = value if first.grid is None else first.grid(value)
            dead = constant & ~keep
            bias += first.dense()[:, columns[dead]].astype(np.float64) @ value[dead]
            kept[columns] = keep
            part = _narrow(part, part.encoder, np.flatnonzero(keep))
        parts.append(part)
    if kept.all():
        return network
    size = sum(part.width for part in parts)
    normalize = network.normalize
    if normalize is not None:
        mean, scale, limit = (array[kept[:start]] for array in (normalize.mean, normalize.scale, normalize.limits))
        normalize = replace(normalize, mean=mean, scale=scale, limit=limit if np.ndim(normalize.limit) else normalize.limit)
    first = replace(first, weight=first.weight[:, kept], bias=bias.astype(np.float32))
    return replace(network, shape=(size,), normalize=normalize, layers=(first, *network.layers[1:]), parts=tuple(parts))


def _alive(first: Layer, columns: NDArray[np.int64], constant: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which features are read and not constant, or the first one if none is."""
    keep = first.weight[:, columns].any(axis=0) & ~constant
    if not keep.any():
        keep[0] = True
    return keep


def _narrow(part: Part, encoder: Network, kept: NDArray[np.int64]) -> Part:
    free: Floats = np.full(len(kept), np.inf, np.float32)
    layers = (*encoder.layers[:-1], take_rows(encoder.layers[-1], kept))
    return replace(part, encoder=replace(encoder, layers=layers, head=Head("clip", free.shape, -free, free)))
