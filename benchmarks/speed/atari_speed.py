"""
What makes training on Atari's pixels faster on a CPU, by configuration alone: environment steps per second over stock.

    taskset -c 1 python -m benchmarks.speed.atari_speed --json benchmarks/results/atari_speed.json

Pong at the settings of the recipes (batch 32, an update every fourth step, both networks, QR-DQN; PPO with eight games), each
stock and with what a recipe can name: fused Adam, the memory format channels last, four games at a time with four updates for
their sixteen steps, and 90 % of the weights pruned. Everything counts that a step costs: the games, acting, storing, sampling
and updates. All variants of a group live in one process on one thread and take turns, in an order that is drawn anew in every
round; a ratio is the median over the rounds of stock's CPU time per step over the variant's. The buffer is SB3's and small;
what a large one costs is not part of it.
"""

import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import torch as th
from sb3_contrib import QRDQN
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecFrameStack

from benchmarks.shared.question import ask, option, ratio_table
from benchmarks.shared.store import Result
from benchmarks.shared.turns import summarize, take_turns
from sb3_sparse import ChannelsLastCallback, OneShotPruningCallback
from sb3_sparse.policies import ResNetExtractor

gym.register_envs(ale_py)

RESNET = {"features_extractor_class": ResNetExtractor, "net_arch": []}
#: By name: the algorithm, arguments of its policy, and those of its optimizer.
GROUPS: dict[str, tuple[type[BaseAlgorithm], dict[str, Any], dict[str, Any]]] = {
    "dqn": (DQN, {}, {}),
    "dqn_resnet": (DQN, RESNET, {"eps": 3.125e-4, "weight_decay": 1e-5}),
    "qrdqn": (QRDQN, {"optimizer_class": th.optim.Adam}, {"eps": 3.125e-4}),
    "ppo": (PPO, {}, {"eps": 1e-5}),
}


@dataclass(frozen=True)
class Variant:
    """
    What differs from stock.

    :param fused: Whether Adam is fused.
    :param channels_last: Whether convolutions compute in channels last.
    :param envs: Games at a time, with as many updates; PPO has eight.
    :param sparsity: Share of weights that are pruned.
    """

    fused: bool = False
    channels_last: bool = False
    envs: int = 1
    sparsity: float = 0.0

    def callbacks(self) -> list[BaseCallback]:
        """What a recipe lists under ``callback``."""
        pruning = [OneShotPruningCallback("all", self.sparsity)] if self.sparsity else []
        return [*pruning, *([ChannelsLastCallback()] if self.channels_last else [])]


VARIANTS = {
    "stock": Variant(),
    "fused": Variant(fused=True),
    "channels_last": Variant(channels_last=True),
    "fused+channels_last": Variant(fused=True, channels_last=True),
    "fused+channels_last+4envs": Variant(fused=True, channels_last=True, envs=4),
    "pruned0.9": Variant(fused=True, sparsity=0.9),
    "pruned0.9+channels_last": Variant(fused=True, channels_last=True, sparsity=0.9),
}


def make(group: str, variant: Variant) -> tuple[BaseAlgorithm, CallbackList]:
    """
    :param group: A name in ``GROUPS``.
    :param variant: What differs from stock.
    :return: A model that is past the beginning of its training, and its callbacks
    """
    algorithm, policy_kwargs, optimizer_kwargs = GROUPS[group]
    fused = {"fused": True} if variant.fused else {}
    settings: dict[str, Any] = {
        "policy_kwargs": {**policy_kwargs, "optimizer_kwargs": {**optimizer_kwargs, **fused}},
        "seed": 0,
    }
    envs = 8 if algorithm is PPO else variant.envs
    if algorithm is PPO:
        # A quarter of the recipe's rollout, for shorter turns; updates per step are the same.
        settings |= {"n_steps": 32, "n_epochs": 4, "batch_size": 256, "ent_coef": 0.01, "clip_range": 0.1}
    else:
        settings |= {"buffer_size": 2000, "learning_starts": 64, "batch_size": 32, "train_freq": 4, "gradient_steps": envs}
        # The network acts, as it does nearly always in a run.
        settings |= {"exploration_initial_eps": 0.01, "exploration_final_eps": 0.01, "target_update_interval": 8000}
    env = VecFrameStack(make_atari_env("PongNoFrameskip-v4", n_envs=envs, seed=0), n_stack=4)
    model = algorithm("CnnPolicy", env, device="cpu", **settings)
    callbacks = CallbackList(variant.callbacks())
    model.learn(128, callback=callbacks)
    model.set_logger(Logger(folder=None, output_formats=[]))
    callbacks.init_callback(model)
    callbacks.on_training_start({}, {})
    return model, callbacks


def seconds(model: BaseAlgorithm, callbacks: CallbackList, steps: int) -> float:
    """
    :param model: The model.
    :param callbacks: Its callbacks.
    :param steps: Least number of environment steps; PPO's rollout has 256.
    :return: CPU time of one of them
    """
    begin, before = time.process_time(), model.num_timesteps
    while model.num_timesteps - before < steps:
        if isinstance(model, PPO):
            model.collect_rollouts(model.env, callbacks, model.rollout_buffer, model.n_steps)
            model.train()
        else:
            buffer = model.replay_buffer
            model.collect_rollouts(model.env, callbacks, model.train_freq, buffer, action_noise=None, learning_starts=0)
            model.train(gradient_steps=model.gradient_steps, batch_size=model.batch_size)
    return (time.process_time() - begin) / (model.num_timesteps - before)


def measure(args: Namespace) -> Iterator[Result]:
    """
    :param args: The rounds, and whether to be quick.
    :return: Stock's CPU time of an environment step over that of each variant, after every group
    """
    rng, ratios, speeds = np.random.default_rng(0), {}, {}
    for group in ["dqn"] if args.quick else GROUPS:
        variants = {name: variant for name, variant in VARIANTS.items() if group != "ppo" or variant.envs == 1}
        turns = {name: partial(seconds, *make(group, variant), 16 if args.quick else 48) for name, variant in variants.items()}
        times = take_turns(turns, args.rounds, rng, group)
        stock = times.pop("stock")
        speeds[group] = round(float(1 / np.median(stock)), 1)
        ratios |= {f"{group}/{name}": stock / values for name, values in times.items()}
        yield {**summarize(ratios, np.random.default_rng(0)), "stock_steps_per_second": speeds, "rounds": args.rounds}


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: A table
    """
    yield ratio_table("environment steps per second", "over stock", result)


if __name__ == "__main__":
    ask(measure, option("--rounds", 10, "rounds per group", quick=3), show=show, quick="DQN alone")
