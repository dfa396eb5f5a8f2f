"""Limits on the size of a network, relative to the size of its file: protection against decompression bombs."""

from math import prod

from sb3_sparse.runtime.format.bytestream import MAX_ELEMENTS
from sb3_sparse.runtime.network.records import Network, Shape

#: Most weights of any network, zeros included; a network with more may take this many bytes of memory per byte of its file.
_FREE_WEIGHTS, _BYTES_PER_BYTE = 1 << 21, 1024
#: Most numbers that all convolutions and pools together read, and multiply.
_MAX_WINDOWS, _MAX_PRODUCTS = 1 << 24, 1 << 32


def check_size(network: Network, length: int) -> None:
    """
    Refuse a network that would need far more memory or time than its file has bytes.

    :param network: The network.
    :param length: Bytes of its file.
    :raises ValueError: if it is too large, or its layers do not fit each other
    """
    weights = [layer.weight for layer in network.every_layer]
    check_weights(sum(weight.size for weight in weights), sum(weight.nbytes for weight in weights), length)
    windows = products = 0
    networks = (*network.encoders.values(), network)
    for layer, before in (pair for part in networks for pair in zip(part.layers, part.shapes, strict=False)):
        if layer.convolution:
            after = layer.sum_shape(before)
            windows += prod(after[1:]) * layer.weight[0].size
            products += prod(after) * layer.weight[0].size
            largest = max(prod(after), _planes(before, layer.padding, layer.stride))
            if layer.pool is not None:
                windows += prod(layer.output_shape(before)) * prod(layer.pool.kernel)
                largest = max(largest, _planes(after, layer.pool.padding, layer.pool.stride))
            if largest > MAX_ELEMENTS or windows > _MAX_WINDOWS or products > _MAX_PRODUCTS:
                kernel = layer.weight.shape[1:]
                raise ValueError(f"a convolution from {before} to {after} with kernels of {kernel} is too large")


def _planes(shape: Shape, padding: Shape, stride: Shape) -> int:
    """Size of a padded input with its sides rounded up to a multiple of the stride, as the kernels hold it."""
    padded = (size + 2 * border for size, border in zip(shape[1:], padding, strict=True))
    return shape[0] * prod(-(-size // step) * step for size, step in zip(padded, stride, strict=True))


def check_weights(weights: int, nbytes: int, length: int) -> None:
    """
    :param weights: Number of weights, zeros included.
    :param nbytes: Bytes that they take in memory.
    :param length: Bytes of the file.
    :raises ValueError: if they are too many
    """
    if weights > _FREE_WEIGHTS and nbytes > _BYTES_PER_BYTE * length:
        raise ValueError(f"{weights} weights, most of them zero, are too many for one file of {length} bytes")
