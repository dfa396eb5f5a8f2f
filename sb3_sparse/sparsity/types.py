"""The types that every method of this package is made of."""

from collections.abc import Callable
from typing import Protocol

from torch import Generator, Tensor

#: One entry per prunable layer, in network order.
Named = dict[str, Tensor]

#: Recomputes one scalar loss on one fixed batch.
Loss = Callable[[], Tensor]

#: Progress -> value; see :mod:`schedules`.
Schedule = Callable[[float], float]


class Saliency(Protocol):
    """Weights -> scores of the same shapes; a higher score says "keep"."""

    def __call__(self, weights: Named, loss: Loss | None = None, *, generator: Generator | None = None) -> Named: ...


class Distribution(Protocol):
    """Scores (-inf = pruned already) and a sparsity -> the number of weights that each layer keeps."""

    def __call__(self, scores: Named, sparsity: float) -> dict[str, int]: ...
