"""
The same CPU time for a dense agent on stock SB3 and for a 90 % sparse one in the engine, side by side: what `make demo` runs.

    python -m benchmarks.demo                  # two minutes of one core each
    python -m benchmarks.demo --seconds 600

Both are SAC with SB3's defaults on HalfCheetah-v4. Each trains in a process of its own, on one thread, until it has used its
CPU time. Then both are evaluated on the same episodes, compressed to 8 bits, and compared; their learning curves over CPU time
go to a figure. One seed is a demonstration, not a result: ``benchmarks/speed/throughput.py`` measures. Without a C++ compiler
there is no engine, and the grid ``twins`` trains one dense and one sparse agent on SB3 instead.
"""

import argparse
import multiprocessing
import time
import warnings
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty

import gymnasium as gym
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch as th
from rich.console import Console
from rich.live import Live
from rich.table import Table
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor

from sb3_sparse import EngineCallback, OneShotPruningCallback, compress, summarize
from sb3_sparse.cli import main as command
from sb3_sparse.engine.kernels.library import load
from sb3_sparse.runtime.backends.build import BuildError

ENV = "HalfCheetah-v4"
SPARSITY = 0.9
STOCK, ENGINE = "dense, SB3", f"{SPARSITY:.0%} sparse, engine"


@dataclass(frozen=True)
class Report:
    """What a training process says of itself, about once in a second of CPU time."""

    name: str
    seconds: float
    steps: int
    mean_return: float | None


class Budget(BaseCallback):
    """Reports, and stops training when the CPU time is used up."""

    #: It looks at the model through its attributes alone, so the engine need not write the weights at every step.
    holds_layers = False

    def __init__(self, name: str, seconds: float, queue: "Queue[Report]") -> None:
        super().__init__()
        self.name, self.seconds, self.queue = name, seconds, queue
        self.begin, self.reported = time.process_time(), 0.0

    def _on_step(self) -> bool:
        used = time.process_time() - self.begin
        if used - self.reported >= 1.0 or used >= self.seconds:
            self.reported = used
            episodes = [episode["r"] for episode in list(self.model.ep_info_buffer or [])[-10:]]
            mean_return = float(np.mean(episodes)) if episodes else None
            self.queue.put(Report(self.name, min(used, self.seconds), self.num_timesteps, mean_return))
        return used < self.seconds


def train(name: str, seconds: float, folder: Path, queue: "Queue[Report]") -> None:
    """
    Train one agent, in a process of its own, and save it.

    :param name: ``STOCK`` or ``ENGINE``.
    :param seconds: CPU time.
    :param folder: Where to save it.
    :param queue: Where reports go.
    """
    th.set_num_threads(1)
    warnings.simplefilter("ignore")
    model = SAC("MlpPolicy", Monitor(gym.make(ENV)), learning_starts=1000, buffer_size=300_000, device="cpu", seed=1)
    model.set_logger(Logger(folder=None, output_formats=[]))
    callbacks: list[BaseCallback] = [Budget(name, seconds, queue)]
    if name == ENGINE:
        pruning = OneShotPruningCallback("all", SPARSITY, saliency="random", targets="mask")
        callbacks = [pruning, *callbacks, EngineCallback(strict=True)]
    model.learn(10**9, callback=callbacks)
    model.save(folder / name.split(",")[0])


@dataclass
class Race:
    """The reports of both agents so far."""

    seconds: float
    reports: dict[str, list[Report]] = field(default_factory=lambda: {STOCK: [], ENGINE: []})

    def table(self) -> Table:
        """How far each agent is."""
        table = Table(title=f"SAC on {ENV}, {self.seconds:.0f} seconds of one core each")
        for column in ("agent", "", "steps", "steps per second", "return of the last 10 episodes"):
            table.add_column(column, justify="right")
        for name, reports in self.reports.items():
            last = reports[-1] if reports else Report(name, 0.0, 0, None)
            done = int(20 * last.seconds / self.seconds)
            returns = "" if last.mean_return is None else f"{last.mean_return:,.0f}"
            rate = f"{last.steps / last.seconds:,.0f}" if last.seconds else ""
            table.add_row(name, "━" * done + "·" * (20 - done), f"{last.steps:,}", rate, returns)
        return table

    def draw(self, png: Path) -> None:
        """
        Draw both learning curves over CPU time.

        :param png: Where to.
        """
        figure, axes = plt.subplots(figsize=(7, 4))
        for (name, reports), color in zip(self.reports.items(), ("tab:gray", "tab:blue"), strict=True):
            points = [(report.seconds, report.mean_return) for report in reports if report.mean_return is not None]
            if points:
                axes.plot(*zip(*points, strict=True), color=color, label=name)
        axes.set(title=f"SAC on {ENV}, one seed", xlabel="CPU seconds of one core", ylabel="return of the last 10 episodes")
        axes.legend()
        figure.tight_layout()
        figure.savefig(png, dpi=120)


def compare(folder: Path, race: Race, episodes: int) -> Table:
    """
    :param folder: Where the agents are.
    :param race: Their reports.
    :param episodes: Evaluation episodes of each.
    :return: Steps, returns, weights, and bytes of the 8-bit file
    """
    table = Table(title=f"after {race.seconds:.0f} CPU seconds; {episodes} evaluation episodes each, same seeds")
    for column in ("agent", "steps", "return", "weights of the actor", "bytes of the 8-bit file"):
        table.add_column(column, justify="right")
    for name, reports in race.reports.items():
        model = SAC.load(folder / name.split(",")[0], device="cpu")
        env = Monitor(gym.make(ENV))
        env.reset(seed=0)
        mean, std = evaluate_policy(model, env, n_eval_episodes=episodes)
        cost = summarize(model).networks["actor"]
        size = compress(model, bits=8).nbytes
        table.add_row(name, f"{reports[-1].steps:,}", f"{mean:,.0f} ± {std:,.0f}", f"{cost.nonzero:,}", f"{size:,}")
    return table


def main() -> None:
    """Train both agents at once, and compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="CPU time of each agent")
    parser.add_argument("--episodes", type=int, default=5, help="evaluation episodes of each agent")
    parser.add_argument("--folder", type=Path, default=Path("logs/demo"), help="where agents and figure go")
    args = parser.parse_args()
    try:
        load()
    except BuildError as error:
        print(f"The engine cannot be compiled here: {error}\nA dense agent and its sparse twin train on SB3 instead.")
        for part in ("run", "report"):
            command(["benchmark", part, "twins", "--size", "reduced", "--folder", str(args.folder)])
        return
    th.set_num_threads(1)
    warnings.simplefilter("ignore")
    args.folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    queue: Queue[Report] = context.Queue()
    race = Race(args.seconds)
    processes = [context.Process(target=train, args=(name, args.seconds, args.folder, queue)) for name in race.reports]
    for process in processes:
        process.start()
    with Live(race.table(), console=Console(width=120), refresh_per_second=2) as live:
        while any(process.is_alive() for process in processes) or not queue.empty():
            try:
                report = queue.get(timeout=0.5)
            except Empty:
                continue
            race.reports[report.name].append(report)
            live.update(race.table())
    if any(process.exitcode for process in processes):
        raise SystemExit("an agent failed to train")
    Console(width=120).print(compare(args.folder, race, args.episodes))
    png = args.folder / "demo.png"
    race.draw(png)
    print(f"learning curves: {png}")


if __name__ == "__main__":
    main()
