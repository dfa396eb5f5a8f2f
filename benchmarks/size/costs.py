"""
What DS-TD3 costs before anything is trained: connections, and FLOPs of the training, the cost table of Sokar et al. 2022.

    python -m benchmarks.size.costs

TD3 from the recipes ``td3_{dense,static,set,rigl}`` on HalfCheetah-v4. Their masks are there at the first step and keep their
counts, so nothing needs to be trained; the returns of the table are cells of the grid ``ds_td3_curves``. FLOPs are those of
``summarize(model).training_flops``; RigL's dense gradients count once per rewiring, until the end of the run.
"""

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gymnasium as gym
import yaml
from stable_baselines3 import TD3
from stable_baselines3.common.logger import Logger

from benchmarks.shared.question import ask, option, table
from benchmarks.shared.store import Result
from sb3_sparse import OneShotPruningCallback, summarize
from sb3_sparse.zoo import find_recipe, read_recipe

ENV, RECIPES = "HalfCheetah-v4", ("dense", "static", "set", "rigl")
PUBLISHED = yaml.safe_load((Path(__file__).parents[1] / "published.yml").read_text())["results"]["ds_td3_costs"]


def count(recipe: str, steps: int) -> dict[str, float]:
    """
    :param recipe: Name of a recipe of TD3.
    :param steps: Environment steps of a training.
    :return: Connections of actor and critics, and FLOPs of the training
    """
    settings = read_recipe(find_recipe("td3", recipe))[ENV]
    callbacks: dict[str, dict[str, Any]] = {
        name.removeprefix("sb3_sparse."): arguments
        for each in settings.get("callback", [])
        for name, arguments in each.items()
    }
    networks = {"policy_kwargs": {"net_arch": [256, 256]}, "batch_size": settings["batch_size"]}
    model = TD3("MlpPolicy", gym.make(ENV), buffer_size=10, learning_starts=10, seed=0, device="cpu", **networks)
    model.set_logger(Logger(folder=None, output_formats=[]))
    # Rewirings keep the counts.
    topology = callbacks.get("OneShotPruningCallback")
    model.learn(1, callback=OneShotPruningCallback(**topology) if topology else None)
    summary = summarize(model)
    rewiring, grow_freq = callbacks.get("RewiringCallback", {}), None
    if rewiring.get("grow") == "gradient":
        # In updates of each network: the actor has one for two of the critics'.
        grow_freq = {
            name: max(1, rewiring["update_freq"] // summary.training.delays.get(name, 1)) for name in rewiring["network"]
        }
    return {"connections": summary.connections, "training_flops": summary.training_flops(steps, grow_freq=grow_freq)}


def measure(args: Namespace) -> Result:
    """
    :param args: The steps of a training.
    :return: Costs by recipe, over those of the dense agent, next to the published ones
    """
    costs = {recipe: count(recipe, args.steps) for recipe in RECIPES}
    ratios = {f"{name}/{key}": value / costs["dense"][key] for name, cost in costs.items() for key, value in cost.items()}
    return {
        "ratios": {name: round(value, 4) for name, value in ratios.items()},
        # Nothing is drawn but which weights there are.
        "intervals": {name: [round(value, 4)] * 2 for name, value in ratios.items()},
        "costs": costs,
        "published": {key: PUBLISHED[key] for key in ("connections", "training_flops", "relative_flops")},
        "steps": args.steps,
    }


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: The table
    """
    rows = []
    for recipe, cost in result["costs"].items():
        theirs = (result["published"][key].get(recipe, "") for key in ("connections", "relative_flops"))
        ours = (
            f"{cost['connections']:,}",
            f"{cost['training_flops']:.3g}",
            f"{result['ratios'][f'{recipe}/training_flops']:.3f}",
        )
        rows.append((recipe, *ours, *theirs))
    columns = ("recipe", "connections", "training FLOPs", "over dense", "published connections", "over dense")
    yield table(f"TD3 on {ENV}, {result['steps']:,} steps", columns, rows)


if __name__ == "__main__":
    ask(measure, option("--steps", 1_000_000, "environment steps of a training"), show=show, quick="nothing")
