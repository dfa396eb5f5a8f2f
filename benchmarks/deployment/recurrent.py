"""
Does a recurrent agent play through its C header as it did in SB3, at 90 % sparsity and with 8-bit weights?

    python -m benchmarks.deployment.recurrent --json benchmarks/results/recurrent.json

RecurrentPPO learns CartPole without the two velocities, so one observation does not say which way the pole falls. It
trains dense at first; then its LSTM and its hidden layer are pruned until 90 % of the actor is zero, while it goes on.
Afterwards it is exported with 8-bit weights. The model before pruning, the pruned one, the compact file and the compiled C
header play the same episodes; so does the header with its state reset at every step, which shows what the memory is worth.
``--quick`` trains for a few thousand steps: a check, not a result.
"""

import ctypes
import shutil
import subprocess
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from benchmarks.shared.question import ask, option, table
from benchmarks.shared.store import Result
from sb3_sparse import CompressedPolicy, GradualPruningCallback, compress
from sb3_sparse.agents import Player, play_returns, play_starts

#: The networks that are pruned: all of an action but its output layer.
NETWORKS = ["lstm_actor", "mlp_extractor"]
#: As rl-zoo3 trains CartPole without velocities, but for more environments, fewer passes over larger batches, and an
#: LSTM that actor and critic share.
SETTINGS: dict[str, Any] = {
    "n_steps": 32,
    "batch_size": 512,
    "n_epochs": 10,
    "gamma": 0.98,
    "gae_lambda": 0.8,
    "policy_kwargs": {
        "lstm_hidden_size": 64,
        "net_arch": [64],
        "ortho_init": False,
        "activation_fn": nn.ReLU,
        "shared_lstm": True,
        "enable_critic_lstm": False,
    },
}
#: Seed of the first episode that is compared.
FIRST = 1_000
PRUNED = "SB3 model, pruned"


class Positions(gym.ObservationWrapper[Any, Any, Any]):
    """The position of the cart and the angle of the pole, without their velocities."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, gym.spaces.Box)
        self.observation_space = gym.spaces.Box(space.low[::2], space.high[::2], dtype=np.float32)

    def observation(self, observation: NDArray[Any]) -> NDArray[Any]:
        return observation[::2]


def make_model(seed: int) -> RecurrentPPO:
    env = VecNormalize(make_vec_env("CartPole-v1", n_envs=32, seed=seed, wrapper_class=Positions))
    model = RecurrentPPO("MlpLstmPolicy", env, seed=seed, device="cpu", **SETTINGS)
    return model


def anneal(model: RecurrentPPO, rates: tuple[float, float], clips: tuple[float, float]) -> None:
    """Learning rate and clip range at the beginning and the end of the next call of ``learn``."""
    model.lr_schedule, model.clip_range = LinearSchedule(*rates, 1.0), LinearSchedule(*clips, 1.0)


class Header:
    """
    The C header of a policy, compiled, as a policy that plays episodes one after the other.

    :param policy: The policy.
    :param folder: Where to compile it.
    :param remembers: Whether it keeps its state until an episode ends.
    """

    def __init__(self, policy: CompressedPolicy, folder: Path, *, remembers: bool = True) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        assert compiler is not None, "there is no C compiler"
        policy.to_c(folder / "policy.h")
        (folder / "policy.c").write_text(
            '#include "policy.h"\nvoid step(const float *x, int32_t *y, int start) {\n    static policy_state state;\n'
            "    if (start) policy_reset(&state);\n    policy_act(&state, x, y);\n}\n"
        )
        library = folder / f"policy_{remembers}.so"
        command = [compiler, "-std=c99", "-O2", "-fPIC", "-shared", str(folder / "policy.c"), "-o", str(library)]
        subprocess.run(command, check=True)
        self._step = ctypes.CDLL(str(library)).step
        self._remembers = remembers

    def __call__(self, observation: NDArray[Any], start: bool) -> NDArray[Any]:
        x, action = np.ascontiguousarray(observation, np.float32), np.zeros(1, np.int32)
        pointers = (ctypes.c_void_p(array.ctypes.data) for array in (x, action))
        self._step(*pointers, int(start or not self._remembers))
        return action.reshape(())


def play(steps: int, sparsity: float, seed: int, episodes: int, folder: Path) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """
    :param steps: Environment steps of training, half of them before pruning.
    :param sparsity: Share of zeros in the end.
    :param seed: Seed of training.
    :param episodes: Number of episodes.
    :param folder: Where to compile the header.
    :return: Returns by contestant, and sizes and times
    """
    venv = make_vec_env("CartPole-v1", wrapper_class=Positions)
    seeds = range(FIRST, FIRST + episodes)
    model = make_model(seed)
    statistics = model.get_vec_normalize_env()
    clock = time.process_time()
    anneal(model, (1e-3, 0.0), (0.2, 0.0))
    model.learn(steps // 2)
    seconds = time.process_time() - clock
    returns = {"SB3 model before pruning": play_returns(venv, Player(model, statistics), seeds)}
    pruning = GradualPruningCallback(NETWORKS, sparsity, start=0.0, end=0.5, update_freq=1024)
    clock = time.process_time()
    anneal(model, (8e-4, 1e-4), (0.2, 0.05))
    # Pruning must not throw a trained agent off its course.
    model.target_kl = 0.02
    model.learn(steps - steps // 2, callback=pruning)
    seconds += time.process_time() - clock
    player = Player(model, statistics)
    observations, starts = play_starts(venv, player, 4096, FIRST + episodes)
    policy = compress(model, calibration=observations, episode_starts=starts)
    contestants = {
        PRUNED: player,
        "compact file": Player(policy),
        "C header": Header(policy, folder),
        "C header without its state": Header(policy, folder, remembers=False),
    }
    returns |= {name: play_returns(venv, act, seeds) for name, act in contestants.items()}
    report = policy.report()
    sizes = {"compact file": policy.nbytes, "dense float32": report.nbytes["dense float32"], "sparsity": report.sparsity}
    return returns, {**sizes, "CPU seconds of training": round(seconds, 1)}


def measure(args: Namespace) -> Result:
    """
    :param args: Steps, sparsity, episodes and seed.
    :return: Returns by contestant, over those of the pruned model
    """
    with tempfile.TemporaryDirectory() as folder:
        returns, sizes = play(args.steps, args.sparsity, args.seed, args.episodes, Path(folder))
    means = {name: float(np.mean(values)) for name, values in returns.items()}
    settings = {name: getattr(args, name) for name in ("steps", "sparsity", "episodes", "seed")}
    ratios = {f"{name} / {PRUNED}": mean / means[PRUNED] for name, mean in means.items()}
    return {"ratios": ratios, "intervals": {}, "returns": returns, **sizes, "settings": settings}


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: A table, and bytes
    """
    rows = [
        (name, *(f"{number:,.1f}" for number in (np.mean(values), np.std(values), np.min(values))))
        for name, values in result["returns"].items()
    ]
    settings = result["settings"]
    yield table(f"{settings['steps']:,} steps, {settings['episodes']} episodes, same seeds", ("", "mean", "std", "min"), rows)
    yield f"{result['compact file']:,} bytes, dense float32 {result['dense float32']:,}; sparsity {result['sparsity']:.4f}"


if __name__ == "__main__":
    ask(
        measure,
        option("--steps", 240_000, "environment steps of training", quick=8_192),
        option("--sparsity", 0.9055, "share of zeros in the end"),
        option("--episodes", 50, "of each contestant", quick=5),
        option("--seed", 0, "of training"),
        show=show,
        quick="a short training",
    )
