"""Shapes and forms of the students of ``sizes.py``, what is published of their tasks, and the figure of all of them."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.shared.store import Result

BITS = (8, 4, 3, 2)
#: How students are exported that were trained with float weights, which say what rounding costs; and those that were trained
#: with the bits that they are exported with.
ROUNDED = {"float": 32} | {f"{bits} bits": bits for bits in BITS}
TRAINED = {f"{bits} bits, trained": bits for bits in BITS[1:]}
#: Hidden layers and sparsities by family, the first ones first: a result that is not complete has these.
FAMILIES: dict[str, list[str]] = {
    "256x256, pruned": ["256x256-95", "256x256-98", "256x256-99", "256x256-90"],
    "smaller, pruned": ["64x64-80", "128x128-90", "128x128-95", "64x64-90"],
    "small, dense": ["16x16-0", "32x32-0", "64x64-0", "8x8-0"],
}
COLORS = dict(zip(FAMILIES, ("tab:blue", "tab:green", "tab:orange"), strict=True))
MARKERS = dict(zip(BITS, "os^v", strict=True))
#: The smallest actors of SAC that keep 0.95 or 1.00 of a float 256x256 one, trained from scratch with quantized weights and
#: activations (Kresse and Lampert 2025, arXiv 2511.07046; from the raw results of arXiv 2512.01467, best of about 50 cells).
PUBLISHED = [
    {"task": "Hopper", "layers": [11, 8, 8, 3], "bits": 8, "keeps": 1.0},
    {"task": "HalfCheetah", "layers": [17, 128, 128, 6], "bits": 8, "keeps": 0.95},
    {"task": "HalfCheetah", "layers": [17, 256, 256, 6], "bits": 7, "keeps": 1.0},
]


def published(name: str) -> list[dict[str, Any]]:
    """
    :param name: Name of an agent.
    :return: What is published for its task, with the bytes of the packed weights alone
    """
    found = [point for point in PUBLISHED if point["task"] in name]
    pairs = [zip(point["layers"][:-1], point["layers"][1:], strict=True) for point in found]
    return [
        {**point, "nbytes": sum(inputs * outputs for inputs, outputs in each) * point["bits"] // 8}
        for point, each in zip(found, pairs, strict=True)
    ]


def find_points(result: dict[str, Any], name: str, shapes: list[str]) -> list[tuple[float, float, str]]:
    """
    :param result: The result.
    :param name: Name of an agent.
    :param shapes: Shapes of one family.
    :return: Bytes, share of the return and form of its students in few bits, the smallest first; a negative share is 0
    """
    parts = [(key.split("/"), key) for key in result["students"]]
    return sorted(
        (float(np.mean(result["students"][key]["nbytes"])), max(0.0, result["ratios"][key]), form)
        for (agent, shape, form), key in parts
        if agent == name and shape in shapes and form != "float"
    )


def draw(result: Result) -> Figure:
    """
    :param result: What was measured.
    :return: Return over the teacher's by bytes, one panel per agent
    """
    names = list(result["teachers"])
    rows = -(-len(names) // 2)
    figure = Figure(figsize=(10, 3.6 * rows + 0.8))
    axes = figure.subplots(rows, 2, squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, names, strict=False):
        for family, color in COLORS.items():
            points = find_points(result, name, FAMILIES[family])
            for size, share, form in points:
                fill = color if form in TRAINED else "none"
                axis.plot(size, share, MARKERS[int(form[0])], color=color, markerfacecolor=fill, markersize=5, linestyle="")
            # What the family keeps in so many bytes.
            shares = np.maximum.accumulate([share for _, share, _ in points] or [0.0])[: len(points)]
            axis.step([size for size, _, _ in points], shares, where="post", color=color, linewidth=1)
        for point in published(name):
            axis.plot(point["nbytes"], point["keeps"], "*", color="tab:red", markersize=11, markerfacecolor="none")
        axis.axhline(1.0, color="tab:gray", linewidth=0.8)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.set(xlabel="bytes", ylabel="return / teacher's", ylim=(0.0, max(1.1, axis.get_ylim()[1])))
        axis.set_title(name, fontsize=9)
    handles = [Line2D([], [], color=color, label=family) for family, color in COLORS.items()]
    empty = {"color": "black", "linestyle": "", "markerfacecolor": "none"}
    handles += [Line2D([], [], **empty, marker=marker, label=f"{bits} bits") for bits, marker in MARKERS.items()]
    if any("trained" in key for key in result["students"]):
        handles += [Line2D([], [], color="black", marker="s", linestyle="", label="filled: trained with these bits")]
    label = "published, another measure: packed weights alone, agents trained from scratch"
    handles += [Line2D([], [], color="tab:red", marker="*", markerfacecolor="none", linestyle="", label=label)]
    figure.legend(handles=handles, loc="lower center", ncols=4, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.75 / (3.6 * rows + 0.8), 1, 1))
    return figure
