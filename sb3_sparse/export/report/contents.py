"""The report of an export: its layers before and after, its bytes by format, and notes. Prints as tables, or is JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sb3_sparse.export.report.sizes import COMPACT_FILE, DENSE
from sb3_sparse.table import format_table


@dataclass(frozen=True)
class LayerReport:
    """
    One linear or convolutional layer.

    :param name: Its name under ``model.policy``.
    :param shape: Shape of the weight as it was trained, ``(out, in)`` or ``(out, in, height, width)``.
    :param total: Number of weights as it was trained, zeros included; 0 of a unit layer, which the model does not have, but
        which carries an activation, a norm or a pool that no layer of it can have.
    :param nonzero: How many of them were not zero.
    :param shape_after: Shape of the weight without dead neurons.
    :param nonzero_after: How many weights are not zero in the end.
    :param dead_neurons: Number of outputs (units or channels) removed.
    :param bits: Bits per weight; 32 if it is float.
    """

    name: str
    shape: tuple[int, ...]
    total: int
    nonzero: int
    shape_after: tuple[int, ...]
    nonzero_after: int
    dead_neurons: int
    bits: int


@dataclass(frozen=True)
class Report:
    """
    The result of :func:`~sb3_sparse.export.compress`; printing it shows tables.

    :param layers: The layers, in order.
    :param nbytes: Bytes by format; see :mod:`sb3_sparse.export.report.sizes`.
    :param notes: What was folded, kept and given up, one sentence each.
    """

    layers: tuple[LayerReport, ...]
    nbytes: dict[str, int]
    notes: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """How many times smaller the compact file is than the dense float32 weights and biases."""
        return self.nbytes[DENSE] / self.nbytes[COMPACT_FILE]

    @property
    def sparsity(self) -> float:
        """Share of zeros in the model as it was trained."""
        return 1.0 - sum(layer.nonzero for layer in self.layers) / sum(layer.total for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """
        :return: The same as plain JSON: dicts, lists, strings and numbers
        """
        return {
            "layers": [
                {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(layer).items()}
                for layer in self.layers
            ],
            "sparsity": self.sparsity,
            "bytes": dict(self.nbytes),
            "ratio": self.ratio,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        parts = [_layer_table(self.layers), _byte_table(self.nbytes), "\n".join(self.notes)]
        return "\n\n".join(part for part in parts if part)


def _layer_table(layers: Sequence[LayerReport]) -> str:
    rows = [("layer", "shape", "weights", "nonzero", "shape after", "nonzero after", "dead neurons removed", "bits")]
    for layer in layers:
        shapes = ["x".join(map(str, shape)) for shape in (layer.shape, layer.shape_after)]
        rows.append((layer.name, shapes[0], *_cells([layer], shapes[1]), str(layer.bits)))
    rows.append(("total", "", *_cells(layers, ""), ""))
    return format_table(rows)


def _cells(layers: Sequence[LayerReport], shape_after: str) -> tuple[str, str, str, str, str]:
    total, nonzero, nonzero_after, dead = (
        f"{sum(getattr(layer, name) for layer in layers):,}" for name in ("total", "nonzero", "nonzero_after", "dead_neurons")
    )
    return total, nonzero, shape_after, nonzero_after, dead


def _byte_table(nbytes: dict[str, int]) -> str:
    dense = nbytes[DENSE]
    rows = [("format", "bytes", f"{DENSE} / this")]
    rows += [(name, f"{size:,}", f"{dense / size:.2f}" if size else "") for name, size in nbytes.items()]
    return format_table(rows)
