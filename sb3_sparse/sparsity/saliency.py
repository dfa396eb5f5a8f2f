"""
Saliencies: which weights matter.

A saliency maps weights to scores of the same names and shapes; the highest scores are kept. It changes neither the
weights nor their gradients. Scores that need data get a ``loss``; those that draw take a CPU ``generator``, so that a
draw is the same on every device.
"""

import torch as th
from torch import Generator

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


SALIENCIES: dict[str, Saliency] = {f.__name__: f for f in (magnitude, random)}
