"""The front as a figure. Needs the optional matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sb3_sparse.distillation.search.candidates import Shape
from sb3_sparse.distillation.search.target import Target, Valued, pareto

_MARKERS = {8: "o", 4: "s", 3: "^", 2: "v"}


class Drawn(Valued, Protocol):
    """A policy in the figure."""

    @property
    def shape(self) -> Shape:
        """Widths and sparsity."""

    @property
    def bits(self) -> int:
        """Bits of the weights."""

    @property
    def interval(self) -> tuple[float, float]:
        """Interval of the share that is kept."""


def save_figure(path: Path, policies: Sequence[Drawn], best: Drawn, target: Target, episodes: int) -> None:
    """
    Draw the share of the return over bytes, with intervals.

    :param path: Where to write; the name ends in .png.
    :param policies: What has been evaluated.
    :param best: The one that was chosen.
    :param target: What was wanted.
    :param episodes: Over how many episodes.
    :raises ImportError: without matplotlib
    """
    # Without pyplot there is no state and no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    size, front = target.size, pareto(policies, target.size)
    sizes, kept = [getattr(policy, size) for policy in front], [policy.kept for policy in front]
    axis.step(sizes, kept, where="post", linewidth=1, label="front")
    groups = sorted({(policy.bits, bool(policy.shape.sparsity)) for policy in policies}, reverse=True)
    for bits, sparse in groups:
        some = [policy for policy in policies if (policy.bits, bool(policy.shape.sparsity)) == (bits, sparse)]
        errors = [[abs(policy.kept - policy.interval[side]) for policy in some] for side in (0, 1)]
        axis.errorbar(
            [getattr(policy, size) for policy in some], [policy.kept for policy in some], yerr=errors, linestyle="none",
            marker=_MARKERS.get(bits, "D"), markersize=5, capsize=2, elinewidth=0.7,
            color="tab:blue" if sparse else "tab:orange", label=f"{'sparse' if sparse else 'dense'}, {bits} bits",
        )  # fmt: skip
    axis.plot([getattr(best, size)], [best.kept], "o", markersize=12, fillstyle="none", color="black", label="chosen")
    axis.axhline(1.0, color="gray", linewidth=0.8, linestyle=":", label="teacher")
    if target.keep is not None:
        axis.axhline(target.keep, color="tab:red", linewidth=0.8, linestyle="--", label=f"keep={target.keep:g}")
    if target.flash is not None:
        axis.axvline(target.flash, color="tab:red", linewidth=0.8, linestyle="--", label=f"flash={target.flash:,}")
    axis.set_xscale("log")
    axis.set_xlabel("bytes of the C header in flash" if size == "flash" else "bytes of the compact file")
    axis.set_ylabel(f"share of the teacher's return, {episodes} episodes")
    axis.legend(fontsize=7, ncols=2)
    figure.savefig(path, dpi=120)
