"""What became of a model: its layers before and after, its bytes by format, and what was given up on the way."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sb3_sparse.export.report.sizes import COMPACT, DENSE, sizes
from sb3_sparse.export.trace.graph import Graph
from sb3_sparse.export.trace.modules import Affine
from sb3_sparse.runtime.network.records import Layer, Network


@dataclass(frozen=True)
class LayerReport:
    """
    One linear or convolutional layer.

    :param name: Its name under ``model.policy``.
    :param shape: Shape of the weight as it was trained, ``(out, in)`` or ``(out, in, height, width)``.
    :param total: Number of weights as it was trained, zeros included.
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
    What :func:`~sb3_sparse.export.compress` has made of a model; printing it shows tables.

    :param layers: The layers, in order.
    :param nbytes: Bytes by format; see :mod:`sb3_sparse.export.report.sizes`.
    :param notes: What was folded, kept and given up, a sentence each.
    """

    layers: tuple[LayerReport, ...]
    nbytes: dict[str, int]
    notes: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """How many times smaller the compact file is than the dense float32 weights and biases."""
        return self.nbytes[DENSE] / self.nbytes[COMPACT]

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


def make_report(graph: Graph, original: Network, network: Network, *, calibrated: bool, bits: int) -> Report:
    """
    :param graph: What was found in the model.
    :param original: The same, folded.
    :param network: What became of it: as many layers.
    :param calibrated: Whether there were observations to calibrate with.
    :param bits: Bits per weight that were asked for, 32 for float.
    :return: The report
    """
    # The tanh after a clipped mean is a layer of its own, which the model does not have.
    names = [*graph.names, *["squash"] * (len(original.layers) - len(graph.names))]
    layers = tuple(
        LayerReport(
            name=name,
            shape=tuple(before.weight.shape),
            total=before.weight.size,
            nonzero=int(np.count_nonzero(before.weight)),
            shape_after=tuple(after.weight.shape),
            nonzero_after=int(np.count_nonzero(after.weight)),
            dead_neurons=before.outputs - after.outputs,
            bits=_trained_bits(before) if before.quantized else bits if after.quantized else 32,
        )
        for name, before, after in zip(names, original.layers, network.layers, strict=True)
    )
    notes = tuple(_notes(graph, original, layers, calibrated=calibrated))
    return Report(layers, sizes(original, network, min(bits, 8)), notes)


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """
    :param rows: Rows of as many cells, the heading first.
    :return: The table: first column to the left, the others to the right
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _trained_bits(layer: Layer) -> int:
    """Training sets the scale such that the largest weight is the largest integer."""
    return max(2, int(np.abs(layer.weight.astype(np.int64)).max()).bit_length() + 1)


def _notes(graph: Graph, original: Network, layers: Sequence[LayerReport], *, calibrated: bool) -> Iterable[str]:
    yield from graph.notes
    if graph.normalize is not None:
        yield "VecNormalize is part of the policy: it takes observations as the environment gives them."
    affines = [operation for operation in graph.operations if isinstance(operation, Affine)]
    if any(affine.shift.any() for affine in affines):
        yield "Batch norm was folded into the layers around it."
    trained = [layer for layer in graph.operations if isinstance(layer, Layer) and layer.quantized]
    kept = [report for report, layer in zip(layers, original.layers, strict=True) if layer.quantized]
    if kept:
        yield f"Trained with quantization and left on that grid: {', '.join(layer.name for layer in kept)}."
    if len(trained) > len(kept):
        yield f"Trained with quantization, but rounded anew for a batch norm that was folded in: {len(trained) - len(kept)}."
    if any(layer.bits == 32 for layer in layers):
        yield "Weights that were float stay float32: nothing was rounded, and there is no integer-only C code."
        return
    if not calibrated and len(kept) < len(layers):
        how = "rounded plainly" if original.layers[0].convolution else "rounded for inputs guessed from its weights"
        yield f"Without calibration observations the network was {how}: give some if the return suffers."
    if original.residual:
        yield "There is no integer-only C code for residual layers."
    elif not calibrated:
        yield "Without calibration observations the range of the activations is unknown: no integer-only C code."


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
