"""Collect the report of an export from the graph, the network as it was trained, and the network that was exported."""

from collections.abc import Iterable, Sequence

import numpy as np

from sb3_sparse.export.report.contents import LayerReport, Report
from sb3_sparse.export.report.sizes import sizes
from sb3_sparse.export.trace import Affine, Graph
from sb3_sparse.runtime.network.ranges import knows_ranges
from sb3_sparse.runtime.network.records import Layer, Network


def make_report(graph: Graph, original: Network, network: Network, *, nbytes: int, calibrated: bool, bits: int) -> Report:
    """
    :param graph: The traced model.
    :param original: The same, folded.
    :param network: The exported network, with as many layers.
    :param nbytes: Bytes of its compact file.
    :param calibrated: Whether there were observations to calibrate with.
    :param bits: Bits per weight that were asked for, 32 for float.
    :return: The report
    """
    # The tanh after a clipped mean is a layer of its own, which the model does not have.
    graphs = [*graph.encoders.values(), graph]
    names = [name for each in graphs for name in each.names]
    added = ["squash"] * (len(original.layers) - len(graph.names))
    # Of unit layers, which only carry something, the model has no weights.
    carriers = {*added, *(name for each in graphs for name in each.carriers)}
    layers = tuple(
        LayerReport(
            name=name,
            shape=tuple(before.weight.shape),
            total=0 if name in carriers else before.weight.size,
            nonzero=0 if name in carriers else int(np.count_nonzero(before.weight)),
            shape_after=tuple(after.weight.shape),
            nonzero_after=int(np.count_nonzero(after.weight)),
            dead_neurons=before.outputs - after.outputs,
            bits=_trained_bits(before) if before.quantized else bits if after.quantized else 32,
        )
        for name, before, after in zip([*names, *added], original.every_layer, network.every_layer, strict=True)
    )
    notes = tuple(_notes(graph, original, layers, calibrated=calibrated))
    own = [layer for report, layer in zip(layers, original.every_layer, strict=True) if report.total]
    widest = max(layer.bits for layer in layers)
    return Report(layers, sizes(own, nbytes, min(widest, 8)), notes)


def _input_notes(graphs: Sequence[Graph], original: Network) -> Iterable[str]:
    stack = original.stack
    if stack is not None:
        yield f"The policy takes one observation at a time and keeps the last {stack.frames} itself, as VecFrameStack does."
    if any(each.normalize is not None for each in graphs) or (stack is not None and stack.normalize is not None):
        yield "VecNormalize is part of the policy: it takes observations as the environment gives them."


def _trained_bits(layer: Layer) -> int:
    """Training sets the scale such that the largest weight is the largest integer."""
    return max(2, int(np.abs(layer.weight.astype(np.int64)).max()).bit_length() + 1)


def _notes(graph: Graph, original: Network, layers: Sequence[LayerReport], *, calibrated: bool) -> Iterable[str]:
    yield from graph.notes
    graphs = [*graph.encoders.values(), graph]
    operations = [operation for each in graphs for operation in each.operations]
    yield from _input_notes(graphs, original)
    affines = [operation for operation in operations if isinstance(operation, Affine)]
    if any(affine.shift.any() for affine in affines):
        yield "Batch norm was folded into the layers around it."
    trained = [layer for layer in operations if isinstance(layer, Layer) and layer.quantized]
    kept = [report for report, layer in zip(layers, original.every_layer, strict=True) if layer.quantized]
    if kept:
        yield f"Trained with quantization and left on that grid: {', '.join(layer.name for layer in kept)}."
    rounded = [layer.grid for layer in original.every_layer if layer.grid is not None]
    if rounded:
        widths = sorted({(grid.top - grid.low).bit_length() for grid in rounded})
        yield f"Trained with rounded activations, whose ranges are those of training: {', '.join(map(str, widths))} bits."
    if len(trained) > len(kept):
        yield f"Trained with quantization, but rounded anew for a batch norm that was folded in: {len(trained) - len(kept)}."
    if any(layer.bits == 32 for layer in layers):
        yield "Weights that were float stay float32: nothing was rounded, and there is no integer-only C code."
        return
    if not calibrated and len(kept) < len(layers):
        how = "rounded plainly" if original.every_layer[0].convolution else "rounded for inputs guessed from its weights"
        yield f"Without calibration observations the network was {how}: give some if the return suffers."
    kinds = {"residual layers": original.residual, "LSTM layers": original.lstms}
    kinds["layer norms"] = any(layer.norm is not None for layer in original.every_layer)
    without = next((kind for kind, present in kinds.items() if present), None)
    if without is not None:
        yield f"There is no integer-only C code for {without}."
    elif not calibrated and not all(knows_ranges(each) for each in (*original.encoders.values(), original)):
        yield "Without calibration observations the range of the activations is unknown: no integer-only C code."
