"""Warnings about networks that a pruning has left in a bad state."""

import warnings
from collections.abc import Mapping

from sb3_sparse.nn import MaskedLayer
from sb3_sparse.sparsity import Loss, snip

#: A layer counts as nearly empty if its density is less than this share of its network's.
NEAR_EMPTY = 0.1


def warn_of_near_empty(network: str, layers: Mapping[str, MaskedLayer]) -> bool:
    """
    Warn of layers with next to no weights in a network that has many.

    :param network: Name of the network.
    :param layers: Its layers by full name.
    :return: Whether there was anything to warn of
    """
    sizes = {name: layer.mask.numel() for name, layer in layers.items()}
    kept = {name: int(layer.mask.sum()) for name, layer in layers.items()}
    density = sum(kept.values()) / sum(sizes.values())
    most = max(kept.values())
    share = {name: density * size for name, size in sizes.items()}
    empty = [
        f"'{name}' ({kept[name]} of {sizes[name]})"
        for name in sizes
        if kept[name] < NEAR_EMPTY * share[name] or (kept[name] == 1 < most and share[name] >= 2)
    ]
    if empty:
        warnings.warn(
            f"pruning has left network '{network}' with {density:.1%} of its weights, but next to none in "
            f"{', '.join(empty)}: leave these layers out (exclude), or take a lower sparsity or a distribution that "
            "spares them, such as 'erk'",
            stacklevel=2,
        )
    return bool(empty)


def warn_of_cut(network: str, layers: Mapping[str, MaskedLayer], loss: Loss) -> bool:
    """
    Warn if no weight that is left in a network can change its loss.

    :param network: Name of the network.
    :param layers: Its layers by full name.
    :param loss: Its loss on one batch.
    :return: Whether there was anything to warn of
    """
    weights = {name: layer.weight for name, layer in layers.items()}
    cut = bool(weights) and not any(bool(score.any()) for score in snip(weights, loss).values())
    if cut:
        warnings.warn(
            f"pruning has cut network '{network}' off from its loss, whose gradient is zero now in all of its weights: "
            "normalize observations (VecNormalize), or take a lower sparsity or another distribution, such as 'erk'",
            stacklevel=2,
        )
    return cut
