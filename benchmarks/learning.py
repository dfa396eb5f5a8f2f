"""
Does training in the engine learn what training on SB3 learns? Return over steps of both, several seeds each.

    python benchmarks/learning.py --json benchmarks/results/learning.json --png benchmarks/results/learning.png

SAC and TD3 on Pendulum-v1, dense and at 90 % (random masks by ERK in all networks, from the first step). Each agent is
trained once on SB3 and once in the engine, from the same seeds, and evaluated on the same episodes at equal steps. The two
start from the same random numbers, and drift apart by rounding. Finished agents are kept in the folder: a second call trains
what is missing.
"""

import argparse
import json
import time
import warnings
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import gymnasium as gym
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch as th
from intervals import difference_interval, mean_interval
from report import store
from rich.console import Console
from rich.table import Table
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise

from sb3_sparse import EngineCallback, OneShotPruningCallback

ENV = "Pendulum-v1"
#: By name: the algorithm, environment steps, and its settings, which are rl-zoo3's for this task.
ALGORITHMS = {
    "sac": (SAC, 6_000, {"learning_rate": 1e-3}),
    "td3": (
        TD3,
        8_000,
        {"learning_rate": 1e-3, "gamma": 0.98, "action_noise": NormalActionNoise(np.zeros(1), np.full(1, 0.1))},
    ),
}
SPARSITIES = (0.0, 0.9)
EVALUATIONS = 10
EPISODES = 10


@dataclass(frozen=True)
class Agent:
    """One training run."""

    algorithm: str
    sparsity: float
    engine: bool
    seed: int
    steps: int
    episodes: int = EPISODES

    @property
    def file(self) -> str:
        """Name of the file that holds its returns."""
        return f"{self.algorithm}_{self.sparsity}_{'engine' if self.engine else 'sb3'}_{self.seed}_{self.steps}.json"


def train(agent: Agent, folder: Path) -> None:
    """
    Train an agent, and write its returns.

    :param agent: The agent.
    :param folder: Where to write them; an agent whose file is there is not trained again.
    """
    path = folder / agent.file
    if path.is_file():
        return
    th.set_num_threads(1)
    warnings.simplefilter("ignore")
    algorithm, _, settings = ALGORITHMS[agent.algorithm]
    model = algorithm("MlpPolicy", Monitor(gym.make(ENV)), seed=agent.seed, device="cpu", **settings)
    model.set_logger(Logger(folder=None, output_formats=[]))
    eval_env = Monitor(gym.make(ENV))
    eval_env.reset(seed=1000)
    log = folder / path.stem
    evaluation = EvalCallback(
        eval_env,
        n_eval_episodes=agent.episodes,
        eval_freq=agent.steps // EVALUATIONS,
        log_path=str(log),
        verbose=0,
        warn=False,
    )
    callbacks: list[BaseCallback] = [evaluation]
    if agent.sparsity:
        callbacks.insert(0, OneShotPruningCallback("all", agent.sparsity, saliency="random", targets="mask"))
    if agent.engine:
        callbacks.append(EngineCallback(strict=True))
    begin = time.process_time()
    model.learn(agent.steps, callback=callbacks)
    seconds = time.process_time() - begin
    returns = np.load(log / "evaluations.npz")
    found = {
        **asdict(agent),
        "cpu_seconds": round(seconds, 1),
        "timesteps": returns["timesteps"].tolist(),
        "returns": returns["results"].mean(axis=1).round(2).tolist(),
    }
    path.write_text(json.dumps(found))


