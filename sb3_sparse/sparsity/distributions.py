"""
Distributions: how many weights each layer keeps.

A distribution maps scores (-inf = pruned already) and a sparsity to integer counts, and all of them obey:

* the counts add up to ``round((1 - sparsity) * total)`` exactly, or to the number of active weights if that is less;
* no layer keeps more than its active weights, and no layer that has any is emptied;
* the counts are nested: a higher sparsity never gives a layer more weights, so gradual pruning never has to revive one.

``uniform``, ``erdos_renyi`` and ``erk`` are one algorithm with different shares. Real-valued shares would have to be
rounded, and rounding by largest remainders can raise one layer's count while the total falls (the Alabama paradox). A
divisor method cannot: layer l keeps ``clamp(round(epsilon * share_l), 1, active_l)`` for the one epsilon that meets the
total (Webster's method). A layer that epsilon would fill beyond its size is capped and the rest is scaled up, which is
the usual iteration for ERK.
"""

from collections.abc import Callable, Sequence
from math import floor, inf, prod
from numbers import Real

import torch as th

from sb3_sparse.sparsity.types import Distribution, Named


def uniform(scores: Named, sparsity: float) -> dict[str, int]:
    """
    The same sparsity in every layer.

    >>> uniform({"a": th.ones(4, 4), "b": th.ones(2, 4)}, 0.5)
    {'a': 8, 'b': 4}

    :param scores: Scores by layer, shapes ``[out, in, ...]``; -inf marks what is pruned already.
    :param sparsity: Share of zeros over all layers, in [0, 1).
    :return: Weights that each layer keeps
    :raises ValueError: if the sparsity leaves fewer weights than layers
    """
    return _share_out(scores, sparsity, lambda shape: prod(shape))


def erdos_renyi(
    scores: Named, sparsity: float | None = None, *, lambdas: Sequence[float] | None = None, counts: str = "exact"
) -> dict[str, int]:
    """
    Erdős–Rényi: density proportional to (n_in + n_out) / (n_in * n_out) (Mocanu et al. 2018, eq. 3).

    The factor of proportionality is solved for ``sparsity``, or given per layer as ``lambdas``: then layer l has density

        p_l = min(1, lambda_l * (n_in + n_out) / (n_in * n_out))

    (DS-TD3: Sokar et al. 2022) and keeps ``round(p_l * n_in * n_out)`` weights, times the kernel size of a convolution; or,
    as in the authors' code, each of them with probability p_l, independently of the others.
    ``functools.partial(erdos_renyi, lambdas=(7, 64))`` is a distribution with fixed counts.

    >>> erdos_renyi({"l1": th.ones(256, 17), "l2": th.ones(256, 256)}, lambdas=(7, 64))
    {'l1': 1911, 'l2': 32768}

    :param scores: Scores by layer, shapes ``[out, in, ...]``; -inf marks what is pruned already.
    :param sparsity: Share of zeros over all layers, in [0, 1). Every distribution is called with one; with lambdas it is not
        used, and callbacks and sparse policies must be given None (:func:`~sb3_sparse.sparsity.check_choice`).
    :param lambdas: One positive factor per layer, in network order. A network of equal branches, such as twin critics, may
        give those of one branch only.
    :param counts: With lambdas: "exact", or "bernoulli" for ``max(1, #{scores >= 1 - p_l})``. The scores are then the
        uniform draws of saliency ``random``, so the same draw counts the weights and chooses them.
    :return: Weights that each layer keeps
    :raises ValueError: if neither sparsity nor lambdas are given, on lambdas that are not positive or do not fit the layers,
        if the sparsity leaves fewer weights than layers, on unknown counts, or for "bernoulli" without lambdas or with
        scores outside [0, 1)
    """
    if counts not in ("exact", "bernoulli"):
        raise ValueError(f"unknown counts={counts!r}: use one of exact, bernoulli")
    if lambdas is None:
        if counts == "bernoulli":
            raise ValueError("counts='bernoulli' needs lambdas: for a sparsity the counts are exact")
        if sparsity is None:
            raise ValueError("erdos_renyi needs a sparsity or lambdas")
        return _share_out(scores, sparsity, lambda shape: sum(shape[:2]) * prod(shape[2:]))
    keep = {}
    for factor, (name, score) in zip(_per_layer(lambdas, scores), scores.items(), strict=True):
        if counts == "exact":
            expected = min(score.numel(), factor * sum(score.shape[:2]) * prod(score.shape[2:]))
            count = floor(expected + 0.5)
        else:
            density = min(1.0, factor * sum(score.shape[:2]) / prod(score.shape[:2]))
            count = _count_draws(name, score, density)
        keep[name] = min(_active(score), max(1, count))
    return keep


def erk(scores: Named, sparsity: float) -> dict[str, int]:
    """
    Erdős–Rényi-Kernel: density proportional to sum(shape) / prod(shape) (Evci et al. 2020, section 3).

    Small layers stay denser than large ones; those that would exceed density 1 stay dense. Equal to ``erdos_renyi`` on
    linear layers.

    >>> erk({"l1": th.ones(256, 17), "l2": th.ones(256, 256), "mu": th.ones(6, 256)}, 0.9)
    {'l1': 1950, 'l2': 3656, 'mu': 1536}

    :param scores: Scores by layer, shapes ``[out, in, ...]``; -inf marks what is pruned already.
    :param sparsity: Share of zeros over all layers, in [0, 1).
    :return: Weights that each layer keeps
    :raises ValueError: if the sparsity leaves fewer weights than layers
    """
    return _share_out(scores, sparsity, lambda shape: sum(shape))


