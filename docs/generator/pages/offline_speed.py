"""Updates per second of offline algorithms over d3rlpy's."""

from ..markdown import estimate, percent, table
from ..page import Page
from ..stored import stored


def page() -> Page:
    """
    :return: The page
    """
    results = stored("offline_speed")
    ratios, bounds = results["ratios"], results["intervals"]
    rows = [
        (label, *(estimate(ratios[f"{key}/{kind}"], bounds[f"{key}/{kind}"], 2) for kind in ("dense", "sparse/0.95")))
        for label, key in (("BCQ", "bcq"), ("behaviour cloning by a perceptron", "bc_mlp"))
    ]
    costs = [ratios[f"{key}/dense"] / ratios[f"{key}/sparse/0.95"] - 1 for key in ("bc_mlp", "bcq")]
    other = results["versions"]["d3rlpy beside d3rlpy"]
    return Page(
        title="Updates per second, offline",
        question=f"How fast do BCQ and behaviour cloning train, compared with d3rlpy {other}?",
        answer=(
            "Faster, dense and sparse. Masks lengthen an update by "
            f"{percent(min(costs))} to {percent(max(costs))} here, because Adam is fused with or without them."
        ),
        tables=[table(("updates per second over d3rlpy", "dense", "pruned to 95 % by SNIP"), rows)],
        columns={
            "dense": "our updates per second over d3rlpy's, median over rounds and its 95 % interval",
            "pruned": "the same for our sparse networks, over dense d3rlpy",
        },
        limits=[
            "One core and one thread for both; d3rlpy's `compile_graph`, which is for GPUs, is off.",
            (
                "BCQ has 10 candidate actions per target on both sides, not d3rlpy's default of 100, which costs five times as"
                " much."
            ),
            "The ratio is of updates, not of the return that they reach.",
        ],
        settings={
            "networks": "HalfCheetah's sizes (17 observations, 6 actions), batch 100; cloning by a perceptron of 256-256",
            "rounds": f"{results['rounds']}, both sides in turns",
        },
        commands=[
            "python3.11 -m venv d3rlpy-venv && d3rlpy-venv/bin/pip install torch==2.13.0 d3rlpy==2.8.1",
            "python benchmarks/offline_speed.py --d3rlpy d3rlpy-venv/bin/python --json benchmarks/results/offline_speed.json",
        ],
        files=["offline_speed"],
    )
