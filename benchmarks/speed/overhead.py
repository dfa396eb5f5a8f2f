"""
What masking, rewiring and quantization cost: the time of a training step with a callback over that of stock SB3.

    python -m benchmarks.speed.overhead --json benchmarks/results/overhead.json
    python -m benchmarks.speed.overhead --device cuda --rounds 60 --json benchmarks/results/overhead_gpu.json

SAC and TD3 at the papers' size (17-256-256-6, batch 256; 100 for DS-TD3), each stock, with the actor pruned or quantized, and
with actor and critics. All variants live in one process and take turns, a few updates at a time and in an order that is drawn
anew in every round, so that a busy machine slows all alike; a ratio is the median over the rounds of variant / stock. The
pruned variants stand at 90 %, with 1/1000 of a pruning in each of their steps (the recipes prune every 1000 environment
steps); the rewired ones stand at 50 %, are rewired every 1000 updates (SET with targets pruned after each soft update, as in
DS-TD3, RigL with the online mask), and 1/1000 of that is in each of their steps; the quantized ones have dense weights of 8
bits, and one of them activations of 8 bits as well. All that a callback does in an environment step counts.
"""

import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
import torch as th
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger

from benchmarks.shared.question import ask, option, ratio_table
from benchmarks.shared.spaces import HalfCheetahSpaces
from benchmarks.shared.store import Result
from benchmarks.shared.turns import Rounds, summarize, take_turns
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
#: Updates between two prunings or rewirings, and in a turn.
UPDATE_FREQ, UPDATES = 1000, 10


def now() -> float:
    """
    :return: Seconds on a clock, when a GPU has done all that it was given
    """
    if th.cuda.is_initialized():
        th.cuda.synchronize()
    return time.perf_counter()


class Contestant:
    """
    A model with its callbacks, which have pruned or quantized it and are ready to go on.

    :param name: A name in ``ALGORITHMS``.
    :param make_callbacks: What makes its callbacks.
    :param device: Device of the model.
    """

    def __init__(self, name: str, make_callbacks: Callable[[], list[BaseCallback]], device: str) -> None:
        algorithm, optimizer, batch = ALGORITHMS[name]
        settings = {"batch_size": batch, "learning_starts": 900, "seed": 0, "device": device}
        settings["policy_kwargs"] = {"net_arch": [256, 256], "optimizer_class": optimizer}
        self.model: BaseAlgorithm = algorithm("MlpPolicy", HalfCheetahSpaces(), **settings)
        self.callbacks = CallbackList(make_callbacks())
        self.model.learn(1000, callback=self.callbacks)
        self.model.set_logger(Logger(folder=None, output_formats=[]))
        self.callbacks.init_callback(self.model)
        self.callbacks.on_training_start({}, {})
        self.callbacks.on_step()
        self._turns, self._rewiring = 0, 0.0

    def take_turn(self) -> float:
        """
        :return: Time of a gradient step, with its share of a pruning or a rewiring
        """
        for callback in self.callbacks.callbacks:
            if isinstance(callback, RewiringCallback) and self._turns % (UPDATE_FREQ // UPDATES) == 0:
                self._rewiring = self._rewire(callback)
        self._turns += 1
        took = self._train() + self._rewiring / UPDATE_FREQ
        for callback in self.callbacks.callbacks:
            if isinstance(callback, GradualPruningCallback):
                begin = now()
                callback._prune(callback.final_sparsity, draw=0)
                took += (now() - begin) / UPDATE_FREQ
        return took

    def _train(self) -> float:
        """With all that the callbacks do in an environment step, as with ``train_freq=1``."""
        begin = now()
        for _ in range(UPDATES):
            if self.callbacks.callbacks:
                self.callbacks.on_rollout_start()
                self.callbacks.on_step()
                self.callbacks.on_rollout_end()
            self.model.train(gradient_steps=1, batch_size=self.model.batch_size)
        return (now() - begin) / UPDATES

    def _rewire(self, callback: RewiringCallback) -> float:
        """One more rewiring, after a little training for the gradients."""
        callback._growth.start()
        self.model.train(gradient_steps=2, batch_size=self.model.batch_size)
        callback._growth.stop()
        begin = now()
        callback._rewire(callback._growth.masks(callback.fraction, seed=0, number=self._turns + 1000))
        return now() - begin


def measure(args: Namespace) -> Iterator[Result]:
    """
    :param args: The rounds, and where the models are.
    :return: Time of a training step over stock, after every algorithm
    """
    rng, ratios = np.random.default_rng(0), {}
    for name in ALGORITHMS:
        contestants = {variant: Contestant(name, make, args.device).take_turn for variant, make in VARIANTS.items()}
        times: Rounds = take_turns(contestants, args.rounds, rng, name)
        stock = times.pop("stock")
        ratios |= {f"{name}/{variant}": values / stock for variant, values in times.items()}
        yield {**summarize(ratios, np.random.default_rng(0)), "rounds": args.rounds, "updates_per_round": UPDATES}


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: A table
    """
    yield ratio_table("time of a training step", "over stock", result)


if __name__ == "__main__":
    rounds = option("--rounds", 200, "rounds in which every variant has its turn", quick=3)
    ask(measure, rounds, option("--device", "cpu", "where the models are"), show=show)
