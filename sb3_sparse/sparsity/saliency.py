"""
Saliencies: which weights matter.

A saliency maps weights to scores of the same names and shapes; the highest scores are kept. It changes neither the
weights nor their gradients. Scores that need data get a ``loss``; those that draw take a CPU ``generator``, so that a
draw is the same on every device.
"""

import torch as th
from torch import Generator, Tensor

from sb3_sparse.sparsity.types import Loss, Named, Saliency


def magnitude(weights: Named, loss: Loss | None = None, *, generator: Generator | None = None) -> Named:
    """
    The absolute value of each weight (Han et al. 2015, "Learning both Weights and Connections").

    >>> magnitude({"layer": th.tensor([[-2.0, 1.0]])})
    {'layer': tensor([[2., 1.]])}

    :param weights: Weights by layer, of any shape.
    :param loss: Not used.
    :param generator: Not used.
    :return: ``|w|``, in the units of the weights
    """
    return {name: weight.detach().abs() for name, weight in weights.items()}


def random(weights: Named, loss: Loss | None = None, *, generator: Generator | None = None) -> Named:
    """
    Uniform draws from [0, 1): the topology of static sparse training (Mocanu et al. 2018).

    :param weights: Weights by layer, of any shape.
    :param loss: Not used.
    :param generator: CPU generator of the draws; None takes torch's global one.
    :return: Draws, in double precision so that ties are as good as impossible
    """
    return {
        name: th.rand(weight.shape, generator=generator, dtype=th.float64).to(weight.device)
        for name, weight in weights.items()
    }


def magnitude_by_sign(weights: Named, loss: Loss | None = None, *, generator: Generator | None = None) -> Named:
    """
    The rank of ``|w|`` among the weights of the same sign, as a share of them. To drop the lowest fraction drops that fraction
    of the positive and of the negative weights, to one weight: the smallest positive and the largest negative ones (SET:
    Mocanu et al. 2018; DS-TD3: Sokar et al. 2022).

    Zeros score lowest, and have no sign: pruned weights do not change the ranks of the others.

    >>> magnitude_by_sign({"layer": th.tensor([[-4.0, -3.0, 0.1, 0.0, -2.0, -1.0, 0.2]])})["layer"]
    tensor([[1.0000, 0.7500, 0.5000, 0.0000, 0.5000, 0.2500, 1.0000]],
           dtype=torch.float64)

    :param weights: Weights by layer, of any shape.
    :param loss: Not used.
    :param generator: Not used.
    :return: Shares in (0, 1], 0 for zeros, in double precision; of equal weights the one with the lower index ranks higher
    """
    return {name: _rank_by_sign(weight.detach()) for name, weight in weights.items()}


def _rank_by_sign(weight: Tensor) -> Tensor:
    flat = weight.flatten()
    # What has diverged must show, so NaN stays NaN.
    scores = th.zeros_like(flat, dtype=th.float64).masked_fill(flat.isnan(), th.nan)
    for same_sign in (flat > 0, flat < 0):
        where = same_sign.nonzero().flatten()
        best_first = where[flat[where].abs().sort(descending=True, stable=True).indices]
        count = len(best_first)
        scores[best_first] = th.arange(count, 0, -1, dtype=th.float64, device=flat.device) / max(1, count)
    return scores.view_as(weight)


SALIENCIES: dict[str, Saliency] = {f.__name__: f for f in (magnitude, random, magnitude_by_sign)}