def compare(agents: list[Agent], folder: Path) -> dict:
    """
    :param agents: Finished agents.
    :param folder: Where their files are.
    :return: Curves, and for each setting the mean returns and the difference of engine and SB3 with its interval
    """
    result: dict = {"curves": {}, "final": {}, "ratios": {}, "intervals": {}, "cpu_seconds": {}}
    found = [json.loads((folder / agent.file).read_text()) for agent in agents]
    for algorithm in ALGORITHMS:
        for sparsity in SPARSITIES:
            finals, areas = {}, {}
            name = f"{algorithm}/{'dense' if sparsity == 0 else f'sparse/{sparsity}'}"
            for engine in (False, True):
                group = [f for f in found if (f["algorithm"], f["sparsity"], f["engine"]) == (algorithm, sparsity, engine)]
                curves = np.array([f["returns"] for f in group])
                way = "engine" if engine else "sb3"
                result["curves"][f"{name}/{way}"] = {"timesteps": group[0]["timesteps"], "returns": curves.tolist()}
                result["cpu_seconds"][f"{name}/{way}"] = round(float(np.mean([f["cpu_seconds"] for f in group])), 1)
                finals[way], areas[way] = curves[:, -1], curves.mean(axis=1)
                result["final"][f"{name}/{way}"] = {
                    "mean": round(float(finals[way].mean()), 2),
                    "interval": mean_interval(finals[way]),
                }
            for what, values in (("final", finals), ("curve", areas)):
                key = f"{name}/{what} return, engine - SB3"
                result["ratios"][key] = round(float(values["engine"].mean() - values["sb3"].mean()), 2)
                result["intervals"][key] = difference_interval(values["engine"], values["sb3"])
    return result


def draw(result: dict, png: Path) -> None:
    """
    :param result: What :func:`compare` found.
    :param png: Where to draw the curves.
    """
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.4), sharey=True)
    names = sorted({name.rsplit("/", 1)[0] for name in result["curves"]})
    for axis, name in zip(axes, names, strict=True):
        for way, color in (("sb3", "tab:gray"), ("engine", "tab:blue")):
            curve = result["curves"][f"{name}/{way}"]
            returns = np.array(curve["returns"])
            axis.plot(curve["timesteps"], returns.mean(axis=0), color=color, label=way)
            axis.fill_between(curve["timesteps"], returns.min(axis=0), returns.max(axis=0), color=color, alpha=0.2)
        axis.set(title=name, xlabel="environment steps")
    axes[0].set(ylabel="evaluation return: mean and range of the seeds")
    axes[0].legend()
    figure.tight_layout()
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=120)


def main() -> None:
    """Train, compare, print, draw and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 1 on")
    parser.add_argument("--jobs", type=int, default=2, help="training runs at a time")
    parser.add_argument("--folder", type=Path, default=Path("logs/learning"), help="where returns are kept")
    parser.add_argument("--quick", action="store_true", help="300 steps, one seed: a check that it works, not a result")
    parser.add_argument("--json", type=Path, help="where to store the result")
    parser.add_argument("--png", type=Path, help="where to draw the curves")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    agents = [
        Agent(algorithm, sparsity, engine, seed, 300 if args.quick else steps, 1 if args.quick else EPISODES)
        for algorithm, (_, steps, _) in ALGORITHMS.items()
        for sparsity in SPARSITIES
        for seed in range(1, 2 if args.quick else args.seeds + 1)
        for engine in (False, True)
    ]
    with get_context("spawn").Pool(args.jobs) as pool:
        pool.starmap(train, [(agent, args.folder) for agent in agents], chunksize=1)
    result = compare(agents, args.folder)
    table = Table(title=f"{ENV}, {len(agents) // 8} seeds")
    for column in ("setting", "SB3", "engine", "difference over the whole curve", "95 % interval"):
        table.add_column(column, justify="right")
    for name in sorted({name.rsplit("/", 1)[0] for name in result["curves"]}):
        key = f"{name}/curve return, engine - SB3"
        finals = [f"{result['final'][f'{name}/{way}']['mean']:.1f}" for way in ("sb3", "engine")]
        table.add_row(name, *finals, f"{result['ratios'][key]:.1f}", str(result["intervals"][key]))
    Console(width=120).print(table)
    if args.json:
        store(args.json, result)
    if args.png:
        draw(result, args.png)


if __name__ == "__main__":
    main()
