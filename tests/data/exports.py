"""
Policies that are exported, and what their files and C headers compute. Only public names are used, so that this runs with old
versions of the package and with new ones.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_sparse import OneShotPruningCallback, compress
from sb3_sparse.policies import MinAtarExtractor, ResNetExtractor
from sb3_sparse.runtime import BACKENDS, load
from tests.data.facts import Arrays, observations
from tests.data.runs import RUNS, Images, restored


def _disturbed(model: BaseAlgorithm) -> BaseAlgorithm:
    """Weights that are far from those that a layer begins with; what is pruned stays so."""
    generator = th.Generator().manual_seed(0)
    with th.no_grad():
        for parameter in model.policy.parameters():
            size = 1.2 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.1
            parameter += th.randn(parameter.shape, generator=generator) * size * ((parameter != 0) | (parameter.ndim == 1))
    return model


def normalized() -> VecNormalize:
    """
    :return: A Pendulum whose observations are normalized, by what 50 random steps have shown
    """
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    env.seed(0)
    env.action_space.seed(0)
    env.reset()
    for _ in range(50):
        env.step(np.array([env.action_space.sample()]))
    return env


def _images(extractor: type, size: int, **kwargs: Any) -> BaseAlgorithm:
    """A sparse policy for images, with several actions."""
    kwargs = {"features_dim": 16, **kwargs}
    policy_kwargs = {"features_extractor_class": extractor, "features_extractor_kwargs": kwargs, "net_arch": []}
    settings: dict[str, Any] = {"n_steps": 2, "batch_size": 2, "n_epochs": 1, "seed": 0, "device": "cpu"}
    model = PPO("CnnPolicy", Images(size, discrete=False), policy_kwargs=policy_kwargs, **settings)
    return model.learn(2, callback=OneShotPruningCallback("all", 0.9, saliency="random", exclude=["*_net"]))


@dataclass(frozen=True)
class Export:
    """
    A policy that is exported.

    :param source: The run whose checkpoint it is, or a function that gives a model.
    :param bits: Bits per weight.
    :param arithmetics: Those that its C header has.
    """

    source: str | Callable[[], BaseAlgorithm]
    bits: int
    arithmetics: tuple[str, ...] = ("float",)


EXPORTS = {
    "float": Export("sac_snip", 32),
    "int8": Export("td3_set", 8, ("float", "integer")),
    "discrete": Export("dqn_qat", 8, ("float", "integer")),
    "convolution": Export(partial(_images, MinAtarExtractor, 8), 8, ("float", "integer")),
    "residual": Export(partial(_images, ResNetExtractor, 20, form="impala", depth=1), 8),
    "float_residual": Export(partial(_images, ResNetExtractor, 20, form="impala", depth=1), 32),
}
#: The one whose C header is kept; of the others only what it computes.
HEADER = "int8"


def export(name: str, checkpoints: Path, folder: Path) -> Arrays:
    """
    :param name: What to export, of ``EXPORTS``.
    :param checkpoints: Where the saved runs are.
    :param folder: Where the exported files go.
    :return: Actions of the exported policy on fixed observations, by backend and by arithmetic of the C code
    """
    source, bits = EXPORTS[name].source, EXPORTS[name].bits
    model = _disturbed(restored(RUNS[source], checkpoints / source) if isinstance(source, str) else source())
    space, normalization = model.observation_space, normalized() if name == "int8" else None
    policy = compress(model, bits, None if bits == 32 else observations(space, 64), normalization=normalization)
    policy.save(folder / f"{name}.sb3s")
    policy.to_c(folder / f"{name}.h", name=name)
    return exported_actions(folder / f"{name}.sb3s", space) | header_actions(folder / f"{name}.h", space)


def exported_actions(path: Path, space: spaces.Space[Any]) -> Arrays:
    """
    :param path: An exported file.
    :param space: Of its observations.
    :return: Its actions on fixed observations, by the backends that this machine has: of a batch, and of one after the other
    """
    results = {}
    for backend in BACKENDS:
        try:
            policy = load(path, backend)
        except RuntimeError:
            continue
        results[backend] = policy.predict(observations(space))[0]
        results[f"{backend}, one by one"] = np.stack([policy.predict(row)[0] for row in observations(space)])
    return results


MAIN = """
#include <stdio.h>
int main(void) {
    static NAME_observation x[INPUTS];
    static NAME_action y[64];
    if (NAME_self_test() != 0) return 1;
    while (fread(x, sizeof x, 1, stdin) == 1) {
        NAME_act(x, y);
        for (int i = 0; i < 64; i++) {
            const float action = (float)y[i];
            fwrite(&action, sizeof action, 1, stdout);
        }
    }
    return 0;
}
"""


def header_actions(path: Path, space: spaces.Space[Any]) -> Arrays:
    """
    :param path: The C header of an exported policy, whose file has its name.
    :param space: Of its observations.
    :return: Its actions on fixed observations, ``[n, 64]`` with zeros after the last, by arithmetic; none without a C compiler
    :raises CalledProcessError: if it does not compile without a warning, or its self test fails
    """
    name, results = path.stem, {}
    if shutil.which("gcc") is None:
        return {}
    for arithmetic in EXPORTS[name].arithmetics:
        with tempfile.TemporaryDirectory() as folder:
            define = f"#define {name.upper()}_SELF_TEST\n#define {name.upper()}_{arithmetic.upper()}\n"
            main = MAIN.replace("NAME", name).replace("INPUTS", str(np.prod(space.shape)))
            (Path(folder) / "main.c").write_text(f'{define}#include "{path.resolve()}"\n{main}')
            command = ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-O2", "main.c", "-o", "main"]
            subprocess.run(command, check=True, cwd=folder)
            data = observations(space).tobytes()
            output = subprocess.run([f"{folder}/main"], input=data, capture_output=True, check=True).stdout
        results[f"C, {arithmetic}"] = np.frombuffer(output, np.float32).reshape(-1, 64)
    return results
