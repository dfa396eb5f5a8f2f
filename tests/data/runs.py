"""
Runs that are saved in their middle and resumed. Only public names are used, so that this runs with old versions of the package
and with new ones.
"""

import random
import zipfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import stable_baselines3 as sb3
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.envs import FakeImageEnv

from sb3_sparse import GradualPruningCallback, OneShotPruningCallback, QATCallback, RewiringCallback, restore
from sb3_sparse.offline import BC, BCQ, DiscreteBCQ, OfflineDataset
from sb3_sparse.pixels import FrameReplayBuffer
from sb3_sparse.policies import MinAtarExtractor, SparseDQNCnnPolicy, SparseTD3Policy

SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [16, 16]}, "seed": 0, "device": "cpu"}
OFF_POLICY: dict[str, Any] = {**SMALL, "learning_starts": 20, "batch_size": 16, "buffer_size": 210}
Q_LEARNING: dict[str, Any] = {**OFF_POLICY, "train_freq": 1, "target_update_interval": 10}
SPARSE: dict[str, Any] = {"policy_kwargs": {"net_arch": [16, 16], "sparsity": 0.5, "distribution": "uniform"}}
BOX = spaces.Box(np.array([-2.0, 0.5], np.float32), np.array([1.0, 4.5], np.float32))


class Images(FakeImageEnv):
    """
    Random images, the same after the same seed.

    :param size: Their height and width.
    :param discrete: Whether the actions are.
    """

    def __init__(self, size: int = 6, discrete: bool = True) -> None:
        super().__init__(screen_height=size, screen_width=size, n_channels=4, discrete=discrete, channel_first=True)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """
        :param seed: Seed of the images.
        :param options: Not used.
        :return: The first image, and no information
        """
        if seed is not None:
            self.observation_space.seed(seed)
        return super().reset(seed=seed, options=options)


def dataset(discrete: bool) -> OfflineDataset:
    """
    :param discrete: Whether the actions are.
    :return: 150 transitions that mean nothing
    """
    rng, count = np.random.default_rng(0), 150
    last = np.arange(count) % 15 == 14
    ends = np.arange(count) % 30 == 29
    return OfflineDataset.from_arrays(
        observations=rng.normal(size=(count, 3)).astype(np.float32),
        actions=rng.integers(4, size=count) if discrete else rng.uniform(BOX.low, BOX.high, (count, 2)).astype(np.float32),
        rewards=rng.normal(size=count).astype(np.float32),
        next_observations=rng.normal(size=(count, 3)).astype(np.float32),
        terminations=ends,
        truncations=last & ~ends,
        observation_space=spaces.Box(-np.inf, np.inf, (3,), np.float32),
        action_space=spaces.Discrete(4) if discrete else BOX,
    )


@dataclass(frozen=True)
class Run:
    """
    A run that is saved in its middle and resumed.

    :param algorithm: The class of the model.
    :param where: Name or class of an environment; of an offline algorithm, whether its actions are discrete.
    :param callbacks: What its callbacks are.
    :param cut: The step, or update, at which it is saved.
    :param steps: The step at which it ends.
    :param kwargs: Arguments of the model.
    :param policy: The policy.
    :param ended: Whether ``learn()`` has returned when it is saved; if not, it is saved by a callback.
    """

    algorithm: type[BaseAlgorithm]
    where: Any
    callbacks: Callable[[], list[BaseCallback]]
    cut: int
    steps: int
    kwargs: dict[str, Any] = field(default_factory=dict)
    policy: Any = "MlpPolicy"
    ended: bool = False

    def place(self) -> dict[str, Any]:
        """
        :return: The environment, or the dataset, as an argument of the algorithm
        """
        if isinstance(self.where, bool):
            return {"dataset": dataset(self.where)}
        return {"env": gym.make(self.where) if isinstance(self.where, str) else self.where()}


