"""
What masking, rewiring and quantization cost: the time of a training step with a callback over that of stock SB3.

    python benchmarks/overhead.py --json benchmarks/results/overhead.json
    python benchmarks/overhead.py --device cuda --rounds 60 --json benchmarks/results/overhead_gpu.json

SAC and TD3 at the papers' size (17-256-256-6, batch 256; 100 for DS-TD3), each stock, with the actor pruned or quantized, and
with actor and critics. All variants live in one process and take turns, a few updates at a time and in an order that is drawn
anew in every round, so that a busy machine slows all alike; a ratio is the median over the rounds of variant / stock. The
pruned variants stand at 90 %, with 1/1000 of a pruning in each of their steps (the recipes prune every 1000 environment
steps); the rewired ones stand at 50 %, are rewired every 1000 updates (SET with targets pruned after each soft update, as in
DS-TD3, RigL with the online mask), and 1/1000 of that is in each of their steps; the quantized ones have dense weights of 8
bits, and one of them activations of 8 bits as well. All that a callback does in an environment step counts.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch as th
from report import store
from rich.progress import track
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger

from sb3_sparse import GradualPruningCallback, OneShotPruningCallback, QATCallback, RewiringCallback

#: By name: the algorithm, its optimizer, and its batch size. In DS-TD3's batches of 100 the cost of masks weighs more. RMSprop
#: has no fused form, and pays for the square roots of zeros.
ALGORITHMS = {
    "sac": (SAC, th.optim.Adam, 256),
    "td3": (TD3, th.optim.Adam, 256),
    "td3_batch100": (TD3, th.optim.Adam, 100),
    "td3_rmsprop": (TD3, th.optim.RMSprop, 256),
}
PRUNE = partial(GradualPruningCallback, start=905, end=1000, update_freq=5)
QAT = partial(QATCallback, start=905)
STATIC = partial(OneShotPruningCallback, sparsity=0.5, saliency="random")
REWIRE = partial(RewiringCallback, update_freq=90)
#: By name: what makes the callbacks; at 0 the networks are in the hands of the callback, but all their weights are there.
VARIANTS: dict[str, Callable[[], list[BaseCallback]]] = {
    "stock": lambda: [],
    "actor/prune": lambda: [PRUNE("actor", 0.9)],
    "all/prune": lambda: [PRUNE("all", 0.9)],
    "all/before": lambda: [PRUNE("all", 0.0)],
    "actor/qat": lambda: [QAT("actor")],
    "all/qat": lambda: [QAT("all")],
    "actor/qat_activations": lambda: [QAT("actor", activation_bits=8)],
    "all/static": lambda: [STATIC("all", targets="mask")],
    "all/set": lambda: [STATIC("all", targets="topk"), REWIRE("all")],
    "all/rigl": lambda: [STATIC("all", targets="mask"), REWIRE("all", grow="gradient", fraction=0.3, targets="mask")],
}
UPDATE_FREQ = 1000


class HalfCheetahSpaces(gym.Env):
    """The spaces of HalfCheetah without its physics: what is timed is the training step."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (17,))
    action_space = gym.spaces.Box(-1, 1, (6,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action):
        return self._observe(), 0.0, False, False, {}

    def _observe(self):
        return self.np_random.normal(size=17).astype(np.float32)


def now() -> float:
    """
    :return: Seconds on a clock, when a GPU has done all that it was given
    """
    if th.cuda.is_initialized():
        th.cuda.synchronize()
    return time.perf_counter()


def make(
    algorithm: type[BaseAlgorithm],
    optimizer: type[th.optim.Optimizer],
    batch: int,
    variant: Callable[[], list[BaseCallback]],
    device: str,
) -> tuple[BaseAlgorithm, CallbackList]:
    """
    :param algorithm: SAC or TD3.
    :param optimizer: Its optimizer.
    :param batch: Its batch size.
    :param variant: What makes its callbacks.
    :param device: Device of the model.
    :return: A model with a filled buffer and its callbacks, which have pruned or quantized it and are ready to go on
    """
    settings = {"batch_size": batch, "learning_starts": 900, "seed": 0, "device": device}
    settings["policy_kwargs"] = {"net_arch": [256, 256], "optimizer_class": optimizer}
    model = algorithm("MlpPolicy", HalfCheetahSpaces(), **settings)
    callbacks = CallbackList(variant())
    model.learn(1000, callback=callbacks)
    model.set_logger(Logger(folder=None, output_formats=[]))
    callbacks.init_callback(model)
    callbacks.on_training_start({}, {})
    callbacks.on_step()
    return model, callbacks


def seconds(model: BaseAlgorithm, callbacks: CallbackList, updates: int) -> float:
    """
    :param model: The model.
    :param callbacks: Its callbacks; they are called around every update, as with ``train_freq=1``.
    :param updates: Number of gradient steps.
    :return: Time of one of them
    """
    begin = now()
    for _ in range(updates):
        if callbacks.callbacks:
            callbacks.on_rollout_start()
            callbacks.on_step()
            callbacks.on_rollout_end()
        model.train(gradient_steps=1, batch_size=model.batch_size)
    return (now() - begin) / updates


def pruning_seconds(callback: GradualPruningCallback) -> float:
    """
    :param callback: A callback whose networks have their final sparsity.
    :return: Time of one more pruning to it
    """
    begin = now()
    callback._prune(callback.final_sparsity, draw=0)
    return now() - begin


def rewiring_seconds(model: BaseAlgorithm, callback: RewiringCallback, number: int) -> float:
    """
    :param model: The model, which is trained a little for the gradients.
    :param callback: Its callback.
    :param number: Number of the rewiring.
    :return: Time of one more rewiring
    """
    callback._growth.start()
    model.train(gradient_steps=2, batch_size=model.batch_size)
    callback._growth.stop()
    begin = now()
    callback._rewire(callback._growth.masks(callback.fraction, seed=0, number=number))
    return now() - begin


def measure(name: str, rounds: int, updates: int, rng: np.random.Generator, device: str) -> dict[str, np.ndarray]:
    """
    :param name: A name in ``ALGORITHMS``.
    :param rounds: Number of rounds in which every variant has its turn.
    :param updates: Gradient steps per turn.
    :param rng: Source of the order of turns.
    :param device: Device of the models.
    :return: By variant, time of a training step over stock in each round
    """
    models = {variant: make(*ALGORITHMS[name], callbacks, device) for variant, callbacks in VARIANTS.items()}
    ratios = {variant: [] for variant in VARIANTS if variant != "stock"}
    rewiring = {}
    for number in track(range(rounds), description=name):
        took = {}
        for variant in rng.permutation(list(VARIANTS)):
            model, callbacks = models[variant]
            for callback in callbacks.callbacks:
                if isinstance(callback, RewiringCallback) and number % (UPDATE_FREQ // updates) == 0:
                    rewiring[variant] = rewiring_seconds(model, callback, number + 1000)
            took[variant] = seconds(model, callbacks, updates) + rewiring.get(variant, 0.0) / UPDATE_FREQ
            for callback in callbacks.callbacks:
                if isinstance(callback, GradualPruningCallback):
                    took[variant] += pruning_seconds(callback) / UPDATE_FREQ
        for variant, values in ratios.items():
            values.append(took[variant] / took["stock"])
    return {variant: np.array(values) for variant, values in ratios.items()}


def interval(values: np.ndarray, rng: np.random.Generator) -> list[float]:
    """
    :param values: One ratio per round.
    :param rng: Source of the bootstrap.
    :return: 95 % percentile bootstrap interval of the median
    """
    medians = np.median(rng.choice(values, size=(2000, len(values))), axis=1)
    return [round(float(q), 4) for q in np.quantile(medians, [0.025, 0.975])]


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="six rounds, for a check")
    parser.add_argument("--rounds", type=int, default=200, help="rounds in which every variant has its turn (default: 200)")
    parser.add_argument("--device", default="cpu", help="where the models are (default: cpu)")
    parser.add_argument("--json", type=Path, help="where to store the result")
    args = parser.parse_args()
    th.set_num_threads(1)
    rng = np.random.default_rng(0)
    rounds, updates = (6 if args.quick else args.rounds, 10)
    result = {"ratios": {}, "intervals": {}, "rounds": rounds, "updates_per_round": updates}
    for name in ALGORITHMS:
        for variant, values in measure(name, rounds, updates, rng, args.device).items():
            result["ratios"][f"{name}/{variant}"] = round(float(np.median(values)), 4)
            result["intervals"][f"{name}/{variant}"] = interval(values, rng)
    for name, ratio in result["ratios"].items():
        low, high = result["intervals"][name]
        print(f"{name:24} {ratio:.4f} of stock   [{low:.4f}, {high:.4f}]")
    if args.json:
        store(args.json, result)


if __name__ == "__main__":
    main()
