"""
Behaviour cloning and BCQ, dense and pruned before training by SNIP and GraSP: Figs. 1 and 2 of the offline-pruning paper
(Arnob et al. 2021), on experts' data that ``make_dataset.py`` has rolled out.

    python benchmarks/offline.py --bcq 0 --json benchmarks/results/offline_bc.json --png benchmarks/results/offline_bc.png

Every agent is trained by rl-zoo3 from the recipes ``{bc,bcq}_{dense,snip,grasp}`` and evaluated on the same episodes; the
score is its mean return over that of the dataset. Runs are kept, and a second call trains only what is missing. Results are
stored after every seed.
"""

import argparse
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import minari
import numpy as np
import torch as th
from intervals import half_width, mean_interval
from make_dataset import make_small
from report import store
from rich.console import Console
from rich.table import Table
from runs import Run, load, returns_of, train

from sb3_sparse import summarize
from sb3_sparse.offline import OfflineDataset

ALGORITHMS = ("bc", "bcq")
METHODS = ("snip", "grasp")
COLORS = {"snip": "tab:blue", "grasp": "tab:orange"}
#: Beside the recipes: a short run needs steps that get smaller.
SETTINGS = ["learning_rate:'lin_1e-3'"]
CLAIM = "the paper, 1M updates: dense-level returns up to 95 %, except BCQ on Hopper"


def contestants(sparsities: list[float], methods: list[str]) -> Iterator[tuple[str, str, float | None]]:
    """
    :param sparsities: Shares of zeros.
    :param methods: Recipes that prune.
    :return: Name, recipe and sparsity of each agent
    """
    yield "dense", "dense", None
    for sparsity, method in product(sparsities, methods):
        yield f"{method} {sparsity:.0%}", method, sparsity


def make_runs(
    datasets: dict[str, str],
    updates: dict[str, int],
    sparsities: list[float],
    methods: list[str],
    seed: int,
    root: Path,
    settings: list[str],
) -> dict[str, Run]:
    """
    :param datasets: Id of the dataset by environment.
    :param updates: Gradient updates by algorithm; those with none are left out.
    :param sparsities: Shares of zeros.
    :param methods: Recipes that prune.
    :param seed: Seed.
    :param root: Where the runs are kept.
    :param settings: Hyperparameters to overwrite.
    :return: The runs of one seed, by names such as "bc/HalfCheetah-v4/snip 90%"
    """
    return {
        f"{algo}/{env}/{name}": Run(
            algo,
            env,
            recipe,
            sparsity,
            seed,
            updates[algo],
            root,
            eval_episodes=1,
            flush=True,
            dataset=datasets[env],
            evaluations=2,
            hyperparams=tuple(settings),
        )
        for (name, recipe, sparsity), algo, env in product(contestants(sparsities, methods), ALGORITHMS, datasets)
        if updates[algo]
    }


def expert_return(dataset: str) -> float:
    """
    :param dataset: Id of a Minari dataset.
    :return: Mean return of its whole episodes: ``make_dataset.py`` may have cut the last one, and says what the others had
    """
    known = minari.load_dataset(dataset).storage.metadata.get("mean_return")
    return float(OfflineDataset.from_minari(dataset).episode_returns().mean() if known is None else known)


def evaluate(run: Run, episodes: int) -> dict[str, object]:
    """
    :param run: A finished run.
    :param episodes: Number of evaluation episodes.
    :return: Returns of the agent, and the weights that it has
    """
    model = load(run)
    networks = summarize(model).networks.items()
    weights = {name: [network.nonzero, network.total] for name, network in networks}
    return {"seed": run.seed, "returns": returns_of(run, model, episodes), "weights": weights}


def summarize_runs(agents: dict[str, list[dict]], experts: dict[str, float]) -> dict[str, dict]:
    """
    :param agents: What :func:`evaluate` found, by run.
    :param experts: Mean return of the dataset by environment.
    :return: By run: mean return of each seed, and their mean and interval as shares of the expert's
    """
    scores = {}
    for name, found in agents.items():
        returns = np.array([np.mean(agent["returns"]) for agent in found])
        shares = returns / experts[name.split("/")[1]]
        interval = mean_interval(100 * shares)
        scores[name] = {
            "returns": [round(float(value), 1) for value in returns],
            "share": round(float(shares.mean()), 4),
            "interval": None if interval is None else [round(bound / 100, 4) for bound in interval],
        }
    return scores


def print_table(scores: dict[str, dict], experts: dict[str, float]) -> None:
    """
    :param scores: What :func:`summarize_runs` found.
    :param experts: Mean return of the dataset by environment.
    """
    groups = list(dict.fromkeys(tuple(name.split("/")[:2]) for name in scores))
    table = Table(title="return in % of the expert's")
    table.add_column("agent")
    for algo, env in groups:
        table.add_column(f"{algo} {env}\n{experts[env]:,.0f}", justify="right")
    for agent in dict.fromkeys(name.split("/")[2] for name in scores):
        cells = [scores.get(f"{algo}/{env}/{agent}") for algo, env in groups]
        table.add_row(agent, *("" if cell is None else f"{100 * cell['share']:.1f}" for cell in cells))
    Console(width=140).print(table)


