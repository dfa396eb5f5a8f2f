"""
The contestants of ``rivals.py``, each in a process and an environment of its own.

    python -m benchmarks.speed.rival_workers SIDE ENV WIDTH BATCH FOLDER

A side imports what its own environment has, and nothing else. It trains until learning has begun and everything is compiled,
and then makes as many steps as it is told to, see ``workers.py``.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym

from benchmarks.shared.workers import Learn, serve

LEARNING_STARTS, BUFFER = 300, 100_000
#: Steps before the first one that is timed: the start of ``learn()`` does not count.
WARM = 10

#: RLtools' own Pendulum for its Python interface, which includes a file of this name.
ENVIRONMENT = """\
#include <rl_tools/rl/environments/pendulum/operations_cpu.h>
template <typename T, typename TI>
using ENVIRONMENT_FACTORY = rl_tools::rl::environments::Pendulum<rl_tools::rl::environments::pendulum::Specification<T, TI>>;
"""


@dataclass(frozen=True)
class Setting:
    """What all contestants of one comparison share, and a folder for what they write."""

    env: str
    width: int
    batch_size: int
    folder: Path


class Stopwatch(gym.Wrapper):
    """Notes the CPU time of every environment step."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.times: list[float] = []

    def step(self, action):
        self.times.append(time.process_time())
        return self.env.step(action)


def in_learn(algorithm: Any, setting: Setting, make_callbacks: Callable[[], list[Any]]) -> Learn:
    """
    :param algorithm: SAC of SB3 or of SBX, whose ``learn()`` is SB3's.
    :param setting: What it trains.
    :param make_callbacks: Makes the callbacks of one call of ``learn()``.
    :return: Trains it with a Monitor and a logger that writes nothing
    """
    import torch as th
    from stable_baselines3.common.logger import configure
    from stable_baselines3.common.monitor import Monitor

    th.set_num_threads(1)
    watch = Stopwatch(gym.make(setting.env))
    model = algorithm(
        "MlpPolicy",
        Monitor(watch),
        learning_starts=LEARNING_STARTS,
        buffer_size=BUFFER,
        batch_size=setting.batch_size,
        train_freq=1,
        gradient_steps=1,
        policy_kwargs={"net_arch": [setting.width] * 2},
        device="cpu",
        seed=0,
    )
    model.set_logger(configure(None, []))

    def learn(steps: int) -> float:
        watch.times.clear()
        model.learn(WARM + steps + 1, callback=make_callbacks(), reset_num_timesteps=False)
        return (watch.times[-1] - watch.times[WARM]) / steps

    learn(LEARNING_STARTS + 30)
    return learn


def make_sb3(setting: Setting) -> Learn:
    """Stock SB3."""
    from stable_baselines3 import SAC

    return in_learn(SAC, setting, list)


def make_engine(sparsity: float, setting: Setting) -> Learn:
    """SB3 in the engine, with zeros at random in all networks."""
    from stable_baselines3 import SAC

    from sb3_sparse import EngineCallback, OneShotPruningCallback

    def callbacks() -> list[Any]:
        prune = OneShotPruningCallback("all", sparsity, saliency="random", targets="mask", seed=0)
        return [*([prune] if sparsity else []), EngineCallback(strict=True)]

    return in_learn(SAC, setting, callbacks)


def make_sbx(setting: Setting) -> Learn:
    """SBX: JAX compiles its update, for one thread; the rest is SB3's."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    from sbx import SAC

    return in_learn(SAC, setting, list)


def make_rltools(blas: bool, in_python: bool, setting: Setting) -> Learn:
    """
    :param blas: Whether it multiplies by MKL, as its documentation advises for Linux, or by its own loops.
    :param in_python: Whether the environment is Gymnasium's and not its own in C++.
    :param setting: What it trains.
    :return: Calls its ``step``: one environment step and one update, in C++
    """
    # Where RLtools compiles to.
    tempfile.tempdir = str(setting.folder)
    from rltools import SAC

    def in_gymnasium() -> gym.Env:
        return gym.wrappers.RescaleAction(gym.make(setting.env), -1.0, 1.0)

    header = setting.folder / "pendulum" / "environment.h"
    header.parent.mkdir(exist_ok=True)
    header.write_text(ENVIRONMENT)
    name = f"{'blas' if blas else 'loops'}_{'python' if in_python else 'cpp'}_{setting.width}_{setting.batch_size}"
    module = SAC(
        in_gymnasium if in_python else {"path": str(header.parent), "action_dim": 1, "observation_dim": 3},
        enable_evaluation=False,
        enable_blas=blas,
        force_blas=blas,
        interface_name=name,
        ACTOR_BATCH_SIZE=setting.batch_size,
        CRITIC_BATCH_SIZE=setting.batch_size,
        ACTOR_HIDDEN_DIM=setting.width,
        CRITIC_HIDDEN_DIM=setting.width,
        # Two hidden layers and the output.
        ACTOR_NUM_LAYERS=3,
        CRITIC_NUM_LAYERS=3,
        N_WARMUP_STEPS=LEARNING_STARTS,
        REPLAY_BUFFER_CAP=BUFFER,
        # It stands still after that many.
        STEP_LIMIT=10**9,
    )
    state = module.State(0)

    def learn(steps: int) -> float:
        begin = time.process_time()
        for _ in range(steps):
            state.step()
        return (time.process_time() - begin) / steps

    learn(LEARNING_STARTS + WARM)
    return learn


#: By name: what makes a contestant.
SIDES: dict[str, Callable[[Setting], Learn]] = {
    "sb3": make_sb3,
    "dense": partial(make_engine, 0.0),
    "sparse/0.9": partial(make_engine, 0.9),
    "sparse/0.99": partial(make_engine, 0.99),
    "sbx": make_sbx,
    "rltools": partial(make_rltools, True, False),
    "rltools/gymnasium": partial(make_rltools, True, True),
    "rltools/loops": partial(make_rltools, False, False),
}


def describe(side: str) -> dict[str, str]:
    """
    :param side: Name of a contestant.
    :return: Versions of what it has that the others do not
    """
    if side == "sbx":
        return {package: version(package) for package in ("sbx-rl", "jax", "flax")}
    if side.startswith("rltools"):
        from rltools.src.compile import find_compiler

        compiler = find_compiler()[0]
        answer = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=True)
        return {"rltools": version("rltools"), "mkl": version("mkl"), compiler: answer.stdout.strip()}
    return {}


def main() -> None:
    """Serve the contestant that the command line names."""
    side, env, width, batch_size, folder = sys.argv[1:]
    setting = Setting(env, int(width), int(batch_size), Path(folder).resolve())
    serve(lambda: ({side: SIDES[side](setting)}, describe(side)))


if __name__ == "__main__":
    main()
