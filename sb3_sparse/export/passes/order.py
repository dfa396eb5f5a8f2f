"""Order hidden neurons by their number of weights, which makes files and kernels smaller."""

from dataclasses import replace

import numpy as np

from sb3_sparse.export.passes.streams import by_output, find_streams, take_columns, take_rows
from sb3_sparse.runtime.network.records import Network


def order(network: Network) -> Network:
    """
    Order hidden neurons by their number of weights, most first: equal counts stand together, so the file and the kernels need
    a few runs instead of row pointers. The channels of a stream are ordered by the weights of all its layers.

    :param network: A network.
    :return: The same function, with its hidden neurons permuted
    """
    layers = list(network.layers)
    for stream in find_streams(layers):
        count = layers[stream[0]].outputs
        counts = np.sum([np.count_nonzero(by_output(layers[index]), axis=1) for index in stream], axis=0)
        permutation = np.argsort(-counts, kind="stable")
        for index in stream:
            layers[index] = take_rows(layers[index], permutation)
            layers[index + 1] = take_columns(layers[index + 1], permutation, count)
    return replace(network, layers=tuple(layers))
