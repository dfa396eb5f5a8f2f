"""
Dense DQN and its pruned twin on Pong, for a small part of the paper's ten million steps: learning curves as far as they came.

    python benchmarks/pong.py --json benchmarks/results/pong.json --png benchmarks/results/pong.png

From the recipes ``dqn_dense`` and ``dqn_gmp``, with what makes an hour on one core go further: frames of 42 x 42 instead of
84 x 84, eight games at a time at the same number of updates per step, a learning rate of 2.5e-4 instead of 1e-4, and schedules
of a short run. All of it is in the commands that are stored. One seed says whether it can be learnt in so many steps, and not
which of the two learns better. Runs are kept.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import ale_py
import gymnasium as gym
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch as th
from report import store
from runs import Run, learning_curve, load, returns_of, train

from sb3_sparse import compress, summarize

ENV = "PongNoFrameskip-v4"
WRAPPER = "stable_baselines3.common.atari_wrappers.AtariWrapper"

BUFFER = "get_class_by_name('sb3_sparse.pixels.FrameReplayBuffer')"


def make_runs(sparsities: list[float], steps: int, screen_size: int, seed: int, root: Path) -> dict[str, Run]:
    """
    :param sparsities: Shares of zeros beside the dense control.
    :param steps: Environment steps.
    :param screen_size: Height and width of a frame.
    :param seed: Seed.
    :param root: Where the runs are kept.
    :return: The runs by name, "dense" first
    """
    short = (
        f"env_wrapper:[{{'{WRAPPER}':{{'screen_size':{screen_size}}}}}]",
        *("n_envs:8", "train_freq:1", "gradient_steps:2"),
        *("learning_rate:2.5e-4", f"learning_starts:{min(10_000, steps // 10)}", f"buffer_size:{min(steps, 500_000)}"),
        f"replay_buffer_class:{BUFFER!r}",
        *("target_update_interval:1000", "exploration_fraction:0.1"),
    )

    def run(recipe: str, *callback: str) -> Run:
        return Run("dqn", ENV, recipe, None, seed, steps, root, eval_episodes=5, flush=True, hyperparams=(*short, *callback))

    runs = {"dense": run("dense")}
    for sparsity in sparsities:
        pruning = {"network": "q_net", "final_sparsity": sparsity, "start": 0.2, "end": 0.8, "update_freq": steps // 500}
        callbacks = [{"sb3_sparse.GradualPruningCallback": pruning}, "sb3_sparse.ChannelsLastCallback"]
        runs[f"pruned {sparsity:.0%}"] = run("gmp", f"callback:{callbacks!r}")
    return runs


def evaluate(run: Run, episodes: int) -> dict[str, object]:
    """
    :param run: A finished run.
    :param episodes: Number of evaluation episodes.
    :return: Returns, connections, bytes of the compact 8-bit file, and the learning curve
    """
    model = load(run)
    network = summarize(model).networks["q_net"]
    steps, curve = learning_curve(run)
    return {
        "returns": returns_of(run, model, episodes),
        "nonzero": network.nonzero,
        "total": network.total,
        "bytes": compress(model).nbytes,
        "curve": {"steps": steps.tolist(), "mean_return": curve.tolist()},
    }


def draw(agents: dict[str, dict], png: Path) -> None:
    """
    :param agents: What :func:`evaluate` found, by name.
    :param png: Where to write the figure.
    """
    figure, axes = plt.subplots(figsize=(6.4, 4.2))
    for name, agent in agents.items():
        axes.plot(agent["curve"]["steps"], agent["curve"]["mean_return"], marker=".", label=name)
    axes.set(title=f"{ENV}, one seed", xlabel="environment steps (the paper has 10,000,000)", ylabel="return of 5 episodes")
    axes.legend()
    figure.tight_layout()
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=110)


def main() -> None:
    """Train, evaluate, print, draw and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500_000, help="environment steps (%(default)s)")
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.9], help="shares of zeros (%(default)s)")
    parser.add_argument("--screen-size", type=int, default=42, help="height and width of a frame (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="training seed (%(default)s)")
    parser.add_argument("--episodes", type=int, default=20, help="evaluation episodes per agent (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="training runs at a time (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("logs/pong"), help="where the runs are kept")
    parser.add_argument("--png", type=Path, help="where to draw the figure; in the folder by default")
    parser.add_argument("--json", type=Path, help="where to store the result")
    parser.add_argument("--quick", action="store_true", help="1,000 steps and one episode: a check that it works")
    args = parser.parse_args()
    th.set_num_threads(1)
    gym.register_envs(ale_py)
    if args.quick:
        args.steps, args.episodes = 1_000, 1
    runs = make_runs(args.sparsities, args.steps, args.screen_size, args.seed, args.folder)
    if args.quick:
        # Evaluations of five episodes take longer than the training.
        runs = {name: replace(run, eval_episodes=1, evaluations=1) for name, run in runs.items()}
    train(list(runs.values()), args.jobs)
    agents = {name: evaluate(run, args.episodes) for name, run in runs.items()}
    for name, agent in agents.items():
        mean = sum(agent["returns"]) / len(agent["returns"])
        print(f"{name}: return {mean:.1f}, {agent['nonzero']:,} of {agent['total']:,} weights, {agent['bytes']:,} bytes")
    png = args.png or args.folder / "pong.png"
    draw(agents, png)
    print(f"learning curves: {png}")
    if args.json:
        dense = agents["dense"]
        stored = {
            # Returns of Pong lie around zero, so their ratio says nothing.
            "ratios": {f"{name}/bytes": round(agent["bytes"] / dense["bytes"], 4) for name, agent in agents.items()},
            "intervals": {},
            "command": f"python benchmarks/pong.py --steps {args.steps} --sparsities {' '.join(map(str, args.sparsities))} "
            f"--screen-size {args.screen_size} --seed {args.seed} --episodes {args.episodes}",
            # Without the folders.
            "training": {name: " ".join(run.command()).split(" -f ")[0] for name, run in runs.items()},
            "steps": args.steps,
            "agents": agents,
        }
        store(args.json, stored)


if __name__ == "__main__":
    main()
