"""``sb3-sparse compress``: an SB3 zip in; files, figures and an honest comparison out."""

import json
import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_sparse.agents.load import load_agent, load_normalization, make_environment
from sb3_sparse.agents.measure import (
    Latency,
    Returns,
    measure_latency,
    model_act,
    play_observations,
    play_returns,
)
from sb3_sparse.export.passes.fold import fold
from sb3_sparse.export.policy import CompressedPolicy, compress
from sb3_sparse.export.report.figure import save_densities
from sb3_sparse.export.report.report import Report
from sb3_sparse.export.trace.graph import trace
from sb3_sparse.runtime import BACKENDS, load
from sb3_sparse.runtime.network.records import Network

#: Names in tables and in report.json.
SB3_ZIP, SB3_PREDICT = "SB3 zip", "SB3 predict"
_PACKAGES = ("sb3_sparse", "stable_baselines3", "sb3_contrib", "gymnasium", "torch", "numpy")


@dataclass(frozen=True)
class Agent:
    """
    A trained agent.

    :param path: Its zip.
    :param model: The model.
    :param original: What its policy computes.
    :param normalization: The statistics of its observations, if they are normalized.
    :param env: Name of its environment, if it is known.
    :param venv: The environment.
    """

    path: Path
    model: BaseAlgorithm
    original: Network
    normalization: VecNormalize | None
    env: str | None
    venv: VecEnv | None


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
    Write ``<agent>.sb3s``, ``<agent>.h``, ``<agent>.onnx``, ``densities.png`` and ``report.json``, and print what is in the
    last one. Loading a zip unpickles it: only load files that you trust.

    :param path: An SB3 zip.
    :param out: Folder to write to; it is made if need be.
    :param env: Name of the environment; without, there is neither a calibration nor a comparison of returns.
    :param env_kwargs: Arguments of the environment.
    :param algorithm: Name of the algorithm, if the zip does not say.
    :param vecnormalize: Statistics of ``VecNormalize``; by default those that lie where SB3 and rl-zoo3 save them.
    :param bits: Bits per weight, 2 to 8, or 32.
    :param calibration_steps: Number of observations to calibrate with, from the model's own episodes.
    :param episodes: Number of episodes to compare returns over.
    :param seed: Seed of the first episode; the others have the next ones, and those for calibration follow after them.
    :param latency: Whether to measure times.
    :raises ValueError: if an argument is wrong, or something in the model cannot be exported; nothing is written then
    :raises OSError: if a file cannot be read or written
    """
    for name, number, least in (("episodes", episodes, 1), ("calibration_steps", calibration_steps, 0), ("seed", seed, 0)):
        if number < least:
            raise ValueError(f"{name.replace('_', ' ')} must be at least {least}, got {number}")
    _check_writable(out)
    agent = _load(path, env, env_kwargs, algorithm, vecnormalize)
    try:
        observations = _observations(agent, calibration_steps, seed + episodes)
        policy = compress(agent.model, bits, observations, normalization=agent.normalization)
        out.mkdir(parents=True, exist_ok=True)
        compact = out / f"{path.stem}.sb3s"
        policy.save(compact)
        report = policy.report()
        report = replace(report, nbytes={SB3_ZIP: path.stat().st_size, **report.nbytes})
        print(f"\n{report}")
        written = [compact.name, *_write_forms(agent, policy, report, out), "report.json"]
        returns = _compare(agent, compact, range(seed, seed + episodes))
        times = _time(agent, compact, observations) if latency else None
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
    # What cannot be exported is refused before anything is played.
    original = fold(trace(model, normalization))
    venv = None if env is None else make_environment(env, model, env_kwargs)
    return Agent(path, model, original, normalization, env, venv)


def _observations(agent: Agent, count: int, seed: int) -> NDArray[Any] | None:
    if agent.venv is None:
        print("without --env: no calibration and no comparison of returns")
    if agent.venv is None or count == 0:
        return None
    print(f"{count} observations for calibration ...", flush=True)
    return play_observations(agent.venv, model_act(agent.model, agent.normalization), count, seed)


def _write_forms(agent: Agent, policy: CompressedPolicy, report: Report, out: Path) -> list[str]:
    """All files but the compact one, if they can be: what needs a missing package, or cannot hold this policy, says so."""
    forms: Mapping[str, Callable[[Path], None]] = {
        f"{agent.path.stem}.h": lambda file: policy.to_c(file, name=_c_name(agent.path.stem)),
        f"{agent.path.stem}.onnx": policy.to_onnx,
        "densities.png": lambda file: save_densities(file, report, agent.original, policy.network),
    }
    written = []
    print()
    for name, write in forms.items():
        try:
            write(out / name)
            written.append(name)
        except (ImportError, ValueError) as error:
            # One of an earlier run would not belong to the rest.
            (out / name).unlink(missing_ok=True)
            print(f"no {name}: {error}", flush=True)
    return written


def _c_name(stem: str) -> str:
    """The name of a file as a C identifier, so that headers of several agents can be included together."""
    name = re.sub(r"\W+", "_", stem.lower(), flags=re.ASCII).strip("_")
    return name if re.match("[a-z]", name) and name != "sb3s" else f"policy_{name}".rstrip("_")


def _compare(agent: Agent, compact: Path, seeds: range) -> Returns | None:
    """Returns of the model and of the file, loaded anew as its user does."""
    if agent.venv is None:
        return None
    print(f"{len(seeds)} episodes of {agent.env} each ...", flush=True)
    exported = load(compact)
    before = play_returns(agent.venv, model_act(agent.model, agent.normalization), seeds)
    after = play_returns(agent.venv, lambda observation: exported.predict(observation)[0], seeds)
    returns = Returns(tuple(seeds), tuple(before), tuple(after))
    print(f"{returns}\n", flush=True)
    return returns


def _time(agent: Agent, compact: Path, observations: NDArray[Any] | None) -> Latency:
    if observations is None:
        space = agent.model.observation_space
        space.seed(0)
        observations = np.stack([space.sample() for _ in range(256)])
    contestants: dict[str, Callable[[NDArray[Any]], object]] = {SB3_PREDICT: model_act(agent.model, agent.normalization)}
    for backend in BACKENDS:
        try:
            if backend != "auto":
                contestants[backend] = load(compact, backend).predict
        except RuntimeError as error:
            print(str(error).splitlines()[0])
    latency = measure_latency(contestants, observations)
    print(latency, flush=True)
    return latency