#: By name; arguments take many forms, since the earliest version keys its clocks by them.
RUNS = {
    # Shares of the first run, which resuming must not move.
    "sac_gradual": Run(
        sb3.SAC, "Pendulum-v1", lambda: [GradualPruningCallback("all", 0.9, update_freq=7)], 110, 200, OFF_POLICY
    ),
    "sac_gradual_qat": Run(
        sb3.SAC,
        "Pendulum-v1",
        lambda: [
            GradualPruningCallback(["actor"], 0.8, 0.1, 0.5, 10, exclude=["mu"], initial_sparsity=0.2),
            QATCallback("actor", start=0.8, bits=4),
        ],
        75,
        150,
        OFF_POLICY,
    ),
    "sac_snip": Run(
        sb3.SAC,
        "Pendulum-v1",
        lambda: [OneShotPruningCallback("critic", 0.8, at=0.5, saliency="snip", n_samples=30, seed=3, targets="polyak")],
        60,
        140,
        OFF_POLICY,
    ),
    "td3_set": Run(
        sb3.TD3,
        "Pendulum-v1",
        lambda: [RewiringCallback("all", 0.3, 10, seed=7)],
        45,
        91,
        {**OFF_POLICY, **SPARSE},
        SparseTD3Policy,
    ),
    # Cut where the actor, which is trained every third step, waits for its gradient.
    "td3_rigl": Run(
        sb3.TD3,
        "Pendulum-v1",
        lambda: [RewiringCallback("all", 0.3, 10, "gradient", "cosine", 0.75)],
        41,
        91,
        {**OFF_POLICY, **SPARSE, "policy_delay": 3, "learning_starts": 21},
        SparseTD3Policy,
    ),
    # Ended where a rewiring is due, whose new masks wait for the next run.
    "sac_rigl": Run(
        sb3.SAC,
        "Pendulum-v1",
        lambda: [
            OneShotPruningCallback("all", 0.5, saliency="random", targets="polyak"),
            RewiringCallback("all", 0.3, 10, "gradient", targets="polyak"),
        ],
        40,
        81,
        OFF_POLICY,
        ended=True,
    ),
    "td3_static_set": Run(
        sb3.TD3,
        "Pendulum-v1",
        lambda: [
            OneShotPruningCallback("all", 0.5, saliency="random", distribution="erdos_renyi"),
            RewiringCallback("all", 0.2, 10, targets="topk", drop="magnitude_by_sign", stop=80),
        ],
        50,
        91,
        OFF_POLICY,
    ),
    "dqn_qat": Run(sb3.DQN, "CartPole-v1", lambda: [QATCallback("q_net", start=0.3)], 70, 120, Q_LEARNING),
    "dqn_frames": Run(
        sb3.DQN,
        Images,
        lambda: [RewiringCallback("q_net", 0.3, 10, "gradient", targets="mask"), QATCallback("q_net", start=60)],
        45,
        81,
        {
            **Q_LEARNING,
            "policy_kwargs": {
                "sparsity": 0.5,
                "features_extractor_class": MinAtarExtractor,
                "features_extractor_kwargs": {"features_dim": 8},
                "net_arch": [],
            },
            "replay_buffer_class": FrameReplayBuffer,
            "buffer_size": 90,
        },
        SparseDQNCnnPolicy,
    ),
    # Cut in the middle of a rollout, which SB3 does not save.
    "ppo_gradual": Run(
        sb3.PPO,
        "Pendulum-v1",
        lambda: [GradualPruningCallback("mlp_extractor", 0.9, update_freq=20, saliency="random")],
        100,
        256,
        {**SMALL, "n_steps": 32, "batch_size": 16, "n_epochs": 2},
    ),
    "bcq_snip": Run(
        BCQ,
        False,
        lambda: [GradualPruningCallback("all", 0.8, start=0.3, end=0.9, update_freq=5, saliency="snip")],
        20,
        40,
        {**SMALL, "batch_size": 16, "n_eval_actions": 20},
    ),
    "bc_snip": Run(
        BC,
        False,
        lambda: [OneShotPruningCallback("all", 0.7, at=0.5, saliency="snip", n_samples=30)],
        15,
        40,
        {**SMALL, "batch_size": 16, "mode": "vae"},
    ),
    "discrete_bcq_rigl": Run(
        DiscreteBCQ,
        True,
        lambda: [
            OneShotPruningCallback("all", 0.5, saliency="random", targets="mask"),
            RewiringCallback("all", 0.3, 10, "gradient", targets="mask"),
        ],
        20,
        45,
        {**SMALL, "batch_size": 16},
    ),
}


class SaveAndStop(BaseCallback):
    """
    Saves the model and its replay buffer at a step, and ends the run.

    :param step: The step.
    :param path: Where to, without the endings.
    """

    def __init__(self, step: int, path: Path) -> None:
        super().__init__()
        self.step, self.path = step, path

    def _on_step(self) -> bool:
        if self.num_timesteps < self.step:
            return True
        _save(self.model, self.path)
        return False


def _save(model: BaseAlgorithm, path: Path) -> None:
    model.save(path.with_suffix(".zip"))
    _deflate(path.with_suffix(".zip"))
    if hasattr(model, "save_replay_buffer"):
        model.save_replay_buffer(path.with_suffix(".pkl"))


def _deflate(path: Path) -> None:
    """The same files in a smaller zip: half of what torch writes is padding."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def begin(run: Run, path: Path) -> None:
    """
    :param run: A run.
    :param path: Where to save it, without the endings.
    """
    model = run.algorithm(run.policy, **run.place(), **deepcopy(run.kwargs))
    if run.ended:
        _save(model.learn(run.cut, callback=run.callbacks()), path)
    else:
        model.learn(run.steps, callback=[*run.callbacks(), SaveAndStop(run.cut, path)])


def load_run(run: Run, path: Path) -> BaseAlgorithm:
    """
    :param run: A run.
    :param path: Where it was saved, without the endings.
    :return: The model, with its replay buffer
    """
    model = run.algorithm.load(path.with_suffix(".zip"), **run.place(), device="cpu")
    if hasattr(model, "load_replay_buffer"):
        model.load_replay_buffer(path.with_suffix(".pkl"))
    return model


def resume(run: Run, path: Path) -> BaseAlgorithm:
    """
    :param run: A run.
    :param path: Where it was saved, without the endings.
    :return: The model at its end, from random numbers and an episode that begin anew
    """
    model = load_run(run, path)
    random.seed(1)
    np.random.seed(1)
    th.manual_seed(1)
    model.action_space.seed(1)
    env = model.get_env()
    if env is not None:
        env.seed(1)
    model._last_obs = None
    return model.learn(run.steps - run.cut, callback=run.callbacks(), reset_num_timesteps=False)


def restored(run: Run, path: Path) -> BaseAlgorithm:
    """
    :param run: A run.
    :param path: Where it was saved, without the endings.
    :return: The model as it was saved
    """
    model = load_run(run, path)
    restore(model)
    return model
