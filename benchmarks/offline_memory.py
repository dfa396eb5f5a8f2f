"""
What BCQ's networks take in memory, dense and pruned before their first update: table 1 and figures 3 and 4 of Arnob et al.
2021, "Single-Shot Pruning for Offline RL" (arXiv 2112.15579).

    python benchmarks/offline_memory.py --dataset tqc/halfcheetah/expert-v0 --json benchmarks/results/offline_memory.json \\
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

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch as th
from intervals import half_width
from offline_files import FORMS, SPARSITY, acting, action_inputs, file_size, pruned, random_data
from report import store
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sb3_sparse import summarize
from sb3_sparse.offline import BCQ, OfflineAlgorithm, OfflineDataset

NETWORKS = ("actor", "critic", "vae")
METHODS = {"snip": "SNIP", "grasp": "GraSP"}
#: Table 1 of the paper, in MB, by our name of the row.
PAPER = {
    "dense": {"actor": 0.5287, "critic": 1.04492, "vae": 4.7621},
    "dense/coo": {"actor": 2.6318, "critic": 5.2035, "vae": 23.7739},
    "snip/coo": {"actor": 0.14297, "critic": 0.2824, "vae": 1.2303},
    "grasp/coo": {"actor": 0.14099, "critic": 0.2768, "vae": 1.2122},
    "snip_zero_biases/coo": {"actor": 0.14297, "critic": 0.2824, "vae": 1.2303},
    "grasp_zero_biases/coo": {"actor": 0.14099, "critic": 0.2768, "vae": 1.2122},
}
TITLES = {
    "dense": "dense",
    "dense/coo": "dense in COO",
    "snip/coo": "SNIP",
    "grasp/coo": "GraSP",
    "snip_zero_biases/coo": "SNIP, zero biases",
    "grasp_zero_biases/coo": "GraSP, zero biases",
    **{f"{method}/{form.lower()}": f"{title}, {form}" for form in ("CSR16", "int8") for method, title in METHODS.items()},
}
COLORS = {"dense": "tab:gray", "coo": "tab:orange", "csr16": "tab:blue", "int8": "tab:green"}
Sizes = dict[str, dict[str, int]]


def sizes_of(model: OfflineAlgorithm, form: str) -> dict[str, int]:
    """
    :param model: A BCQ model.
    :param form: One of ``FORMS``.
    :return: Bytes by network
    """
    return {name: FORMS[form](model.policy.networks[name]) for name in NETWORKS}


def measure(data: OfflineDataset, seed: int, updates: int) -> tuple[Sizes, dict[str, dict[str, float]], dict[str, list[int]]]:
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
    half = float(half_width(values))
    return None if len(values) < 2 else [round(float(values.mean()) + sign * half, 4) for sign in (-1, 1)]


def print_table(found: list[Sizes]) -> None:
    """
    :param found: Bytes by seed, row and network.
    """
    table = Table(title="MB of each network, how far that is from the paper's table 1, and how many times less than dense")
    for column in ("", *NETWORKS):
        table.add_column(column, justify="right" if column else "left")
    for row, title in TITLES.items():
        cells = []
        for network in NETWORKS:
            nbytes, dense = (seedwise(found, which, network).mean() for which in (row, "dense"))
            paper = f" ({off(row, network, nbytes):+.2%})" if row in PAPER else ""
            cells.append(f"{nbytes / 1e6:.5f}{paper} {dense / nbytes:5.2f}x")
        table.add_row(title, *cells)
    Console(width=150).print(table)


def sweep(data: OfflineDataset, sparsities: list[float]) -> dict[str, dict[str, list[int]]]:
    """
    :param data: The dataset.
    :param sparsities: Shares of zeros.
    :return: Bytes by form and network, one for each sparsity, pruned by SNIP
    """
    models = [pruned(data, 0, "snip", sparsity) for sparsity in track(sparsities, "pruning")]
    found = {form: [sizes_of(model, form) for model in models] for form in FORMS}
    return {form: {name: [sizes[name] for sizes in parts] for name in NETWORKS} for form, parts in found.items()}


def draw_memory(sparsities: list[float], curves: dict[str, dict[str, list[int]]], dense: dict[str, int], png: Path) -> None:
    """
    Draw the bytes over the sparsity: figure 4.

    :param sparsities: Shares of zeros.
    :param curves: What :func:`sweep` has found.
    :param dense: Bytes of the dense files.
    :param png: Where to write the figure.
    """
    figure, axes = plt.subplots(1, len(NETWORKS), figsize=(13, 4.2))
    labels = {"coo": "COO, as in the paper", "csr16": "CSR16", "int8": "int8, compact file"}
    for panel, name in zip(axes, NETWORKS, strict=True):
        panel.axhline(dense[name] / 1e6, color=COLORS["dense"], label="dense")
        for form, by_network in curves.items():
            panel.plot(sparsities, np.array(by_network[name]) / 1e6, "o-", ms=3, color=COLORS[form], label=labels[form])
        paper = [PAPER["dense/coo"][name], PAPER["snip/coo"][name]]
        panel.plot([0, SPARSITY], paper, "x", ms=9, color="black", label="published")
        panel.set(title=name, xlabel="sparsity (SNIP)", yscale="log")
    axes[0].set_ylabel("MB")
    axes[0].legend(fontsize="small")
    _save(figure, "Files of BCQ's networks (17 observations, 6 actions)", png)


def draw_layers(remaining: list[dict[str, dict[str, float]]], data: str, png: Path) -> None:
    """
    Draw the share of weights that remain in each layer, mean and standard deviation over seeds: figure 3.

    :param remaining: By seed, method and layer.
    :param data: What the masks were found on.
    :param png: Where to write the figure.
    """
    figure, axes = plt.subplots(1, len(NETWORKS), figsize=(15, 4.6), width_ratios=(3, 6, 7))
    for panel, name in zip(axes, NETWORKS, strict=True):
        layers = [path for path in remaining[0]["snip"] if path.startswith(f"{name}.")]
        for side, (method, title) in enumerate(METHODS.items()):
            shares = 100 * np.array([[seed[method][path] for path in layers] for seed in remaining])
            places = np.arange(len(layers)) + 0.4 * (side - 0.5)
            panel.bar(places, shares.mean(axis=0), 0.4, yerr=shares.std(axis=0), capsize=3, label=title)
        panel.axhline(100 * (1 - SPARSITY), color="gray", linewidth=0.8, linestyle="--")
        panel.set_xticks(range(len(layers)), [path.removeprefix(f"{name}.") for path in layers], rotation=40, ha="right")
        panel.set(title=name)
    axes[0].set_ylabel("% of the weights that remain")
    axes[0].legend()
    _save(figure, f"95 % pruned before training: mean and standard deviation of {len(remaining)} seeds, {data}", png)


def _save(figure: plt.Figure, title: str, png: Path) -> None:
    figure.suptitle(title)
    figure.tight_layout()
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=110)
    print(f"figure: {png}")


def main() -> None:
    """Prune, measure, print, draw and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", help="id of a Minari dataset with 17 observations and 6 actions; random data by default")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0 on (%(default)s)")
    parser.add_argument("--updates", type=int, default=100, help="updates of the rows with zero biases (%(default)s)")
    parser.add_argument("--png", type=Path, help="where to draw: PNG_figure3.png and PNG_figure4.png")
    parser.add_argument("--json", type=Path, help="where to store the result")
    parser.add_argument("--quick", action="store_true", help="one seed, ten updates, three sparsities: a check, not a result")
    args = parser.parse_args()
    th.set_num_threads(1)
    data = OfflineDataset.from_minari(args.dataset) if args.dataset else random_data()
    name = args.dataset or "random data"
    print(f"masks found on {name}: {len(data):,} transitions")
    sparsities = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, SPARSITY]
    if args.quick:
        args.seeds, args.updates, sparsities = 1, 10, [0.0, 0.9, SPARSITY]
    measured = [measure(data, seed, args.updates) for seed in track(range(args.seeds), "seeds")]
    found, remaining, actions = (list(part) for part in zip(*measured, strict=True))
    print_table(found)
    for method, title in METHODS.items():
        print(f"{title}: connections of the action in the two Q-networks, by seed: {[seed[method] for seed in actions]}")
    policies = acting(data, args.updates)
    for policy, nbytes in policies.items():
        print(f"acting policy {policy}, SNIP: " + ", ".join(f"{form} {size:,} bytes" for form, size in nbytes.items()))
    curves = sweep(data, sparsities)
    if args.png:
        draw_layers(remaining, name, Path(f"{args.png}_figure3.png"))
        draw_memory(sparsities, curves, found[0]["dense"], Path(f"{args.png}_figure4.png"))
    if args.json:
        cells = [(row, network) for row in TITLES for network in NETWORKS]
        ratios = {f"{row}/{net}": seedwise(found, "dense", net) / seedwise(found, row, net) for row, net in cells}
        stored = {
            "ratios": {cell: round(float(values.mean()), 4) for cell, values in ratios.items()},
            "intervals": {cell: interval(values) for cell, values in ratios.items()},
            "bytes": {f"{row}/{net}": seedwise(found, row, net).tolist() for row, net in cells},
            "published_mb": {f"{row}/{net}": PAPER[row][net] for row, net in cells if row in PAPER},
            "off_published": {
                f"{row}/{net}": round(off(row, net, seedwise(found, row, net).mean()), 5) for row, net in cells if row in PAPER
            },
            "acting_policies": policies,
            "figure_3": {
                method: {path: [round(seed[method][path], 5) for seed in remaining] for path in remaining[0][method]}
                for method in METHODS
            },
            "connections_of_the_action": {method: [seed[method] for seed in actions] for method in METHODS},
            "figure_4": {"sparsities": sparsities, "bytes": curves},
            "dataset": name,
            "transitions": len(data),
            "seeds": args.seeds,
            "updates": args.updates,
        }
        store(args.json, stored)


if __name__ == "__main__":
    main()
