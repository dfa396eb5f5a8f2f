"""
The two functions that make masks. A mask is a boolean tensor of the weight's shape; True is a weight that exists.

``prune`` never revives a weight: its result is a subset of the mask it was given. ``rewire`` never changes a count. Both rank
the scores and never compare with a threshold, so counts are exact even with ties; of equal scores the lower index ranks first.
"""

from math import floor

import torch as th
from torch import Generator, Tensor

from sb3_sparse.sparsity.types import Distribution, Loss, Named, Saliency


def prune(masks: Named, scores: Named, keep: dict[str, int]) -> Named:
    """
    Keep the best-scored weights of each layer among those that exist.

    >>> prune({"a": th.tensor([True, True, False])}, {"a": th.tensor([1.0, 2.0, 3.0])}, {"a": 1})
    {'a': tensor([False,  True, False])}

    :param masks: Masks by layer.
    :param scores: Scores by layer, of the same shapes; those of pruned weights are ignored.
    :param keep: Number of weights that each layer keeps.
    :return: New masks, subsets of the old ones, with exactly ``keep[layer]`` weights each
    :raises ValueError: if a layer has fewer weights than it is to keep, or on a shape that does not fit
    """
    pruned = {}
    for name, mask in masks.items():
        if not 0 <= keep[name] <= (active := int(mask.sum())):
            raise ValueError(
                f"layer '{name}' has {active} weights and cannot keep {keep[name]}: pruning never revives a weight"
            )
        pruned[name] = _best(scores[name], among=mask, count=keep[name])
    return pruned


def rewire(masks: Named, drop: Named, grow: Named, fraction: float) -> Named:
    """
    Move a fraction of each layer's weights: drop those with the lowest ``drop`` score, then give as many places to the
    highest ``grow`` scores among all that did not survive (so a dropped weight may come back). SET and RigL differ in
    ``grow`` alone.

    >>> mask, weight = th.tensor([True, True, False]), th.tensor([1.0, 2.0, 3.0])
    >>> rewire({"a": mask}, {"a": weight}, {"a": weight}, fraction=0.5)
    {'a': tensor([False,  True,  True])}

    :param masks: Masks by layer.
    :param drop: Scores of the weights that exist; the lowest are dropped.
    :param grow: Scores of the places for new ones; the highest are taken.
    :param fraction: Share of each layer's weights to move, in [0, 1], rounded down to whole weights.
    :return: New masks with the same count in every layer
    :raises ValueError: if the fraction lies outside [0, 1], or on a shape that does not fit
    """
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"fraction must lie in [0, 1], got {fraction}")
    rewired = {}
    for name, mask in masks.items():
        active = int(mask.sum())
        # The small term corrects products such as 0.29 * 100 = 28.999...
        moved = min(active, floor(fraction * active + 1e-9))
        survivors = _best(drop[name], among=mask, count=active - moved)
        rewired[name] = survivors | _best(grow[name], among=~survivors, count=moved)
    return rewired


def prune_to(
    weights: Named,
    masks: Named,
    sparsity: float,
    *,
    saliency: Saliency,
    distribution: Distribution,
    loss: Loss | None = None,
    generator: Generator | None = None,
) -> Named:
    """
    Score, share out, prune: the three steps of every pruning method.

    Same as: ``prune(masks, scores, distribution(scores, sparsity))`` with ``scores = saliency(weights, loss)``, -inf
    where pruned.

    :param weights: Weights by layer.
    :param masks: Masks by layer.
    :param sparsity: Share of zeros over all layers together, in [0, 1).
    :param saliency: Which weights matter.
    :param distribution: How many each layer keeps.
    :param loss: Loss for saliencies that need data.
    :param generator: CPU generator for saliencies that draw.
    :return: New masks, subsets of the old ones
    :raises ValueError: if the sparsity is infeasible
    """
    scores = saliency(weights, loss, generator=generator)
    if not isinstance(scores, dict) or scores.keys() != weights.keys():
        raise ValueError(
            f"a saliency returns a dict with one tensor of scores for each of {list(weights)}, got {scores!r:.100}"
        )
    scores = {name: _finite(score).masked_fill(~masks[name], -th.inf) for name, score in scores.items()}
    return prune(masks, scores, distribution(scores, sparsity))


def _finite(scores: Tensor) -> Tensor:
    """Scores without -inf, the value reserved for weights that do not exist."""
    return scores.detach().clamp(min=th.finfo(scores.dtype).min)


def _best(scores: Tensor, *, among: Tensor, count: int) -> Tensor:
    """Mask of the ``count`` highest scores among the places marked True; the lower index wins a tie."""
    if scores.shape != among.shape:
        raise ValueError(f"scores of shape {tuple(scores.shape)} do not fit a mask of shape {tuple(among.shape)}")
    if scores.isnan().any():
        raise ValueError("scores contain NaN: the training has diverged")
    order = _finite(scores).masked_fill(~among, -th.inf).flatten().sort(descending=True, stable=True).indices
    best = th.zeros_like(among).flatten()
    best[order[:count]] = True
    return best.view_as(among)
