"""
Saliencies: which weights matter.

A saliency maps weights to scores of the same names and shapes; the weights with the highest scores are kept. It changes
neither the weights nor their gradients. A saliency that needs data (``SAMPLES``) gets a ``loss``, and the tensors that the
loss is computed with, not detached copies. One that reads the optimizer (``MOMENTS``) gets Adam's second moments. One that
draws takes a CPU ``generator``, so that the draw is the same on every device. A new saliency is one function and one entry in
``SALIENCIES``.
"""

from collections.abc import Sequence

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
    :return: Draws in double precision, so that ties practically never occur
    """
    return {
        name: th.rand(weight.shape, generator=generator, dtype=th.float64).to(weight.device)
        for name, weight in weights.items()
    }


def magnitude_by_sign(weights: Named, loss: Loss | None = None, *, generator: Generator | None = None) -> Named:
    """
    The rank of ``|w|`` among the weights of the same sign, divided by their number. Dropping the lowest fraction then drops
    that fraction of the positive and of the negative weights, up to one weight: those closest to zero (SET: Mocanu et al.
    2018; DS-TD3: Sokar et al. 2022).

    Zeros have the lowest score and no sign, so pruned weights do not change the ranks of the others.

    >>> magnitude_by_sign({"layer": th.tensor([[-4.0, -3.0, 0.1, 0.0, -2.0, -1.0, 0.2]])})["layer"]
    tensor([[1.0000, 0.7500, 0.5000, 0.0000, 0.5000, 0.2500, 1.0000]],
           dtype=torch.float64)

    :param weights: Weights by layer, of any shape.
    :param loss: Not used.
    :param generator: Not used.
    :return: Shares in (0, 1], 0 for zeros, in double precision; of equal weights the one with the lower index ranks higher
    """
    return {name: _rank_by_sign(weight.detach()) for name, weight in weights.items()}


def fisher(
    weights: Named,
    loss: Loss | None = None,
    *,
    generator: Generator | None = None,
    second_moments: Named | None = None,
) -> Named:
    """
    ``|w| * sqrt(v)`` with v, Adam's running mean of the weight's squared gradient. It is the root of ``w**2 * F``, where v
    approximates the diagonal F of the empirical Fisher information (Theis et al. 2018, "Faster gaze prediction with dense
    networks and Fisher pruning"; Kingma & Ba 2015 for the approximation).

    It costs no batch of data. Adam's bias correction is one factor for all weights of an optimizer and changes no rank.

    >>> fisher({"layer": th.tensor([[-2.0, 1.0]])}, second_moments={"layer": th.tensor([[1.0, 9.0]])})
    {'layer': tensor([[2., 3.]])}

    :param weights: Weights by layer, of any shape.
    :param loss: Not used.
    :param generator: Not used.
    :param second_moments: By layer, of the weights' shapes: ``exp_avg_sq`` of Adam, in squared units of the loss over the
        weights.
    :return: Scores >= 0, in the units of the loss
    :raises ValueError: without second moments
    """
    if second_moments is None:
        raise ValueError(
            "saliency 'fisher' needs the second moments of the weights' Adam, and got none: use a pruning callback, which "
            "reads them from the model's optimizers"
        )
    return {name: weight.detach().abs() * second_moments[name].sqrt() for name, weight in weights.items()}


def snip(weights: Named, loss: Loss | None = None, *, generator: Generator | None = None) -> Named:
    """
    Connection sensitivity, ``|w * dL/dw|`` (Lee et al. 2019, "SNIP", eq. 6): how much the loss depends on the existence of a
    weight. It equals ``|dL/dm|`` for a layer with weight ``m * w``, at m = 1.

    The paper divides by the sum of all scores; that changes no rank and is left out. Biases have no scores.

    >>> w = th.tensor([[2.0, -1.0]], requires_grad=True)
    >>> snip({"layer": w}, lambda: (w.sum() - 4.0) ** 2)
    {'layer': tensor([[12.,  6.]])}

    :param weights: Weights by layer, of any shape, as the loss uses them.
    :param loss: Loss on one fixed batch.
    :param generator: Not used.
    :return: Scores >= 0, in the units of the loss; 0 where the loss does not depend on a weight
    :raises ValueError: without a loss, on weights that take no gradient, or if the loss depends on none of them
    """
    gradients = _gradients("snip", weights, loss)
    return {name: score.abs() for name, score in _times(weights, gradients).items()}


def grasp(weights: Named, loss: Loss | None = None, *, generator: Generator | None = None) -> Named:
    """
    Gradient signal preservation (Wang et al. 2020, "GraSP", eq. 8): with g and H the gradient and the Hessian of the loss in
    the given weights,

        w * (H g)

    To first order, removing a weight changes the squared norm of g by -2 w (H g). The paper's score is S = -w * (H g), and
    it removes the weights with the largest S, those that reduce the gradient.

    The authors' code splits a batch into two halves; here one loss covers the whole batch. H g is linear in H and in g, so the
    scores differ by a positive factor, which changes no rank. A factor of the loss changes no rank either, so the temperature
    by which their code divides logits has no counterpart. Biases are neither scored nor part of g.

    >>> w = th.tensor([[2.0, -1.0]], requires_grad=True)
    >>> grasp({"layer": w}, lambda: (w**2 * th.tensor([1.0, 3.0])).sum() / 2)
    {'layer': tensor([[4., 9.]])}

    :param weights: Weights by layer, of any shape, as the loss uses them.
    :param loss: Loss on one fixed batch, the same whenever it is called, and twice differentiable.
    :param generator: Not used.
    :return: Scores of either sign, in squared units of the loss over those of the weights; 0 where the gradient does not
        depend on a weight
    :raises ValueError: without a loss, on weights that take no gradient, or if the loss depends on none of them
    """
    gradients = _gradients("grasp", weights, loss, create_graph=True)
    product = th.stack([(g * g.detach()).sum() for g in gradients if g is not None]).sum()
    return _times(weights, _derive(product, weights))


def default_samples(saliency: Saliency) -> int | None:
    """
    :param saliency: A saliency, of this file or of a user's own.
    :return: Transitions in its batch by default, or None if it needs no data as far as is known
    """
    return next((samples for name, samples in SAMPLES.items() if SALIENCIES[name] is saliency), None)


def _gradients(saliency: str, weights: Named, loss: Loss | None, *, create_graph: bool = False) -> list[Tensor | None]:
    """The gradient of the loss by layer, None where it does not depend on the weight."""
    if loss is None:
        raise ValueError(
            f"saliency '{saliency}' needs a loss, and got none: use OneShotPruningCallback(..., saliency='{saliency}'), which "
            "takes it from the model"
        )
    fixed = [name for name, weight in weights.items() if not weight.requires_grad]
    if fixed:
        raise ValueError(f"saliency '{saliency}' needs weights that take a gradient, and these take none: {', '.join(fixed)}")
    with th.enable_grad():
        gradients = _derive(loss(), weights, create_graph=create_graph)
    if all(gradient is None for gradient in gradients):
        raise ValueError(f"saliency '{saliency}': the loss depends on none of the weights of {', '.join(weights)}")
    return gradients


def _derive(value: Tensor, weights: Named, *, create_graph: bool = False) -> list[Tensor | None]:
    # Not backward(): that would add to .grad, also of other weights.
    if not value.requires_grad:
        return [None] * len(weights)
    return list(th.autograd.grad(value, list(weights.values()), create_graph=create_graph, allow_unused=True))


def _times(weights: Named, gradients: Sequence[Tensor | None]) -> Named:
    pairs = zip(weights.items(), gradients, strict=True)
    return {name: th.zeros_like(w) if g is None else w.detach() * g.detach() for (name, w), g in pairs}


def _rank_by_sign(weight: Tensor) -> Tensor:
    flat = weight.flatten()
    # NaN stays NaN, so that a training that has diverged is noticed.
    scores = th.zeros_like(flat, dtype=th.float64).masked_fill(flat.isnan(), th.nan)
    for same_sign in (flat > 0, flat < 0):
        where = same_sign.nonzero().flatten()
        best_first = where[flat[where].abs().sort(descending=True, stable=True).indices]
        count = len(best_first)
        scores[best_first] = th.arange(count, 0, -1, dtype=th.float64, device=flat.device) / max(1, count)
    return scores.view_as(weight)


SALIENCIES: dict[str, Saliency] = {f.__name__: f for f in (magnitude, random, magnitude_by_sign, fisher, snip, grasp)}

#: Transitions in the batch of the saliencies that need data, as in Arnob et al. 2021, "Single-Shot Pruning for Offline RL".
SAMPLES = {"snip": 100, "grasp": 200}
#: The saliencies that read Adam's second moments, given as ``second_moments``.
MOMENTS = ("fisher",)
