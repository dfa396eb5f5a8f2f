"""Whether it is known how large the inputs of layers are, which integer arithmetic needs."""

from sb3_sparse.runtime.network.records import Network


def takes_pixels(network: Network) -> bool:
    """
    :param network: A network.
    :return: Whether its first layer reads whole numbers from 0 to 255, as they are
    """
    return network.image and network.normalize is None and network.layers[0].gain is None


def knows_ranges(network: Network) -> bool:
    """
    :param network: A network.
    :return: Whether the range of all layers' inputs is known, from calibration or from training; pixels need none
    """
    layers = network.layers[1:] if takes_pixels(network) else network.layers
    return network.ranges is not None or all(layer.grid is not None for layer in layers)
