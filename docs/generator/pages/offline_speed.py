"""Updates per second of offline algorithms over d3rlpy's."""

from ..markdown import estimate, percent, table
from ..page import Page
from ..stored import stored

ALGORITHMS = (
    ("BCQ", "bcq"),
    ("behaviour cloning by a perceptron", "bc_mlp"),
    ("behaviour cloning by BCQ's VAE", "bc_vae"),
)


def page() -> Page:
    """
    :return: The page
    """
    results = stored("offline_speed")
    ratios, bounds = results["ratios"], results["intervals"]

    def rows(prefix: str) -> list[tuple[str, ...]]:
        names = [(label, [f"{prefix}{key}/{kind}" for kind in ("dense", "sparse/0.95")]) for label, key in ALGORITHMS]
        return [(label, *(estimate(ratios[name], bounds[name], 2) for name in pair)) for label, pair in names]

    sparse = [ratios[f"{key}/sparse/0.95"] for _, key in ALGORITHMS]
    costs = [ratios[f"torch/{key}/dense"] / ratios[f"torch/{key}/sparse/0.95"] - 1 for _, key in ALGORITHMS]
    other = results["versions"]["d3rlpy beside d3rlpy"]
    head = ("updates per second over d3rlpy", "dense", "pruned to 95 % by SNIP")
    return Page(
        title="Updates per second, offline",
        question=f"How fast do BCQ and behaviour cloning train, compared with d3rlpy {other}?",
        answer=(
            f"With the engine and 95 % zeros {min(sparse):.0f} to {max(sparse):.0f} times as fast. Without the engine masks "
            f"lengthen an update by at most {percent(max(0.0, *costs))}, because Adam is fused with or without them."
        ),
        tables=[
            "## In the engine",
            "`learn(..., callback=[..., EngineCallback()])`",
            table(head, rows("")),
            "## Without the engine",
            table(head, rows("torch/")),
        ],
        columns={
            "dense": "our updates per second over d3rlpy's, median over rounds and its 95 % interval",
            "pruned": "the same for our sparse networks, over dense d3rlpy",
        },
        limits=[
            (
                "One core and one thread for every side, in its own process, and its CPU time. The threads below are those"
                " of the process that starts them. d3rlpy's `compile_graph`, which is made for GPUs, is off."
            ),
            "BCQ has 10 candidate actions per target on both sides, not d3rlpy's default of 100, which costs more.",
            "The ratio is of updates, not of the return that they reach.",
        ],
        settings={
            "networks": "HalfCheetah's sizes (17 observations, 6 actions), batch 100; cloning by a perceptron of 256-256",
            "rounds": f"{results['rounds']}, all sides in turns",
        },
        commands=[
            "python3.11 -m venv d3rlpy-venv && d3rlpy-venv/bin/pip install torch==2.13.0 d3rlpy==2.8.1",
            "python -m benchmarks.speed.offline_speed --d3rlpy d3rlpy-venv/bin/python"
            " --json benchmarks/results/offline_speed.json",
        ],
        files=["offline_speed"],
    )
