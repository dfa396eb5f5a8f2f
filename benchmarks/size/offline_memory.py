"""
What BCQ's networks take in memory, dense and pruned before their first update: table 1 and figures 3 and 4 of Arnob et al.
2021, "Single-Shot Pruning for Offline RL" (arXiv 2112.15579).

    python -m benchmarks.size.offline_memory --dataset tqc/halfcheetah/expert-v0 \\
        --json benchmarks/results/offline_memory.json \\
        --png benchmarks/results/offline_memory

Networks of HalfCheetah's sizes: 17 observations, 6 actions, BCQ's defaults. Megabytes are millions of bytes, of these files:

- dense: ``torch.save`` of the state dict.
- COO: ``torch.save`` of every parameter as a sparse tensor, biases too. 20 bytes per weight and 12 per bias, and a zero is not
  stored: this is what the paper measures, "dense in COO" being its row "sparse indexing".
- CSR16: ``torch.save`` of weights with 32-bit row starts and 16-bit columns, and of the biases. Lossless.
- int8: the compact file of this package, with indices, scales and 16-bit biases. Weights are rounded to 8 bits, dead units are
  removed. The two Q-networks are two files, and so are encoder and decoder.

The bytes of COO and CSR16 follow from the number of weights, those of int8 depend on the masks as well. The paper's files of
GraSP are smaller than those of SNIP, though both hold as many weights: some biases must be exactly zero there, and COO drops
them. That is what becomes of biases that begin at zero, as they do in GraSP's own code: a unit without a way in or out never
trains its bias. Rows with "zero biases" begin so, and are measured after ``--updates``; in all others biases begin as PyTorch
draws them. The published figures of GraSP are nearer to the former, those of SNIP to the latter. None of this is written in
the paper: it is our explanation of the difference.

Figure 3, the share of weights that remain in each layer, depends on the data. Without ``--dataset`` they are random. It says
nothing of which weights: as HalfCheetah gives its observations, velocities are ten times as large as anything else, and SNIP
leaves next to no connection between the action and the value of it ("connections of the action"). Such a critic cannot choose,
its actor does not train, and BCQ acts as its VAE does. Normalized observations, of which the paper does not speak, prevent it.
"""

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure
from rich.progress import track

from benchmarks.shared.question import ask, option, table
from benchmarks.shared.store import Result
from benchmarks.size.offline_files import FORMS, SPARSITY, acting, action_inputs, file_size, pruned, random_data
from sb3_sparse import summarize
from sb3_sparse.offline import BCQ, OfflineAlgorithm, OfflineDataset
from sb3_sparse.sweeps.report.statistics import estimate_mean

NETWORKS = ("actor", "critic", "vae")
METHODS = {"snip": "SNIP", "grasp": "GraSP"}
#: Table 1 of the paper, in MB, by our name of the row.
ROWS = {
    "dense": "dense",
    "dense/coo": "dense, sparse indexing",
    **{f"{method}{biases}/coo": method for biases in ("", "_zero_biases") for method in METHODS},
}
_PUBLISHED = yaml.safe_load((Path(__file__).parents[1] / "published.yml").read_text())["results"]["offline_table_1"][
    "megabytes"
]
PAPER: dict[str, dict[str, float]] = {row: _PUBLISHED[name] for row, name in ROWS.items()}
TITLES = {
    "dense": "dense",
    "dense/coo": "dense in COO",
    "snip/coo": "SNIP",
    "grasp/coo": "GraSP",
    "snip_zero_biases/coo": "SNIP, zero biases",
    "grasp_zero_biases/coo": "GraSP, zero biases",
    **{f"{method}/{form.lower()}": f"{title}, {form}" for form in ("CSR16", "int8") for method, title in METHODS.items()},
}
SPARSITIES = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, SPARSITY]
COLORS = {"dense": "tab:gray", "coo": "tab:orange", "csr16": "tab:blue", "int8": "tab:green"}
Sizes = dict[str, dict[str, int]]


def sizes_of(model: OfflineAlgorithm, form: str) -> dict[str, int]:
    """
    :param model: A BCQ model.
    :param form: One of ``FORMS``.
    :return: Bytes by network
    """
    return {name: FORMS[form](model.policy.networks[name]) for name in NETWORKS}


