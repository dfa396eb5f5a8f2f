"""
A sparse agent beside its dense twin: both are trained with rl-zoo3 from one recipe, then evaluated on the same episodes.

    python benchmarks/twins.py                       # one seed: what `make demo` runs
    python benchmarks/twins.py --seeds 5 --json benchmarks/results/twins_sac_pendulum.json \\
        --png benchmarks/results/twins_sac_pendulum.png

The twin is the same recipe at sparsity 0, which trains bit-identically to the algorithm without a callback. Runs go to
a folder and are kept: a second call trains only what is missing, or was made by other code. Two runs at a
time, one thread each.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch as th
from intervals import bootstrap
from report import store
from rich.console import Console
from rich.table import Table
from runs import Run, load, returns_of, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_sparse import summarize
from sb3_sparse.zoo import find_recipe, read_recipe


def evaluate(run: Run, network: str, episodes: int) -> dict[str, object]:
    """
    :param run: A finished run.
    :param network: The pruned network.
    :param episodes: Number of evaluation episodes, each with its own seed.
    :return: Returns of the agent, and what its network costs; its parameters are written to a file to weigh it
    """
    model = load(run)
    returns = returns_of(run, model, episodes)
    cost = summarize(model).networks[network]
    if abs(cost.sparsity - run.sparsity) > 1e-3:
        raise RuntimeError(f"{run.name}: the {network} ends at a sparsity of {cost.sparsity}")
    file = run.folder / f"{network}.npz"
    np.savez_compressed(
        file, **{name: value.numpy() for name, value in model.policy.get_submodule(network).state_dict().items()}
    )
    return {
        "seed": run.seed,
        "sparsity": cost.sparsity,
        "returns": returns,
        "nonzero": cost.nonzero,
        "total": cost.total,
        "active_neurons": cost.active_neurons,
        "neurons": cost.neurons,
        "bytes": file.stat().st_size,
    }


def print_table(results: dict[str, list[dict]], network: str) -> None:
    """
    :param results: What :func:`evaluate` found, for "dense" and "sparse".
    :param network: The pruned network.
    """
    table = Table(title=f"{len(results['dense'])} seed(s), {len(results['dense'][0]['returns'])} episodes each, same seeds")
    for column in ("agent", "return", f"nonzero weights ({network})", "sparsity", "active neurons", "bytes on disk"):
        table.add_column(column, justify="right")
    for name, agents in results.items():
        returns = np.concatenate([agent["returns"] for agent in agents])
        first = agents[0]
        table.add_row(
            name,
            f"{returns.mean():.1f} ± {returns.std():.1f}",
            f"{first['nonzero']:,} of {first['total']:,}",
            f"{first['sparsity']:.4f}",
            f"{np.mean([agent['active_neurons'] for agent in agents]):.0f} of {first['neurons']}",
            f"{np.mean([agent['bytes'] for agent in agents]):,.0f}",
        )
    Console(width=120).print(table)


def draw(runs: list[Run], network: str, png: Path) -> None:
    """
    Draw the learning curves of the twins, and the sparsity that was logged while they learnt.

    :param runs: Finished runs.
    :param network: The pruned network.
    :param png: Where to write the figure.
    """
    figure, (curves, sparsities) = plt.subplots(2, 1, sharex=True, figsize=(7, 6), height_ratios=(2, 1))
    for name, color in (("dense", "tab:gray"), ("sparse", "tab:blue")):
        group = [run for run in runs if (run.sparsity == 0) == (name == "dense")]
        evaluations = [np.load(run.folder / "evaluations.npz") for run in group]
        steps = evaluations[0]["timesteps"]
        means = np.array([evaluation["results"].mean(axis=1) for evaluation in evaluations])
        spread = means.std(axis=0) if len(group) > 1 else evaluations[0]["results"].std(axis=1)
        curves.plot(steps, means.mean(axis=0), color=color, label=name)
        curves.fill_between(steps, means.mean(axis=0) - spread, means.mean(axis=0) + spread, color=color, alpha=0.2)
        log = EventAccumulator(str(next((group[0].logs / "tensorboard").rglob("events.out.*")).parent)).Reload()
        points = log.Scalars(f"sparsity/{network}")
        sparsities.plot([point.step for point in points], [point.value for point in points], color=color)
    over = f"{len(runs) // 2} seeds" if len(runs) > 2 else "the 10 evaluation episodes of one seed"
    curves.set(title=f"{runs[0].algo} on {runs[0].env}\nmean ± std over {over}", ylabel="evaluation return")
    curves.legend()
    sparsities.set(xlabel="environment steps", ylabel=f"sparsity of the {network}", ylim=(0, 1))
    figure.tight_layout()
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=120)


def recipe_defaults(algo: str, recipe: str, env: str) -> tuple[str, float, int]:
    """
    :param algo: rl-zoo3's name of the algorithm.
    :param recipe: Name of the recipe.
    :param env: Environment.
    :return: What the recipe prunes, how far, and how many steps it trains
    """
    hyperparams = read_recipe(find_recipe(algo, recipe))[env]
    arguments = next(iter(hyperparams["callback"][0].values()))
    return arguments["network"], arguments["final_sparsity"], int(hyperparams["n_timesteps"])


def main() -> None:
    """Train, evaluate, print, draw and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", default="sac", help="rl-zoo3's name of the algorithm")
    parser.add_argument("--env", default="Pendulum-v1", help="environment, one of the recipe's")
    parser.add_argument("--recipe", default="gmp", help="name of the recipe; it must prune one network")
    parser.add_argument("--sparsity", type=float, help="share of zeros; that of the recipe by default")
    parser.add_argument("--steps", type=int, help="environment steps; those of the recipe by default")
    parser.add_argument("--seeds", type=int, default=1, help="number of training seeds, from 1 on")
    parser.add_argument("--episodes", type=int, default=30, help="evaluation episodes per agent")
    parser.add_argument("--jobs", type=int, default=2, help="training runs at a time")
    parser.add_argument("--folder", type=Path, default=Path("logs/twins"), help="where the runs are kept")
    parser.add_argument("--png", type=Path, help="where to draw the figure; in the folder by default")
    parser.add_argument("--json", type=Path, help="where to store the result")
    parser.add_argument("--quick", action="store_true", help="1,500 steps, one seed: a check that it works, not a result")
    args = parser.parse_args()
    th.set_num_threads(1)
    network, sparsity, steps = recipe_defaults(args.algo, args.recipe, args.env)
    sparsity = sparsity if args.sparsity is None else args.sparsity
    steps = 1500 if args.quick else args.steps or steps
    seeds = range(1, 2 if args.quick else args.seeds + 1)
    runs = [
        Run(args.algo, args.env, args.recipe, share, seed, steps, args.folder) for seed in seeds for share in (0.0, sparsity)
    ]
    train(runs, args.jobs)
    results = {
        name: [evaluate(run, network, args.episodes) for run in runs if (run.sparsity == 0) == (name == "dense")]
        for name in ("dense", "sparse")
    }
    print_table(results, network)
    png = args.png or args.folder / f"{args.algo}_{args.env}_{args.recipe}.png"
    draw(runs, network, png)
    print(f"learning curves and sparsity: {png}")
    means = {name: np.array([np.mean(agent["returns"]) for agent in agents]) for name, agents in results.items()}
    difference, interval = bootstrap(means["dense"], means["sparse"])
    if len(seeds) > 1:
        print(
            f"difference of the mean returns over {len(seeds)} seeds, sparse - dense: {difference:.1f}, "
            f"95 % interval {interval}; spread of the dense seeds (std): {means['dense'].std(ddof=1):.1f}"
        )
    if args.json:
        first = {name: agents[0] for name, agents in results.items()}
        stored = {
            "ratios": {key: round(first["dense"][key] / first["sparse"][key], 2) for key in ("nonzero", "bytes")},
            "intervals": {"return_difference": interval},
            "return_difference": round(difference, 3),
            "mean_returns": {name: [round(float(value), 3) for value in values] for name, values in means.items()},
            "command": f"python benchmarks/twins.py --algo {args.algo} --env {args.env} --recipe {args.recipe} "
            f"--sparsity {sparsity} --steps {steps} --seeds {len(seeds)} --episodes {args.episodes}",
            "steps": steps,
            "seeds": list(seeds),
            "agents": results,
        }
        store(args.json, stored)


if __name__ == "__main__":
    main()
