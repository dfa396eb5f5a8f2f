"""The counts of a layer, and their sums over a network and a policy."""

from collections.abc import Iterable
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Counts:
    """
    The counts of a layer, of a network or of a whole policy. Biases do not count.

    The FLOPs are those of one observation that passes every layer once, without activations: one multiplication and one
    addition per weight and output position,

        flops = 2 * connections * positions,    dense_flops = 2 * total * positions

    with one position for a linear layer, and height times width of the output for a convolution (Evci et al. 2020,
    "Rigging the Lottery", appendix on FLOPs). They are None where the size of a convolution's output is unknown.

    :param nonzero: Number of weights that are not zero.
    :param connections: Number of weights that exist: the mask's count for a masked layer, otherwise ``nonzero``. A weight
        that dynamic sparse training has just grown exists although it is zero.
    :param total: Number of weights of the dense twin.
    :param active_neurons: Number of outputs of layers (units or channels) with at least one nonzero weight.
    :param neurons: Number of outputs of layers.
    :param flops: Floating-point operations per observation.
    :param dense_flops: The same with all weights.
    """

    nonzero: int
    connections: int
    total: int
    active_neurons: int
    neurons: int
    flops: int | None
    dense_flops: int | None

    @property
    def sparsity(self) -> float:
        """Share of zeros. A weight that exists and is zero counts as a zero, so this may be more than the masks' sparsity."""
        return 1.0 - self.nonzero / self.total

    @property
    def value_bytes(self) -> int:
        """The papers' count: four bytes per nonzero weight, as if indices and biases cost nothing."""
        return 4 * self.nonzero


@dataclass(frozen=True)
class LayerSummary(Counts):
    """
    One linear or convolutional layer.

    :param shape: Shape of the weight, ``(out, in)`` or ``(out, in / groups, height, width)``.
    """

    shape: tuple[int, ...]


@dataclass(frozen=True)
class NetworkSummary(Counts):
    """
    One network: the sums over its layers.

    :param layers: Its layers by name.
    :param nbytes: Bytes of all its parameters, with biases, in the archive that ``numpy.savez_compressed`` writes: a real
        file, in which zeros compress well.
    """

    layers: dict[str, LayerSummary]
    nbytes: int


def sum_counts(parts: Iterable[Counts]) -> Counts:
    """
    :param parts: Layers, or networks.
    :return: Every field of :class:`Counts`, added up; None where it is None for one of the parts
    """
    parts = list(parts)
    columns = ([getattr(part, field.name) for part in parts] for field in fields(Counts))
    return Counts(*(None if None in column else sum(column) for column in columns))  # type: ignore[arg-type]
