"""What is searched: widths, sparsities and bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, product

from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from sb3_sparse.distillation.learning.network import read_network

#: Sparsities of the teacher's own widths, and of hidden layers that are all as wide as the key.
OWN = (0.8, 0.9, 0.95, 0.98, 0.99)
SMALLER: dict[int, tuple[float, ...]] = {128: (0.0, 0.8, 0.95), 64: (0.0, 0.7, 0.9), 32: (0.0, 0.7), 16: (0.0,), 8: (0.0,)}
#: Fewest weights that a layer keeps on average.
_LEAST = 4
#: Bits of the weights.
BITS = (8, 4, 3, 2)


@dataclass(frozen=True)
class Shape:
    """
    A student.

    :param net_arch: Widths of its hidden layers; None for the teacher's.
    :param sparsity: Its sparsity.
    """

    net_arch: tuple[int, ...] | None
    sparsity: float

    def __str__(self) -> str:
        widths = "own" if self.net_arch is None else "x".join(map(str, self.net_arch))
        return f"{widths}-{100 * self.sparsity:.10g}"


def teacher_widths(model: BaseAlgorithm) -> tuple[int, ...]:
    """
    :param model: The teacher.
    :return: Widths of its hidden layers behind a features extractor
    """
    layers = [layer for layer in read_network(model).layers if isinstance(layer, nn.Linear)]
    return tuple(layer.out_features for layer in layers[:-1])


def count_weights(model: BaseAlgorithm) -> tuple[int, int]:
    """
    :param model: The teacher.
    :return: Weights of its network, and in how many layers they are
    """
    weights = [parameter.numel() for parameter in read_network(model).parameters() if parameter.dim() > 1]
    return sum(weights), len(weights)


def find_shapes(
    widths: Sequence[int],
    counts: tuple[int, int],
    net_archs: Sequence[Sequence[int] | None] | None = None,
    sparsities: Sequence[float] | None = None,
) -> list[Shape]:
    """
    >>> [str(shape) for shape in find_shapes([32, 32], (1200, 3))]
    ['own-80', 'own-90', 'own-95', 'own-98', 'own-99', '16x16-0', '8x8-0']

    :param widths: Widths of the teacher's hidden layers.
    :param counts: Its weights and layers, see :func:`count_weights`.
    :param net_archs: Widths to search, None for the teacher's; by default the teacher's and smaller ones.
    :param sparsities: Sparsities to search; by default those that fit the width.
    :return: The shapes to search, each once
    """
    largest, depth = max(widths, default=0), len(widths)
    own = tuple(level for level in OWN if (1 - level) * counts[0] >= _LEAST * counts[1])
    levels_of: dict[tuple[int, ...] | None, tuple[float, ...]] = {None: own}
    levels_of |= {(width,) * depth: levels for width, levels in SMALLER.items() if depth and width < largest}
    archs = list(levels_of) if net_archs is None else [None if arch is None else tuple(arch) for arch in net_archs]
    found = []
    for arch in archs:
        levels = tuple(sparsities) if sparsities is not None else levels_of.get(arch, (0.0, *own))
        found += [Shape(*pair) for pair in product([arch], levels)]
    return list(dict.fromkeys(found))


def spread(shapes: Sequence[Shape]) -> list[Shape]:
    """
    :param shapes: Some shapes.
    :return: The same in an order of which every beginning is spread over all of them
    """
    order, step = [], 1 << max(0, (len(shapes) - 1).bit_length())
    while step:
        order += [index for index in islice(range(0, len(shapes), step), len(shapes)) if index not in order]
        step //= 2
    return [shapes[index] for index in order]
