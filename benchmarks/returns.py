"""
Does an exported policy play as well as the model it came from?

    python benchmarks/returns.py AGENT.zip [AGENT.zip ...] --json benchmarks/results/returns.json

Each agent plays the environment that its file is named after (``sac-HalfCheetah-v4.zip``: HalfCheetah-v4), then three
exports of it play the same episodes: 8 bits with calibration observations of other episodes of its own, 8 bits without any,
and float weights as a control, for the smallest rounding changes an episode. Falls are rare, so look at the minimum as well.

Without agents, SAC is trained on Pendulum-v1 first (``--quick``: for 3,000 steps), whose returns are negative: read its
difference, not its ratio.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from report import describe_machine, describe_versions
from rich.console import Console
from rich.table import Table
from stable_baselines3 import SAC

from sb3_sparse import compress
from sb3_sparse.agents import Player, load_agent, make_environment, model_act, play_observations, play_returns

#: What is exported: bits, and whether with calibration.
FORMS = {"8 bits": (8, True), "8 bits without calibration": (8, False), "float": (32, True)}


def train(folder: Path, steps: int) -> Path:
    """A SAC agent on Pendulum."""
    path = folder / "sac-Pendulum-v1.zip"
    SAC("MlpPolicy", gym.make("Pendulum-v1"), seed=0, device="cpu").learn(steps).save(path)
    return path


def measure(path: Path, episodes: int, seed: int) -> dict[str, Any]:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agents", type=Path, nargs="*")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a short check, not a result")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    th.set_num_threads(1)
    episodes = 5 if args.quick else args.episodes
    rng = np.random.default_rng(0)
    table = Table(
        "agent", "form", "bytes", "mean", "std", "min", "form / SB3", "95 % interval", title=f"{episodes} episodes, same seeds"
    )
    ratios, intervals, details = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for path in args.agents or [train(Path(folder), 3_000 if args.quick else 10_000)]:
            found = measure(path, episodes, args.seed)
            details[path.stem] = found
            model = np.array(found["returns"]["SB3 model"])
            for name, values in found["returns"].items():
                array = np.array(values)
                share, interval = ratio(model, array, rng)
                if name in FORMS:
                    ratios[f"{path.stem}/{name}"], intervals[f"{path.stem}/{name}"] = share, interval
                size = found["nbytes"].get(name)
                cells = [f"{number:,.1f}" for number in (array.mean(), array.std(), array.min())]
                last = [f"{share:.4f}", f"{interval[0]:.3f} - {interval[1]:.3f}"] if name in FORMS else ["", ""]
                table.add_row(path.stem, name, f"{size:,}" if size else "", *cells, *last)
    Console(width=150).print(table)
    if args.json:
        content = {
            "ratios": ratios,
            "intervals": intervals,
            "agents": details,
            "versions": describe_versions(),
            "machine": describe_machine(),
        }
        args.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
