"""
Does an exported policy play as well as the model it came from?

    python -m benchmarks.deployment.returns AGENT.zip [AGENT.zip ...] --json benchmarks/results/returns.json

Each agent plays the environment that its file is named after (``sac-HalfCheetah-v4.zip``: HalfCheetah-v4), then three
exports of it play the same episodes: 8 bits with calibration observations of other episodes of its own, 8 bits without any,
and float weights as a control, for the smallest rounding changes an episode. Falls are rare, so look at the minimum as well.

Without agents, SAC is trained on Pendulum-v1 first (``--quick``: for 3,000 steps), whose returns are negative: read its
difference, not its ratio.
"""

import tempfile
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3 import SAC

from benchmarks.shared.question import ask, option, table
from benchmarks.shared.store import Result
from sb3_sparse import compress
from sb3_sparse.agents import Player, load_agent, make_environment, model_act, play_observations, play_returns

#: What is exported: bits, and whether with calibration.
FORMS = {"8 bits": (8, True), "8 bits without calibration": (8, False), "float": (32, True)}


def train(folder: Path, steps: int) -> Path:
    """A SAC agent on Pendulum."""
    path = folder / "sac-Pendulum-v1.zip"
    SAC("MlpPolicy", gym.make("Pendulum-v1"), seed=0, device="cpu").learn(steps).save(path)
    return path


def play(path: Path, episodes: int, seed: int) -> dict[str, Any]:
    """
    :param path: Zip of an agent, named ``<algorithm>-<environment>.zip``.
    :param episodes: Number of episodes.
    :param seed: Seed of the first one.
    :return: Returns of the model and of each export, episode by episode
    """
    model = load_agent(path)
    venv = make_environment(path.stem.split("-", 1)[1], model)
    seeds = range(seed, seed + episodes)
    observations = play_observations(venv, model_act(model, None), 4096, seed + episodes)
    returns = {"SB3 model": play_returns(venv, model_act(model, None), seeds)}
    bytes_of = {}
    for name, (bits, calibrated) in FORMS.items():
        policy = compress(model, bits, observations if calibrated else None)
        returns[name] = play_returns(venv, Player(policy), seeds)
        bytes_of[name] = policy.nbytes
    venv.close()
    return {"returns": returns, "nbytes": bytes_of, "seeds": [seed, seed + episodes]}


def ratio(model: np.ndarray, exported: np.ndarray, rng: np.random.Generator) -> tuple[float, list[float]]:
    """Ratio of the means, and its 95 % bootstrap interval over pairs of episodes."""
    draws = rng.integers(0, len(model), (2000, len(model)))
    ratios = exported[draws].mean(axis=1) / model[draws].mean(axis=1)
    return float(exported.mean() / model.mean()), [float(end) for end in np.percentile(ratios, [2.5, 97.5])]


def measure(args: Namespace) -> Result:
    """
    :param args: Agents, episodes and seed.
    :return: Returns of all agents and exports, and their ratios
    """
    rng = np.random.default_rng(0)
    result: Result = {"ratios": {}, "intervals": {}, "agents": {}}
    with tempfile.TemporaryDirectory() as folder:
        for path in args.agents or [train(Path(folder), 3_000 if args.quick else 10_000)]:
            found = result["agents"][path.stem] = play(path, args.episodes, args.seed)
            model = np.array(found["returns"]["SB3 model"])
            for form in FORMS:
                share, interval = ratio(model, np.array(found["returns"][form]), rng)
                result["ratios"][f"{path.stem}/{form}"], result["intervals"][f"{path.stem}/{form}"] = share, interval
    return result


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: A table
    """
    rows = []
    for agent, found in result["agents"].items():
        for form, values in found["returns"].items():
            key, size = f"{agent}/{form}", found["nbytes"].get(form)
            cells = (f"{number:,.1f}" for number in (np.mean(values), np.std(values), np.min(values)))
            last = ("", "")
            if key in result["ratios"]:
                last = (f"{result['ratios'][key]:.4f}", "{:.3f} - {:.3f}".format(*result["intervals"][key]))
            rows.append((agent, form, f"{size:,}" if size else "", *cells, *last))
    yield table("same seeds", ("agent", "form", "bytes", "mean", "std", "min", "form / SB3", "95 % interval"), rows)


if __name__ == "__main__":
    ask(
        measure,
        option("agents", [], "zips of agents, named <algorithm>-<environment>.zip", type=Path, nargs="*"),
        option("--episodes", 50, "of each agent", quick=5),
        option("--seed", 0, "of the first episode"),
        show=show,
        quick="few episodes",
    )
