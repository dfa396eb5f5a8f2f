"""``sb3-sparse compress``: from an SB3 zip to files, figures and an honest comparison."""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_sparse.agents.environment import make_environment
from sb3_sparse.agents.files import write_files
from sb3_sparse.agents.latency import Latency, measure_latency
from sb3_sparse.agents.load import load_agent
from sb3_sparse.agents.normalization import check_normalization, load_normalization
from sb3_sparse.agents.returns import Act, Returns, model_act, play_observations, play_returns
from sb3_sparse.export import Original, check_bits, compress_network, read_model
from sb3_sparse.runtime import BACKENDS, Policy, load

#: Names in tables and in report.json.
SB3_ZIP, SB3_PREDICT = "SB3 zip", "SB3 predict"
_PACKAGES = ("sb3_sparse", "stable_baselines3", "sb3_contrib", "gymnasium", "torch", "numpy")


@dataclass(frozen=True)
class Agent:
    """
    A trained agent.

    :param path: Its zip.
    :param model: The model.
    :param original: Its policy as it was trained.
    :param normalization: The statistics of its observations, if they are normalized.
    :param env: Name of its environment, if it is known.
    :param venv: The environment.
    """

    path: Path
    model: BaseAlgorithm
    original: Original
    normalization: VecNormalize | None
    env: str | None
    venv: VecEnv | None

    @property
    def act(self) -> Act:
        """The model's deterministic policy."""
        return model_act(self.model, self.normalization)


def compress_agent(
    path: Path,
    out: Path,
    *,
    env: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    algorithm: str | None = None,
    vecnormalize: Path | None = None,
    bits: int = 8,
    calibration_steps: int = 4096,
    episodes: int = 20,
    seed: int = 0,
    latency: bool = True,
) -> None:
    """
    Write ``<agent>.sb3s``, ``<agent>.h``, ``<agent>.onnx``, ``densities.png`` and ``report.json``, and print the contents of
    the report. Loading a zip unpickles it: only load files that you trust.

    :param path: An SB3 zip.
    :param out: Folder to write to; it is made if it does not exist.
    :param env: Name of the environment; without it there is neither a calibration nor a comparison of returns.
    :param env_kwargs: Arguments of the environment.
    :param algorithm: Name of the algorithm, if the zip does not say it.
    :param vecnormalize: Statistics of ``VecNormalize``; by default found where SB3 and rl-zoo3 save them.
    :param bits: Bits per weight, 2 to 8, or 32.
    :param calibration_steps: Number of observations to calibrate with, from the model's own episodes.
    :param episodes: Number of episodes to compare returns over.
    :param seed: Seed of the first episode; the others have the next seeds, and the episodes for calibration those after them.
    :param latency: Whether to measure times.
    :raises ValueError: if an argument is wrong, or something in the model cannot be exported; nothing is written then
    :raises OSError: if a file cannot be read or written
    """
    for name, number, least in (("episodes", episodes, 1), ("calibration_steps", calibration_steps, 0), ("seed", seed, 0)):
        if number < least:
            raise ValueError(f"{name.replace('_', ' ')} must be at least {least}, got {number}")
    check_bits(bits)
    _check_writable(out)
    agent = _load(path, env, env_kwargs, algorithm, vecnormalize)
    try:
        observations = _observations(agent, calibration_steps, seed + episodes)
        compressed = compress_network(agent.original, bits, observations)
        out.mkdir(parents=True, exist_ok=True)
        compact = out / f"{path.stem}.sb3s"
        compact.write_bytes(compressed.data)
        report = replace(compressed.report, nbytes={SB3_ZIP: path.stat().st_size, **compressed.report.nbytes})
        print(f"\n{report}\n")
        written = [compact.name, *write_files(path.stem, agent.original, compressed, out), "report.json"]
        # Loaded from the file, as its user does.
        exported = load(compact)
        returns = None if agent.venv is None else _compare(agent, agent.venv, exported, range(seed, seed + episodes))
        times = _time(agent, exported, compact, observations) if latency else None
    finally:
        if agent.venv is not None:
            agent.venv.close()
    content = {
        "agent": path.name,
        "algorithm": type(agent.model).__name__,
        "env": env,
        "env_kwargs": env_kwargs or {},
        "bits": bits,
        "calibration_steps": 0 if observations is None else len(observations),
        "vecnormalize": agent.normalization is not None,
        **report.to_dict(),
        "returns": None if returns is None else returns.to_dict(),
        "latency_us": None if times is None else times.to_dict(),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}},
        "machine": {"processor": platform.processor() or platform.machine(), "system": platform.platform()},
    }
    (out / "report.json").write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    print(f"\nwritten to {out}: {', '.join(written)}")


def _check_writable(out: Path) -> None:
    """Before minutes of work, not after."""
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not existing.is_dir():
        raise ValueError(f"{out} cannot be the output folder: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{out} cannot be the output folder: {existing} cannot be written to")


def _load(
    path: Path, env: str | None, env_kwargs: dict[str, Any] | None, algorithm: str | None, vecnormalize: Path | None
) -> Agent:
    model = load_agent(path, algorithm)
    print(f"{path.name}: {type(model).__name__}")
    found = load_normalization(path, env, vecnormalize)
    print("no statistics of VecNormalize" if found is None else f"observations are normalized as {found[0]} says")
    normalization = None if found is None else found[1]
    if vecnormalize is None:
        check_normalization(path, model, found)
    # A model that cannot be exported is refused before any episode is played.
    original = read_model(model, normalization)
    venv = None if env is None else make_environment(env, model, env_kwargs)
    return Agent(path, model, original, normalization, env, venv)


def _observations(agent: Agent, count: int, seed: int) -> NDArray[Any] | None:
    if agent.venv is None:
        print("without --env: no calibration and no comparison of returns")
    if agent.venv is None or count == 0:
        return None
    print(f"{count} observations for calibration ...", flush=True)
    return play_observations(agent.venv, agent.act, count, seed)


def _compare(agent: Agent, venv: VecEnv, exported: Policy, seeds: range) -> Returns:
    print(f"{len(seeds)} episodes of {agent.env} each ...", flush=True)
    before = play_returns(venv, agent.act, seeds)
    after = play_returns(venv, lambda observation: exported.predict(observation)[0], seeds)
    returns = Returns(tuple(seeds), tuple(before), tuple(after))
    print(f"{returns}\n", flush=True)
    return returns


def _time(agent: Agent, exported: Policy, compact: Path, observations: NDArray[Any] | None) -> Latency:
    if observations is None:
        space = agent.model.observation_space
        space.seed(0)
        observations = np.stack([space.sample() for _ in range(256)])
    contestants: dict[str, Callable[[NDArray[Any]], object]] = {SB3_PREDICT: agent.act}
    for backend in BACKENDS:
        try:
            if backend != "auto":
                policy = exported if backend == exported.backend else load(compact, backend)
                contestants[backend] = policy.predict
        except RuntimeError as error:
            print(str(error).splitlines()[0])
    latency = measure_latency(contestants, observations)
    print(latency, flush=True)
    return latency
