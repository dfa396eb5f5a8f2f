"""A figure of where the weights are: the density of every layer, before and after. Needs the optional matplotlib."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.export.report.contents import Report
from sb3_sparse.runtime.network.records import Network

#: Most rows and columns of a picture. Larger masks are averaged over blocks, or single weights would be lost between pixels.
_PIXELS = 128


def density(weight: NDArray[np.generic], pixels: int = _PIXELS) -> NDArray[np.float64]:
    """
    :param weight: ``[out, in]`` or ``[out, in, height, width]``; kernels are flattened.
    :param pixels: Rows and columns of the picture at most.
    :return: Share of weights that are not zero, in blocks of about the same size
    """
    mask: NDArray[np.float64] = (weight.reshape(len(weight), -1) != 0).astype(np.float64)
    for axis in (0, 1):
        size = mask.shape[axis]
        starts = np.linspace(0, size, min(pixels, size), endpoint=False).astype(int)
        lengths = np.diff(starts, append=size)
        mask = np.add.reduceat(mask, starts, axis=axis) / (lengths[:, None] if axis == 0 else lengths)
    return mask


def save_densities(path: Path, report: Report, original: Network, network: Network) -> None:
    """
    Draw the density of every layer: the model in the upper row, the exported policy in the lower one.

    :param path: Where to write; the name ends in .png.
    :param report: The report of the export.
    :param original: The network as it was trained.
    :param network: The network that was exported.
    :raises ImportError: without matplotlib
    """
    # Without pyplot there is no state and no display.
    from matplotlib.figure import Figure

    columns = len(report.layers)
    figure = Figure(figsize=(1 + 2.6 * columns, 6), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    for row, (title, part) in enumerate((("trained", original), ("exported", network))):
        for column, (summary, layer) in enumerate(zip(report.layers, part.every_layer, strict=True)):
            axis = axes[row, column]
            picture = axis.imshow(
                density(layer.weight), vmin=0, vmax=1, cmap="viridis", aspect="auto", interpolation="nearest",
                extent=(0, layer.weight[0].size, layer.rows, 0),
            )  # fmt: skip
            share = np.count_nonzero(layer.weight) / layer.weight.size
            shape = "x".join(map(str, layer.weight.shape))
            axis.set_title(f"{summary.name}, {title}\n{shape}, density {share:.4f}", fontsize=8)
            axis.set_xlabel("inputs", fontsize=8)
            axis.set_ylabel("outputs", fontsize=8)
            axis.tick_params(labelsize=7)
    figure.colorbar(picture, ax=axes, label="share of weights that are not zero", shrink=0.8)
    figure.savefig(path, dpi=120)
