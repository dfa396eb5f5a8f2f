"""
How much faster training is in the engine: environment steps per CPU second inside SB3's ``learn()``, over stock SB3.

    python -m benchmarks.speed.throughput --json benchmarks/results/throughput.json \\
        --png benchmarks/results/throughput.png

Every model trains in SB3's own ``learn()``, with a logger, a Monitor, and an EvalCallback that evaluates five episodes every
10,000 steps. All variants live in one process, on one thread, and take turns in an order that is drawn anew in every round, so
that a busy machine slows all alike. Time is the CPU time of the process. A turn is timed from its tenth environment step on,
so the start of ``learn()`` does not count, and there is no evaluation in it. The time of an evaluation is measured apart, and
1/10,000 of it is added to every step. A ratio is the median over the rounds of the steps per second of a variant over those of
stock SB3; its interval is a bootstrap of that median.

``sac/sparse/0.9`` has 90 % zeros in all networks, placed at random by ERK; ``sac/actor/0.9`` has a sparse actor and dense
critics; ``sac/dense`` has all weights. ``bf16`` has products of bfloat16, on processors that have them. Networks have two
hidden layers of 256 units and batches have 256 samples unless the name says otherwise.
``ppo/...`` is PPO as SB3 has it, with layers of 64 units and batches of 64, timed from the tenth step of
one rollout to that of the next; ``wide/ppo/...`` has layers of 256. ``wall/...`` is the ratio of wall-clock times, on a
machine that must have nothing else to do, and ``threads/2`` has a second thread.
"""

import json
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import gymnasium as gym
import numpy as np
from matplotlib.figure import Figure
from sb3_contrib import TQC
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from benchmarks.shared.question import ask, option, ratio_table
from benchmarks.shared.store import Result
from benchmarks.shared.turns import Rounds, summarize, take_turns
from sb3_sparse import EngineCallback, OneShotPruningCallback
from sb3_sparse.engine.kernels.library import has_bfloat16, load

ALGORITHMS = {"sac": SAC, "td3": TD3, "tqc": TQC, "dqn": DQN, "ppo": PPO}
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.99)
EVAL_FREQ, EVAL_EPISODES = 10_000, 5
WARM = 10
LEARNING_STARTS = 300
OFF_POLICY = {"learning_starts": LEARNING_STARTS, "buffer_size": 100_000}
KWARGS = {"dqn": OFF_POLICY | {"train_freq": 1, "gradient_steps": 1, "target_update_interval": 250}, "ppo": {}}


@dataclass(frozen=True)
class Setting:
    """What all variants of one comparison share."""

    algorithm: str
    env: str
    width: int = 256
    batch_size: int = 256
    prefix: str = ""
    clock: Callable[[], float] = time.process_time

    def name(self, variant: str) -> str:
        """Name of a ratio."""
        return f"{self.prefix}{self.algorithm}/{variant}"


@dataclass(frozen=True)
class Variant:
    """A way to train: on stock SB3 if it has no sparsity."""

    name: str
    sparsity: float | None
    network: str = "all"
    precision: str = "float32"
    threads: int = 1


STOCK = Variant("stock", None)
DENSE = Variant("dense", 0.0)
SPARSE = [Variant(f"sparse/{sparsity}", sparsity) for sparsity in SPARSITIES]
ACTOR = Variant("actor/0.9", 0.9, "actor")
HALF = [Variant("dense/bf16", 0.0, precision="bf16"), Variant("actor/0.9/bf16", 0.9, "actor", precision="bf16")]


class Stopwatch(gym.Wrapper):
    """Notes the time of every environment step."""

    def __init__(self, env: gym.Env, clock: Callable[[], float]) -> None:
        super().__init__(env)
        self.clock = clock
        self.times: list[float] = []

    def step(self, action):
        self.times.append(self.clock())
        return self.env.step(action)


@dataclass
class Contestant:
    """A model that is trained by a variant, a few steps at a time."""

    setting: Setting
    variant: Variant

    def __post_init__(self) -> None:
        setting = self.setting
        self.watch = Stopwatch(gym.make(setting.env), setting.clock)
        self.model: BaseAlgorithm = ALGORITHMS[setting.algorithm](
            "MlpPolicy",
            Monitor(self.watch),
            batch_size=setting.batch_size,
            policy_kwargs={"net_arch": [setting.width] * 2},
            device="cpu",
            seed=0,
            **KWARGS.get(setting.algorithm, OFF_POLICY),
        )
        #: Steps between two updates.
        self.period = self.model.n_steps if isinstance(self.model, OnPolicyAlgorithm) else 1
        self.model.set_logger(configure(None, []))
        self.eval_env = Monitor(gym.make(setting.env))
        self.learn(LEARNING_STARTS + 30)
        # One episode in the middle: that step takes so much longer.
        self.learn(30, eval_freq=20 + self.period, episodes=1)
        took = np.diff(self.watch.times)
        self.evaluation = float(took[19 + self.period] - np.median(took)) * EVAL_EPISODES

    def learn(self, steps: int, *, eval_freq: int = EVAL_FREQ, episodes: int = EVAL_EPISODES) -> float:
        """
        :param steps: Number of environment steps.
        :param eval_freq: Steps between two evaluations.
        :param episodes: Episodes of each.
        :return: Seconds of one step, without the first ones
        """
        callbacks = [EvalCallback(self.eval_env, n_eval_episodes=episodes, eval_freq=eval_freq, verbose=0)]
        if self.variant.sparsity:
            prune = OneShotPruningCallback(
                self.variant.network, self.variant.sparsity, saliency="random", targets="mask", seed=0
            )
            callbacks.insert(0, prune)
        if self.variant.sparsity is not None:
            callbacks.append(EngineCallback(self.variant.precision, self.variant.threads, strict=True))
        self.watch.times.clear()
        steps = max(steps, self.period + WARM + 1)
        self.model.learn(steps, callback=callbacks, reset_num_timesteps=False, log_interval=4)
        times = self.watch.times[WARM:]
        count = (len(times) - 1) // self.period * self.period
        return (times[count] - times[0]) / count

    def take_turn(self, steps: int) -> float:
        """Seconds of an environment step, with its share of an evaluation."""
        return self.learn(steps) + self.evaluation / EVAL_FREQ