def global_(scores: Named, sparsity: float) -> dict[str, int]:
    """
    The counts of one ranking over all layers together, but at least one weight in each.

    >>> global_({"a": th.tensor([[3.0, 4.0]]), "b": th.tensor([[2.0, 1.0]])}, 0.5)
    {'a': 1, 'b': 1}

    :param scores: Scores by layer, comparable between layers; -inf marks what is pruned already.
    :param sparsity: Share of zeros over all layers, in [0, 1).
    :return: Weights that each layer keeps
    :raises ValueError: if the sparsity leaves fewer weights than layers
    """
    budget = _budget(scores, sparsity)
    flat = []
    for score in scores.values():
        ranked = score.detach().flatten().double().cpu().clamp(max=th.finfo(th.float64).max)
        if _active(ranked) > 0:
            ranked[ranked.argmax()] = th.inf
        flat.append(ranked)
    layer = th.arange(len(flat)).repeat_interleave(th.tensor([ranked.numel() for ranked in flat]))
    kept = layer[th.cat(flat).sort(descending=True, stable=True).indices[:budget]]
    return dict(zip(scores, th.bincount(kept, minlength=len(flat)).tolist(), strict=True))


def check_sparsity(sparsity: float) -> float:
    """
    :param sparsity: What a user gave as a share of zeros.
    :return: The same as a float
    :raises ValueError: if it is not a number in [0, 1)
    """
    if not isinstance(sparsity, Real) or not 0.0 <= sparsity < 1.0:
        raise ValueError(f"sparsity is the share of zeros and must lie in [0, 1), got {sparsity!r}")
    return float(sparsity)


def _per_layer(lambdas: Sequence[float], scores: Named) -> list[float]:
    """One factor per layer; those of one branch are repeated over branches of the same shapes."""
    factors = list(lambdas) if isinstance(lambdas, Sequence) else []
    shapes = [score.shape for score in scores.values()]
    period = len(factors)
    fits = period > 0 and len(shapes) % period == 0 and all(a == b for a, b in zip(shapes, shapes[period:], strict=False))
    if not fits or not all(isinstance(factor, Real) and 0 < factor < inf for factor in factors):
        raise ValueError(
            f"erdos_renyi needs one positive lambda for each of {list(scores)}, or for each layer of one branch if all "
            f"branches have the same shapes; got {lambdas!r} for shapes {[tuple(shape) for shape in shapes]}"
        )
    return [float(factor) for factor in factors] * (len(shapes) // period)


def _count_draws(name: str, score: th.Tensor, density: float) -> int:
    """Number of weights that uniform draws let exist, each with this probability."""
    draws = score[score != -th.inf]
    if not bool(((draws >= 0.0) & (draws < 1.0)).all()):
        raise ValueError(
            f"counts='bernoulli' needs scores drawn from [0, 1), and those of layer '{name}' are not: use saliency 'random'"
        )
    return int((draws >= 1.0 - density).sum())


def _active(score: th.Tensor) -> int:
    """Number of weights of a layer that are not pruned yet."""
    return int((score > -th.inf).sum())


def _budget(scores: Named, sparsity: float) -> int:
    """Number of weights to keep over all layers."""
    if not scores:
        raise ValueError("there is no layer to prune")
    sparsity = check_sparsity(sparsity)
    for name, score in scores.items():
        if score.isnan().any():
            raise ValueError(f"the scores of layer '{name}' contain NaN: the training has diverged")
    total = sum(score.numel() for score in scores.values())
    active = [_active(score) for score in scores.values()]
    budget = round((1.0 - sparsity) * total)
    layers = sum(count > 0 for count in active)
    if budget < layers:
        raise ValueError(
            f"sparsity {sparsity} leaves {budget} of {total} weights for {layers} layers, and each needs at least one: "
            f"the largest feasible sparsity is {floor((1.0 - layers / total) * 1e6) / 1e6}"
        )
    return min(budget, sum(active))


def _share_out(scores: Named, sparsity: float, share: Callable[[th.Size], int]) -> dict[str, int]:
    """Webster's method: the largest epsilon whose sum of counts is within the budget, then ties in network order."""
    budget = _budget(scores, sparsity)
    shares = [share(score.shape) for score in scores.values()]
    active = [_active(score) for score in scores.values()]

    def counts(epsilon: float) -> list[int]:
        return [min(cap, max(min(1, cap), floor(epsilon * s + 0.5))) for s, cap in zip(shares, active, strict=True)]

    low, high = 0.0, 2.0 * max(cap / s for s, cap in zip(shares, active, strict=True)) + 1.0
    while low < (middle := (low + high) / 2) < high:
        if sum(counts(middle)) <= budget:
            low = middle
        else:
            high = middle
    keep = counts(low)
    missing = budget - sum(keep)
    for index, (at_low, at_high) in enumerate(zip(keep, counts(high), strict=True)):
        extra = min(missing, at_high - at_low)
        keep[index] += extra
        missing -= extra
    return dict(zip(scores, keep, strict=True))


DISTRIBUTIONS: dict[str, Distribution] = {f.__name__: f for f in (uniform, erdos_renyi, erk, global_)}