def measure_seed(
    data: OfflineDataset, seed: int, updates: int
) -> tuple[Sizes, dict[str, dict[str, float]], dict[str, list[int]]]:
    """
    :param data: The dataset.
    :param seed: Seed.
    :param updates: Updates of the rows with zero biases.
    :return: Bytes by row and network; by method, the share of weights that remain in each layer; and by method, connections of
        the action in each Q-network
    """
    dense = BCQ("MlpPolicy", data, seed=seed, device="cpu")
    sizes = {"dense": {name: file_size(dense.policy.networks[name].state_dict()) for name in NETWORKS}}
    sizes["dense/coo"] = sizes_of(dense, "coo")
    remaining, actions = {}, {}
    for method in METHODS:
        model = pruned(data, seed, method)
        sizes |= {f"{method}/{form}": sizes_of(model, form) for form in FORMS}
        layers = {path: layer for net in summarize(model).networks.values() for path, layer in net.layers.items()}
        remaining[method] = {path: layer.connections / layer.total for path, layer in layers.items()}
        actions[method] = action_inputs(model)
        trained = pruned(data, seed, method, zero_biases=True, updates=updates)
        sizes[f"{method}_zero_biases/coo"] = sizes_of(trained, "coo")
    return {row: sizes[row] for row in TITLES}, remaining, actions


def seedwise(found: list[Sizes], row: str, network: str) -> np.ndarray:
    """Bytes of a cell, by seed."""
    return np.array([sizes[row][network] for sizes in found])


def off(row: str, network: str, nbytes: float) -> float:
    """How far bytes are from the paper's, as a share of these."""
    return nbytes / 1e6 / PAPER[row][network] - 1


def interval(values: np.ndarray) -> list[float] | None:
    """Student's t interval of the mean over seeds, 95 %; None of one seed."""
    bounds = estimate_mean(values).interval
    return None if bounds is None else [round(bound, 4) for bound in bounds]


def sweep(data: OfflineDataset, sparsities: list[float]) -> dict[str, dict[str, list[int]]]:
    """
    :param data: The dataset.
    :param sparsities: Shares of zeros.
    :return: Bytes by form and network, one for each sparsity, pruned by SNIP
    """
    models = [pruned(data, 0, "snip", sparsity) for sparsity in track(sparsities, "pruning")]
    found = {form: [sizes_of(model, form) for model in models] for form in FORMS}
    return {form: {name: [sizes[name] for sizes in parts] for name in NETWORKS} for form, parts in found.items()}