def time_variants(setting: Setting, variants: list[Variant], rounds: int, rng: np.random.Generator) -> Rounds:
    """
    :param setting: What is compared.
    :param variants: Ways to train, other than stock SB3.
    :param rounds: Number of rounds.
    :param rng: Source of the order of turns.
    :return: Seconds of an environment step by variant, "stock" among them, in each round
    """
    contestants = {variant.name: Contestant(setting, variant) for variant in [STOCK, *variants]}
    turns = {}
    for name, contestant in contestants.items():
        # About half a second each.
        took = contestant.take_turn(WARM + (30 if name == "stock" else 60))
        turns[name] = partial(contestant.take_turn, WARM + int(np.clip(0.5 / took, 20, 2000)))
    return take_turns(turns, rounds, rng, setting.name(setting.env))


def comparisons(quick: bool) -> list[tuple[Setting, list[Variant]]]:
    """
    :param quick: Whether to leave most of them out.
    :return: Settings and their variants
    """
    cheetah = "HalfCheetah-v4"
    if quick:
        return [(Setting("sac", cheetah), [DENSE, ACTOR, SPARSE[2], SPARSE[4]])]
    half = HALF if has_bfloat16() else []
    everything = [DENSE, ACTOR, *SPARSE, *half]
    found = [(Setting(algorithm, cheetah), everything) for algorithm in ("sac", "td3", "tqc")]
    found.append((Setting("dqn", "LunarLander-v3"), [DENSE, *SPARSE]))
    found.append((Setting("sac", "Humanoid-v4", prefix="humanoid/"), everything))
    found.append((Setting("ppo", cheetah, width=64, batch_size=64), [DENSE, *SPARSE]))
    found.append((Setting("ppo", cheetah, batch_size=64, prefix="wide/"), [DENSE, *SPARSE]))
    few = [SPARSE[2], SPARSE[4]]
    found += [(Setting("sac", cheetah, width=width, prefix=f"width/{width}/"), few) for width in (64, 512, 1024, 2048)]
    two = [replace(variant, name=f"{variant.name}/threads/2", threads=2) for variant in (DENSE, *few)]
    found.append((Setting("sac", cheetah, prefix="wall/", clock=time.perf_counter), [DENSE, *few, *two]))
    found += [(Setting("sac", cheetah, batch_size=size, prefix=f"batch/{size}/"), few) for size in (100, 1024)]
    return found


def measure(args: Namespace) -> Iterator[Result]:
    """
    :param args: The rounds, whether to be quick, and which comparisons.
    :return: Steps per second over stock SB3, after every comparison
    """
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    result: Result = {"ratios": {}, "intervals": {}, "stock_steps_per_second": {}}
    if args.only and args.json and args.json.is_file():
        result |= {name: value for name, value in json.loads(args.json.read_text()).items() if name in result}
    result |= {"rounds": args.rounds, "kernels": load().engine_isa().decode()}
    for setting, variants in comparisons(args.quick):
        if args.only and not setting.name("").startswith(args.only):
            continue
        times = time_variants(setting, variants, args.rounds, rng)
        stock = times.pop("stock")
        result["stock_steps_per_second"][setting.name("stock")] = round(float(np.median(1.0 / stock)), 1)
        for key, found in summarize({setting.name(name): stock / values for name, values in times.items()}, rng).items():
            result[key] |= found
        yield result


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: A table
    """
    speeds = {name: f"{speed:.0f}" for name, speed in result["stock_steps_per_second"].items()}
    yield ratio_table("environment steps per CPU second", "over stock SB3", result, {"steps per second": speeds})


def draw(result: Result) -> Figure:
    """
    :param result: What was measured.
    :return: Ratios over the sparsity, of all comparisons that have every sparsity
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for group in sorted({name.rsplit("/sparse/", 1)[0] for name in result["ratios"] if "/sparse/" in name}):
        names = [f"{group}/dense", *(f"{group}/sparse/{sparsity}" for sparsity in SPARSITIES)]
        if not all(name in result["ratios"] for name in names):
            continue
        ratios = [result["ratios"][name] for name in names]
        errors = np.abs(np.array([result["intervals"][name] for name in names]).T - ratios)
        axes.errorbar(range(len(names)), ratios, yerr=errors, marker="o", capsize=3, label=group)
    axes.set_xticks(range(len(SPARSITIES) + 1), ["dense", *(f"{100 * sparsity:.0f} %" for sparsity in SPARSITIES)])
    axes.set(yscale="log", xlabel="sparsity of all networks", ylabel="steps per CPU second, over stock SB3")
    axes.set_yticks([1, 2, 5, 10, 20, 40], ["1", "2", "5", "10", "20", "40"])
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


if __name__ == "__main__":
    begins = "comparisons whose name begins so, such as sac/ or width/; the stored result keeps the others"
    rounds = option("--rounds", 15, "rounds of each comparison", quick=5)
    ask(measure, rounds, option("--only", None, begins), show=show, draw=draw, quick="SAC alone")
