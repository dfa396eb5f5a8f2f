"""
Dense, static, SET and RigL: TD3 from the recipes ``td3_{dense,static,set,rigl}``, sparse from the first step to the last.

    python benchmarks/dynamic.py --seeds 3 --json benchmarks/results/dynamic_td3_inverted_double_pendulum.json \\
        --png benchmarks/results/dynamic_td3_inverted_double_pendulum.png

Every agent is trained by rl-zoo3 and evaluated on the same episodes. Two scores: the return in the end, and the mean return
of the twenty evaluations during training, which says how fast it was learnt (the learning curve area of DS-TD3). A method's
score is the mean over seeds, with Student's t interval (95 %: mean +- t s / sqrt(n) of n seeds), and Welch's for the
difference from dense. A percentile bootstrap would lie within the range of the seeds, too narrow for so few. Runs are kept,
and a second call trains only what is missing; two at a time, one thread each.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch as th
from intervals import difference_interval, mean_interval
from report import store
from rich.console import Console
from rich.table import Table
from runs import Run, learning_curve, load, returns_of, train

from sb3_sparse import summarize, topology_history
from sb3_sparse.cost import Training
from sb3_sparse.zoo import find_recipe, read_recipe

METHODS = ("static", "set", "rigl")
COLORS = {"dense": "tab:gray", "static": "tab:orange", "set": "tab:blue", "rigl": "tab:green"}


def make_runs(env: str, sparsities: list[float], steps: int, seeds: range, root: Path) -> dict[str, list[Run]]:
    """
    :param env: Environment, one of the recipes'.
    :param sparsities: Shares of zeros of the hidden layers, for each of the methods.
    :param steps: Environment steps.
    :param seeds: Seeds.
    :param root: Where the runs are kept.
    :return: The runs of each contestant, such as "set 90%"
    """
    contestants = {"dense": ("dense", None)}
    contestants |= {f"{method} {sparsity:.0%}": (method, sparsity) for sparsity in sparsities for method in METHODS}
    return {
        name: [Run("td3", env, recipe, sparsity, seed, steps, root, eval_episodes=5, flush=True) for seed in seeds]
        for name, (recipe, sparsity) in contestants.items()
    }


def evaluate(run: Run, episodes: int) -> dict[str, object]:
    """
    :param run: A finished run.
    :param episodes: Number of evaluation episodes.
    :return: Returns of the agent, what its networks cost, and what they have explored
    """
    model = load(run)
    summary = summarize(model)
    callbacks = read_recipe(find_recipe(run.algo, run.recipe))[run.env].get("callback", [])
    rewiring = {name: value for callback in callbacks for name, value in callback.items()}.get("sb3_sparse.RewiringCallback")
    # Only RigL needs dense gradients, once per rewiring, here as if until the end of the run.
    grow_freq = None
    if rewiring and rewiring["grow"] == "gradient":
        grow_freq = updates_between(rewiring["update_freq"], summary.training, rewiring["network"])
    history = topology_history(model)
    return {
        "seed": run.seed,
        "returns": returns_of(run, model, episodes),
        "area": round(float(learning_curve(run)[1].mean()), 2),
        "connections": summary.connections,
        "total": summary.total,
        "active_neurons": summary.active_neurons,
        "neurons": summary.neurons,
        "training_flops": summary.training_flops(run.steps, grow_freq=grow_freq),
        "explored": {network: round(float(columns["explored"][-1]), 4) for network, columns in history.items()},
        "rewirings": {network: len(columns["timestep"]) for network, columns in history.items()},
    }


def updates_between(steps: int, training: Training, networks: list[str]) -> dict[str, int]:
    """
    :param steps: Environment steps between two rewirings.
    :param training: How the model uses samples.
    :param networks: Names of networks.
    :return: Updates of each network between two rewirings; an actor with a delay of 2 has half as many
    """
    updates = steps * (training.updates_per_step or 1.0)
    return {network: max(1, round(updates / training.delays.get(network, 1))) for network in networks}


def rounded(values: list[float] | None) -> str:
    """Whole numbers, for the table; one seed has no interval."""
    return "" if values is None else f"{[round(value) for value in values]}"


def compare(agents: dict[str, list[dict]], score: str) -> dict[str, dict]:
    """
    :param agents: What :func:`evaluate` found, by contestant.
    :param score: "returns" or "area".
    :return: By contestant: mean score of each seed, their mean and interval, and that of the difference from dense
    """
    means = {name: np.array([np.mean(agent[score]) for agent in found]) for name, found in agents.items()}
    return {
        name: {
            "seeds": [round(float(value), 2) for value in values],
            "mean": round(float(values.mean()), 2),
            "interval": mean_interval(values),
            "difference": round(float(values.mean() - means["dense"].mean()), 2),
            "difference_interval": difference_interval(values, means["dense"]) if name != "dense" else [0.0, 0.0],
        }
        for name, values in means.items()
    }


def print_table(agents: dict[str, list[dict]], final: dict[str, dict], area: dict[str, dict]) -> None:
    """
    :param agents: What :func:`evaluate` found, by contestant.
    :param final: What :func:`compare` found of the returns in the end.
    :param area: And of the learning curves.
    """
    table = Table(title=f"{len(agents['dense'])} seeds, {len(agents['dense'][0]['returns'])} episodes each")
    for column in (
        "agent",
        "final return [95 %]",
        "mean of curve [95 %]",
        "minus dense [95 %]",
        "connections",
        "active",
        "ever active",
        "FLOPs",
    ):
        table.add_column(column, justify="right")
    dense_flops = agents["dense"][0]["training_flops"]
    for name, found in agents.items():
        first = found[0]
        explored = [
            f"{network} {np.mean([agent['explored'][network] for agent in found]):.2f}" for network in first["explored"]
        ]
        table.add_row(
            name,
            f"{final[name]['mean']:,.0f} {rounded(final[name]['interval'])}",
            f"{area[name]['mean']:,.0f} {rounded(area[name]['interval'])}",
            f"{area[name]['difference']:+,.0f} {rounded(area[name]['difference_interval'])}",
            f"{first['connections']:,} of {first['total']:,}",
            f"{np.mean([agent['active_neurons'] for agent in found]):.0f} of {first['neurons']}",
            ", ".join(explored),
            f"{first['training_flops'] / dense_flops:.2f}",
        )
    Console(width=180).print(table)


def draw(runs: dict[str, list[Run]], sparsities: list[float], png: Path) -> None:
    """
    Draw the learning curves, one panel for each sparsity, and what the networks have explored.

    :param runs: Finished runs by contestant.
    :param sparsities: The sparsities.
    :param png: Where to write the figure.
    """
    figure, axes = plt.subplots(1, len(sparsities) + 1, figsize=(5 * (len(sparsities) + 1), 4.2))
    for panel, sparsity in zip(axes, sparsities, strict=False):
        for method in ("dense", *METHODS):
            found = [learning_curve(run) for run in runs["dense" if method == "dense" else f"{method} {sparsity:.0%}"]]
            steps, curves = found[0][0], np.array([curve for _, curve in found])
            # An agent learns within one evaluation or two: an interval would hide it.
            panel.plot(steps, curves.T, color=COLORS[method], linewidth=0.7, alpha=0.6)
            panel.plot(steps, curves.mean(axis=0), color=COLORS[method], linewidth=2, label=method)
        panel.set(title=f"{sparsity:.0%} of the hidden weights zero", xlabel="environment steps")
        panel.legend()
    axes[0].set_ylabel(f"evaluation return: {len(runs['dense'])} seeds, and their mean")
    for method in ("set", "rigl"):
        for sparsity, style in zip(sparsities, ("-", "--", ":"), strict=False):
            for network, width in (("actor", 1), ("critic", 2.5)):
                history = topology_history(load(runs[f"{method} {sparsity:.0%}"][0]))
                if network in history:
                    steps, explored = history[network]["timestep"], history[network]["explored"]
                    label = f"{method} {sparsity:.0%}, {network}"
                    axes[-1].plot(steps, explored, style, color=COLORS[method], linewidth=width, label=label)
    axes[-1].set(title="weights that have ever existed, first seed", xlabel="environment steps", ylim=(0, 1.02))
    if axes[-1].lines:
        axes[-1].legend(fontsize="small")
    figure.suptitle(f"TD3 on {runs['dense'][0].env}")
    figure.tight_layout()
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=110)


def main() -> None:
    """Train, evaluate, print, draw and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="InvertedDoublePendulum-v4", help="environment, one of the recipes' (%(default)s)")
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.5, 0.9], help="shares of zeros (%(default)s)")
    parser.add_argument("--steps", type=int, help="environment steps; those of the recipe by default")
    parser.add_argument("--seeds", type=int, default=3, help="number of training seeds, from 1 on (%(default)s)")
    parser.add_argument("--episodes", type=int, default=20, help="evaluation episodes per agent (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="training runs at a time (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("logs/dynamic"), help="where the runs are kept")
    parser.add_argument("--png", type=Path, help="where to draw the figure; in the folder by default")
    parser.add_argument("--json", type=Path, help="where to store the result")
    parser.add_argument(
        "--quick", action="store_true", help="1,500 steps, one seed, 90 %%: a check that it works, not a result"
    )
    args = parser.parse_args()
    th.set_num_threads(1)
    steps = args.steps or int(read_recipe(find_recipe("td3", "dense"))[args.env]["n_timesteps"])
    if args.quick:
        steps, args.seeds, args.sparsities, args.episodes = 1500, 1, [0.9], 2
    runs = make_runs(args.env, args.sparsities, steps, range(1, args.seeds + 1), args.folder)
    # Seed by seed, so that what is there after an interruption can be compared.
    train([run for seed in zip(*runs.values(), strict=True) for run in seed], args.jobs)
    agents = {name: [evaluate(run, args.episodes) for run in contestant] for name, contestant in runs.items()}
    final, area = compare(agents, "returns"), compare(agents, "area")
    print_table(agents, final, area)
    png = args.png or args.folder / f"td3_{args.env}.png"
    draw(runs, args.sparsities, png)
    print(f"learning curves and exploration: {png}")
    if args.json:
        stored = {
            "ratios": {name: round(score["mean"] / final["dense"]["mean"], 4) for name, score in final.items()},
            "intervals": {name: score["interval"] for name, score in final.items()},
            "final_return": final,
            "learning_curve_area": area,
            "command": f"python benchmarks/dynamic.py --env {args.env} --sparsities {' '.join(map(str, args.sparsities))} "
            f"--steps {steps} --seeds {args.seeds} --episodes {args.episodes}",
            "steps": steps,
            "agents": agents,
        }
        store(args.json, stored)


if __name__ == "__main__":
    main()