def measure(args: Namespace) -> Result:
    """
    :param args: The dataset, seeds and updates, and whether to be quick.
    :return: Bytes of all files, what remains of each layer, and the curves over the sparsity
    """
    data = OfflineDataset.from_minari(args.dataset) if args.dataset else random_data()
    sparsities = [0.0, 0.9, SPARSITY] if args.quick else SPARSITIES
    measured = [measure_seed(data, seed, args.updates) for seed in track(range(args.seeds), "seeds")]
    found, remaining, actions = (list(part) for part in zip(*measured, strict=True))
    cells = [(row, network) for row in TITLES for network in NETWORKS]
    ratios = {f"{row}/{net}": seedwise(found, "dense", net) / seedwise(found, row, net) for row, net in cells}
    published = [(row, network) for row, network in cells if row in PAPER]
    return {
        "ratios": {cell: round(float(values.mean()), 4) for cell, values in ratios.items()},
        "intervals": {cell: interval(values) for cell, values in ratios.items()},
        "bytes": {f"{row}/{net}": seedwise(found, row, net).tolist() for row, net in cells},
        "published_mb": {f"{row}/{net}": PAPER[row][net] for row, net in published},
        "off_published": {f"{row}/{net}": round(off(row, net, seedwise(found, row, net).mean()), 5) for row, net in published},
        "acting_policies": acting(data, args.updates),
        "figure_3": {
            method: {path: [round(seed[method][path], 5) for seed in remaining] for path in remaining[0][method]}
            for method in METHODS
        },
        "connections_of_the_action": {method: [seed[method] for seed in actions] for method in METHODS},
        "figure_4": {"sparsities": sparsities, "bytes": sweep(data, sparsities)},
        "dataset": args.dataset or "random data",
        "transitions": len(data),
        "seeds": args.seeds,
        "updates": args.updates,
    }


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: The paper's table with ours, connections of the action, and files of policies that act
    """
    yield f"masks found on {result['dataset']}: {result['transitions']:,} transitions"
    rows = []
    for row, title in TITLES.items():
        cells = []
        for key in (f"{row}/{network}" for network in NETWORKS):
            paper = f" ({result['off_published'][key]:+.2%})" if key in result["off_published"] else ""
            cells.append(f"{np.mean(result['bytes'][key]) / 1e6:.5f}{paper} {result['ratios'][key]:5.2f}x")
        rows.append((title, *cells))
    yield table(
        "MB of each network, how far that is from the paper's table 1, and how many times less than dense",
        ("", *NETWORKS),
        rows,
    )
    for method, connections in result["connections_of_the_action"].items():
        yield f"{METHODS[method]}: connections of the action in the two Q-networks, by seed: {connections}"
    for policy, nbytes in result["acting_policies"].items():
        yield f"acting policy {policy}, SNIP: " + ", ".join(f"{form} {size:,} bytes" for form, size in nbytes.items())


def draw(result: Result) -> dict[str, Figure]:
    """
    :param result: What was measured.
    :return: The paper's figures 3 and 4
    """
    return {"figure3": draw_layers(result), "figure4": draw_memory(result)}


def draw_memory(result: Result) -> Figure:
    """
    :param result: What was measured.
    :return: The bytes over the sparsity: figure 4
    """
    figure, axes = _panels((13, 4.2))
    labels = {"coo": "COO, as in the paper", "csr16": "CSR16", "int8": "int8, compact file"}
    curves: dict[str, Any] = result["figure_4"]
    for panel, name in zip(axes, NETWORKS, strict=True):
        panel.axhline(result["bytes"][f"dense/{name}"][0] / 1e6, color=COLORS["dense"], label="dense")
        for form, by_network in curves["bytes"].items():
            megabytes = np.array(by_network[name]) / 1e6
            panel.plot(curves["sparsities"], megabytes, "o-", ms=3, color=COLORS[form], label=labels[form])
        panel.plot(
            [0, SPARSITY], [PAPER["dense/coo"][name], PAPER["snip/coo"][name]], "x", ms=9, color="black", label="published"
        )
        panel.set(title=name, xlabel="sparsity (SNIP)", yscale="log")
    axes[0].set_ylabel("MB")
    axes[0].legend(fontsize="small")
    figure.suptitle("Files of BCQ's networks (17 observations, 6 actions)")
    return figure


def draw_layers(result: Result) -> Figure:
    """
    :param result: What was measured.
    :return: The share of weights that remain in each layer, mean and standard deviation over seeds: figure 3
    """
    figure, axes = _panels((15, 4.6), width_ratios=(3, 6, 7))
    for panel, name in zip(axes, NETWORKS, strict=True):
        layers = [path for path in result["figure_3"]["snip"] if path.startswith(f"{name}.")]
        for side, (method, title) in enumerate(METHODS.items()):
            shares = 100 * np.array([result["figure_3"][method][path] for path in layers])
            places = np.arange(len(layers)) + 0.4 * (side - 0.5)
            panel.bar(places, shares.mean(axis=1), 0.4, yerr=shares.std(axis=1), capsize=3, label=title)
        panel.axhline(100 * (1 - SPARSITY), color="gray", linewidth=0.8, linestyle="--")
        panel.set_xticks(range(len(layers)), [path.removeprefix(f"{name}.") for path in layers], rotation=40, ha="right")
        panel.set(title=name)
    axes[0].set_ylabel("% of the weights that remain")
    axes[0].legend()
    figure.suptitle(
        f"95 % pruned before training: mean and standard deviation of {result['seeds']} seeds, {result['dataset']}"
    )
    return figure


def _panels(size: tuple[float, float], **kwargs: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(1, len(NETWORKS), gridspec_kw=kwargs)


if __name__ == "__main__":
    ask(
        measure,
        option("--dataset", None, "id of a Minari dataset with 17 observations and 6 actions; random data by default"),
        option("--seeds", 5, "number of seeds, from 0 on", quick=1),
        option("--updates", 100, "updates of the rows with zero biases", quick=10),
        show=show,
        draw=draw,
        quick="three sparsities",
    )
