"""
Returns of pruned and of pruned and quantized DQN over sparsities, on MinAtar: figure 5 of the compression paper (Ivanov et al.
2025) on games that are learnt in minutes.

    python benchmarks/pixels.py --seeds 3 --json benchmarks/results/pixels.json --png benchmarks/results/pixels.png

As in the paper, a network is pruned between 20 and 80 % of the steps, judged at 100 % (pruned), trained with 8-bit weights for
another 20 %, and judged again (quantized): one run of the recipe ``dqn_gmp_qat`` gives both, the first from a checkpoint. The
run at sparsity 0 gives the dense and the quantized-only agent. Because a quantized agent has trained for longer, it is
compared with a dense control of 120 % of the steps; without one (``--no-control``) with the dense agent of 100 %. A score is
the mean over seeds, with Student's t interval, and Welch's for the difference. Runs are kept, and a second call trains only
what is missing.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch as th
from intervals import difference_interval, half_width, mean_interval
from report import store
from rich.console import Console
from rich.table import Table
from runs import Run, learning_curve, load, load_checkpoint, returns_of, train
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_sparse import compress, summarize
from sb3_sparse.zoo import find_recipe, read_recipe

#: As in the paper's figure.
COLORS = {"pruned": "tab:blue", "quantized": "tab:red"}


def make_runs(
    env: str, sparsities: list[float], steps: int, seeds: range, root: Path, *, control: bool
) -> dict[str, list[Run]]:
    """
    :param env: One of MinAtar's games.
    :param sparsities: Shares of zeros.
    :param steps: Environment steps before the quantization, a multiple of 16.
    :param seeds: Seeds.
    :param root: Where the runs are kept.
    :param control: Whether there is a dense control of 120 % of the steps.
    :return: The runs of each sparsity, such as "0.9", and those of the "control"
    """
    longer = steps * 6 // 5

    def run(recipe: str, sparsity: float | None, seed: int, *hyperparams: str) -> Run:
        # Evaluations for the learning curve.
        options = {"eval_episodes": 10, "flush": True, "evaluations": 12, "hyperparams": hyperparams, "save_freq": steps}
        return Run("dqn", env, recipe, sparsity, seed, longer, root, **options)

    runs = {f"{sparsity:g}": [run("gmp_qat", sparsity, seed) for seed in seeds] for sparsity in [0.0, *sparsities]}
    if control:
        # It explores for as many steps as the others.
        runs["control"] = [run("dense", None, seed, f"exploration_fraction:{0.1 / 1.2}") for seed in seeds]
    return runs


def judge(run: Run, model: BaseAlgorithm, episodes: int) -> dict[str, object]:
    """
    :param run: A finished run.
    :param model: One of its agents.
    :param episodes: Number of evaluation episodes, each with its own seed.
    :return: Its returns and those of the compact file with 8-bit weights, connections, and the bytes of that file
    """
    network = summarize(model).networks["q_net"]
    exported = compress(model)
    return {
        "seed": run.seed,
        "returns": returns_of(run, model, episodes),
        "exported_returns": returns_of(run, exported, episodes),
        "nonzero": network.nonzero,
        "total": network.total,
        "bytes": exported.nbytes,
    }


def evaluate(runs: dict[str, list[Run]], steps: int, episodes: int) -> dict[str, list[dict]]:
    """
    :param runs: Finished runs of one game.
    :param steps: Environment steps before the quantization.
    :param episodes: Number of evaluation episodes.
    :return: By contestant, such as "0.9 pruned", "0.9 quantized" or "0 pruned", which is dense: an entry per seed
    """
    agents = {}
    for name, contestants in runs.items():
        if name == "control":
            agents["control"] = [judge(run, load(run), episodes) for run in contestants]
            continue
        agents[f"{name} pruned"] = [judge(run, load_checkpoint(run, steps), episodes) for run in contestants]
        agents[f"{name} quantized"] = [judge(run, load(run), episodes) for run in contestants]
    return agents


def compare(agents: dict[str, list[dict]]) -> dict[str, dict]:
    """
    :param agents: What :func:`evaluate` found.
    :return: By contestant: mean return of each seed, their mean and interval, and those of the difference from the dense agent
        that has trained as long, if there is one: a quantized agent is compared with the control
    """
    means = {name: np.array([np.mean(agent["returns"]) for agent in found]) for name, found in agents.items()}
    scores = {}
    for name, values in means.items():
        longer = "control" in means and (name == "control" or name.endswith("quantized"))
        reference = "control" if longer else "0 pruned"
        scores[name] = {
            "seeds": [round(float(value), 3) for value in values],
            "mean": round(float(values.mean()), 3),
            "interval": mean_interval(values),
            "reference": reference,
            "difference": round(float(values.mean() - means[reference].mean()), 3),
            "difference_interval": difference_interval(values, means[reference]) if name != reference else [0.0, 0.0],
            "exported_mean": round(float(np.mean([agent["exported_returns"] for agent in agents[name]])), 3),
            "bytes": round(float(np.mean([agent["bytes"] for agent in agents[name]]))),
        }
    return scores


def ratio(score: dict, dense: dict) -> float | None:
    """
    :param score: Of a contestant.
    :param dense: Of the dense agent.
    :return: Return over return, or None where the dense agent has none
    """
    return round(score["mean"] / dense["mean"], 4) if dense["mean"] else None


def print_table(env: str, scores: dict[str, dict]) -> None:
    """
    :param env: The game.
    :param scores: What :func:`compare` found.
    """
    table = Table(title=f"{env}: {len(scores['0 pruned']['seeds'])} seeds")
    for column in ("agent", "return [95 %]", "minus dense of as many steps [95 %]", "of its 8-bit file", "bytes"):
        table.add_column(column, justify="right")
    for name, score in scores.items():
        difference = f"{score['difference']:+.2f} {score['difference_interval'] or ''}"
        mean = f"{score['mean']:.2f} {score['interval'] or ''}"
        table.add_row(name, mean, difference, f"{score['exported_mean']:.2f}", f"{score['bytes']:,}")
    Console(width=120).print(table)


def draw(scores: dict[str, dict[str, dict]], sparsities: list[float], png: Path) -> None:
    """
    Draw the paper's figure: return over sparsity, one panel per game, with the intervals over seeds.

    :param scores: What :func:`compare` found, by game.
    :param sparsities: The sparsities.
    :param png: Where to write the figure.
    """
    figure, axes = plt.subplots(1, len(scores), figsize=(5.2 * len(scores), 4.2), squeeze=False)
    places = range(len(sparsities))
    for panel, (env, found) in zip(axes[0], scores.items(), strict=True):
        for kind, color in COLORS.items():
            seeds = np.array([found[f"{sparsity:g} {kind}"]["seeds"] for sparsity in sparsities]).T
            label = "pruned" if kind == "pruned" else "pruned and quantized"
            panel.errorbar(places, seeds.mean(axis=0), half_width(seeds), color=color, marker="o", capsize=3, label=label)
            panel.plot(places, seeds.T, ".", color=color, markersize=3, alpha=0.6)
        lines = {
            "0 quantized": ("quantized", "tab:purple", ":"),
            "0 pruned": ("dense", "tab:green", "--"),
            "control": ("dense, 120 % of the steps", "tab:gray", "--"),
        }
        for name, (label, color, style) in lines.items():
            if name in found:
                panel.axhline(found[name]["mean"], color=color, linestyle=style, label=label)
        panel.set_xticks(places, [f"{sparsity:.0%}" for sparsity in sparsities])
        panel.set(title=env, xlabel="share of zeros", ylim=(0, None))
    axes[0, 0].set_ylabel("return: seeds, their mean and its 95 % t interval")
    axes[0, 0].legend(fontsize="small")
    figure.tight_layout()
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=110)


def main() -> None:
    """Train, evaluate, print, draw and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    games = ["MinAtarBreakout-v1", "MinAtarSpaceInvaders-v1"]
    parser.add_argument("--envs", nargs="+", default=games, help="games (%(default)s)")
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.8, 0.9, 0.95], help="shares of zeros (%(default)s)")
    parser.add_argument(
        "--steps", type=int, help="environment steps before the quantization; 500,000 by default, the recipe's"
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of training seeds, from 1 on (%(default)s)")
    parser.add_argument("--episodes", type=int, default=50, help="evaluation episodes per agent (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="training runs at a time (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("logs/pixels"), help="where the runs are kept")
    parser.add_argument("--png", type=Path, help="where to draw the figure; in the folder by default")
    parser.add_argument("--json", type=Path, help="where to store the result")
    parser.add_argument("--no-control", action="store_true", help="leave out the dense control of 120 %% of the steps")
    parser.add_argument("--quick", action="store_true", help="8,000 steps, one seed, one game, 90 %%: a check that it works")
    args = parser.parse_args()
    th.set_num_threads(1)
    steps = args.steps or int(read_recipe(find_recipe("dqn", "dense"))[args.envs[0]]["n_timesteps"])
    if args.quick:
        steps, args.seeds, args.sparsities, args.episodes, args.envs = 8_000, 1, [0.9], 2, args.envs[:1]
    seeds, control = range(1, args.seeds + 1), not args.no_control
    runs = {env: make_runs(env, args.sparsities, steps, seeds, args.folder, control=control) for env in args.envs}
    # Seed by seed, so that what is there after an interruption can be compared; the controls come last.
    everything = [(name, run) for found in runs.values() for name, contestants in found.items() for run in contestants]
    everything.sort(key=lambda item: (item[0] == "control", item[1].seed))
    train([run for _, run in everything], args.jobs)
    agents = {env: evaluate(found, steps, args.episodes) for env, found in runs.items()}
    scores = {env: compare(found) for env, found in agents.items()}
    for env, found in scores.items():
        print_table(env, found)
    png = args.png or args.folder / "pixels.png"
    draw(scores, args.sparsities, png)
    print(f"returns over sparsity: {png}")
    if args.json:
        # Of what a run computed with: at the step where quantization begins, of weights that have just been rounded.
        curves = {
            env: {
                name: [[column.tolist() for column in learning_curve(run)] for run in found]
                for name, found in contestants.items()
            }
            for env, contestants in runs.items()
        }
        contestants = [(env, name, score) for env, found in scores.items() for name, score in found.items()]
        stored = {
            "ratios": {f"{env}/{name}": ratio(score, scores[env]["0 pruned"]) for env, name, score in contestants},
            "intervals": {f"{env}/{name}": score["interval"] for env, name, score in contestants},
            "command": f"python benchmarks/pixels.py --envs {' '.join(args.envs)} --sparsities "
            f"{' '.join(map(str, args.sparsities))} --steps {steps} --seeds {args.seeds} --episodes {args.episodes}"
            + ("" if control else " --no-control"),
            "steps": steps,
            "scores": scores,
            "learning_curves": curves,
            "agents": agents,
        }
        store(args.json, stored)


if __name__ == "__main__":
    main()