def draw(scores: dict[str, dict], experts: dict[str, float], sparsities: list[float], title: str, png: Path) -> None:
    """
    Draw the returns over sparsity, one panel for each algorithm and environment.

    :param scores: What :func:`summarize_runs` found.
    :param experts: Mean return of the dataset by environment.
    :param sparsities: The sparsities.
    :param title: What to write above.
    :param png: Where to write the figure.
    """
    groups = list(dict.fromkeys(tuple(name.split("/")[:2]) for name in scores))
    figure, axes = plt.subplots(1, len(groups), figsize=(4.2 * len(groups), 4.2), squeeze=False)
    for panel, (algo, env) in zip(axes[0], groups, strict=True):
        panel.axhline(100, color="tab:gray", linewidth=1, linestyle=":", label="expert")
        dense = scores[f"{algo}/{env}/dense"]
        panel.axhline(100 * dense["share"], color="black", linewidth=1, linestyle="--", label="dense")
        for method in [method for method in METHODS if f"{algo}/{env}/{method} {sparsities[0]:.0%}" in scores]:
            cells = [scores[f"{algo}/{env}/{method} {sparsity:.0%}"] for sparsity in sparsities]
            shares = [100 * np.array(cell["returns"]) / experts[env] for cell in cells]
            error = [float(half_width(values)) if len(values) > 1 else 0.0 for values in shares]
            means = [values.mean() for values in shares]
            panel.errorbar(
                [100 * sparsity for sparsity in sparsities],
                means,
                yerr=error,
                color=COLORS[method],
                marker="o",
                capsize=3,
                label=method,
            )
        panel.set(title=f"{algo.upper()}, {env}", xlabel="zero weights, %", ylim=(min(-5, panel.get_ylim()[0]), None))
    axes[0][0].set_ylabel("return, % of the expert's")
    axes[0][0].legend()
    figure.suptitle(title, fontsize="medium")
    figure.tight_layout()
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=110)


def main() -> None:
    """Train, evaluate, print, draw and store, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--datasets",
        nargs="+",
        default=["HalfCheetah-v4:tqc/halfcheetah/expert-v0", "Hopper-v4:tqc/hopper/expert-v0"],
        help="environment:id of a Minari dataset (%(default)s)",
    )
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.5, 0.8, 0.9, 0.95], help="(%(default)s)")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="(%(default)s)")
    parser.add_argument("--bc", type=int, default=12_000, help="updates of behaviour cloning; 0 leaves it out (%(default)s)")
    parser.add_argument("--bcq", type=int, default=4_000, help="updates of BCQ; 0 leaves it out (%(default)s)")
    parser.add_argument("--hyperparams", nargs="*", default=SETTINGS, help="beside the recipes' (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from 0 on (%(default)s)")
    parser.add_argument("--episodes", type=int, default=10, help="evaluation episodes per agent (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="training runs at a time (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("logs/offline"), help="where the runs are kept")
    parser.add_argument("--png", type=Path, help="where to draw the figure; in the folder by default")
    parser.add_argument("--json", type=Path, help="where to store the result")
    parser.add_argument(
        "--quick", action="store_true", help="BC on Pendulum, 300 updates: a check that it works, not a result"
    )
    args = parser.parse_args()
    th.set_num_threads(1)
    if args.quick:
        args.sparsities, args.bc, args.bcq, args.seeds, args.episodes = [0.9], 300, 0, 1, 1
        args.datasets = [f"Pendulum-v1:{make_small(args.folder / 'quick')[0].id}"]
    datasets = dict(entry.split(":", 1) for entry in args.datasets)
    experts = {env: expert_return(name) for env, name in datasets.items()}
    updates = {"bc": args.bc, "bcq": args.bcq}
    agents: dict[str, list[dict]] = {}
    for seed in range(args.seeds):
        runs = make_runs(datasets, updates, args.sparsities, args.methods, seed, args.folder, args.hyperparams)
        train(list(runs.values()), args.jobs)
        for name, run in runs.items():
            agents.setdefault(name, []).append(evaluate(run, args.episodes))
        scores = summarize_runs(agents, experts)
        print_table(scores, experts)
        done = ", ".join(f"{algo.upper()} {count:,} updates" for algo, count in updates.items() if count)
        png = args.png or args.folder / "offline.png"
        draw(scores, experts, args.sparsities, f"{done}, {seed + 1} seed{'s' if seed else ''} ({CLAIM})", png)
        if args.json:
            store(
                args.json,
                {
                    "ratios": {name: score["share"] for name, score in scores.items()},
                    "intervals": {name: score["interval"] for name, score in scores.items()},
                    "command": f"python benchmarks/offline.py --datasets {' '.join(args.datasets)} --bc {args.bc} "
                    f"--bcq {args.bcq} --sparsities {' '.join(map(str, args.sparsities))} "
                    f"--methods {' '.join(args.methods)} --seeds {args.seeds} "
                    f"--episodes {args.episodes}",
                    "updates": updates,
                    "hyperparams": args.hyperparams,
                    "expert_returns": experts,
                    "scores": scores,
                    "agents": agents,
                },
            )


if __name__ == "__main__":
    main()
