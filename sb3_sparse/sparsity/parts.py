"""Networks of parts, such as the encoder and the decoder of a VAE: each part is ranked alone, and all share one budget."""

from collections.abc import Sequence

import torch as th

from sb3_sparse.sparsity.choice import find_lambdas
from sb3_sparse.sparsity.distributions import uniform
from sb3_sparse.sparsity.types import Distribution, Named


def by_parts(distribution: Distribution, parts: Sequence[Sequence[str]]) -> Distribution:
    """
    The same distribution in each part of a network, at one sparsity for all parts.

    One ranking over a whole VAE can leave its encoder without weights; the paper on single-shot pruning for offline
    reinforcement learning has a mask for each of the two (Arnob et al. 2021, algorithm 1). :func:`uniform` divides the
    network's budget among the parts, so the counts add up to it exactly and are nested.

    >>> scores = {"encoder.0": th.tensor([[1.0, 2.0, 3.0, 4.0]]), "decoder.0": th.tensor([[5.0, 6.0, 7.0, 8.0]])}
    >>> by_parts(uniform, [["encoder.0"], ["decoder.0"]])(scores, 0.5)
    {'encoder.0': 2, 'decoder.0': 2}

    :param distribution: How many weights each layer of a part keeps. Lambdas fix the counts of the network as a whole.
    :param parts: Names of the layers of each part; together all layers of the network.
    :return: The distribution over the whole network
    """
    if len(parts) < 2 or find_lambdas(distribution) is not None:
        return distribution

    def in_parts(scores: Named, sparsity: float) -> dict[str, int]:
        pools = {part[0]: th.cat([_existing(scores[name]) for name in part]) for part in parts}
        budgets = uniform(pools, sparsity)
        keep: dict[str, int] = {}
        for part in parts:
            # Rounding turns the share back into the same whole number.
            keep |= distribution({name: scores[name] for name in part}, 1.0 - budgets[part[0]] / pools[part[0]].numel())
        return {name: keep[name] for name in scores}

    return in_parts


def _existing(scores: th.Tensor) -> th.Tensor:
    """Scores of weights that exist, -inf for the others. NaN stays out, so that it is reported with the layer's own name."""
    return th.zeros_like(scores).masked_fill(scores.isneginf(), -th.inf).flatten()
