"""Environment steps per second in the engine, over stock SB3."""

from ..markdown import estimate, table
from ..page import Page
from ..stored import require, stored

SPARSITIES = ("0.5", "0.8", "0.9", "0.95", "0.99")


def page() -> Page:
    """
    :return: The page
    """
    results = stored("throughput")
    ratios = results["ratios"]

    def cell(name: str) -> str:
        return estimate(ratios[name], results["intervals"][name], 1) if name in ratios else ""

    algorithms = {
        "sac": "SAC, HalfCheetah-v4",
        "td3": "TD3, HalfCheetah-v4",
        "tqc": "TQC, HalfCheetah-v4",
        "dqn": "DQN, LunarLander-v3",
        "humanoid/sac": "SAC, Humanoid-v4",
        "ppo": "PPO, HalfCheetah-v4, 64 units",
        "wide/ppo": "PPO, HalfCheetah-v4",
    }
    columns = ("dense", "actor/0.9", *(f"sparse/{sparsity}" for sparsity in SPARSITIES))
    labels = ("dense", "actor 90 %", *(f"{100 * float(s):.0f} %" for s in SPARSITIES))
    measured = {name: label for name, label in algorithms.items() if f"{name}/dense" in ratios}
    rows = [(label, *(cell(f"{name}/{column}") for column in columns)) for name, label in measured.items()]
    half = [
        (label, cell(f"{name}/dense/bf16"), cell(f"{name}/actor/0.9/bf16"))
        for name, label in measured.items()
        if f"{name}/dense/bf16" in ratios
    ]
    sizes = [name for name in ratios if name.startswith(("width/", "batch/")) and name.endswith("/0.9")]
    growth = [
        (name.split("/sac/")[0].replace("/", " "), cell(name), cell(name.removesuffix("0.9") + "0.99")) for name in sizes
    ]
    wall = [
        (label, cell(f"wall/sac/{name}"), cell(f"wall/sac/{name}/threads/2"))
        for name, label in (("dense", "dense"), ("sparse/0.9", "90 %"), ("sparse/0.99", "99 %"))
        if f"wall/sac/{name}" in ratios
    ]
    require(min(ratios.values()) > 1.0, "the engine is faster everywhere")
    return Page(
        title="Training in the engine",
        question="How many environment steps per CPU second does training in the engine make, over stock SB3?",
        answer=(
            f"SAC on HalfCheetah trains {ratios['sac/dense']:.1f} times as fast with all weights,"
            f" {ratios['sac/sparse/0.9']:.0f} times with a tenth of them, and {ratios['sac/sparse/0.99']:.0f} times with a"
            " hundredth."
        ),
        tables=[
            "## Algorithms and sparsity",
            table(("", *labels), rows),
            *(["## Products of bfloat16", table(("", "dense", "actor 90 %"), half)] if half else []),
            *(["## Wall-clock time, SAC on HalfCheetah-v4", table(("", "one thread", "two threads"), wall)] if wall else []),
            *(["## Width and batch size, SAC on HalfCheetah-v4", table(("", "90 %", "99 %"), growth)] if growth else []),
        ],
        columns={
            "numbers": (
                "environment steps per CPU second of one core inside `learn()`, with logger, Monitor and EvalCallback, over"
                " those of stock SB3 in the same process; median over rounds and its 95 % interval"
            ),
            "actor 90 %": "the actor has a tenth of its weights, the critics all",
            "50 % to 99 %": "share of zeros in all networks, placed at random by ERK",
            "one thread, two threads": "the same ratio of wall-clock times, to stock SB3 on one thread",
        },
        limits=[
            "Speed alone: masks at random, and nothing learnt. [What sparse agents learn](sac_from_scratch.md) is elsewhere.",
            "Stock SB3 is faster on processors of other makers, and the ratios are smaller there.",
            "The environment is a part of every step, the same for all.",
        ],
        settings={
            "networks": "two hidden layers of 256 units, batches of 256, or as stated",
            "rounds": f"{results['rounds']}, all variants in turns",
            "kernels": results["kernels"],
            "stock SB3": ", ".join(
                f"{algorithms[name.removesuffix('/stock')]} {value:.0f} steps per second"
                for name, value in results["stock_steps_per_second"].items()
                if name.removesuffix("/stock") in algorithms
            ),
        },
        commands=[
            "python -m benchmarks.speed.throughput --json benchmarks/results/throughput.json"
            " --png benchmarks/results/throughput.png"
        ],
        files=["throughput"],
    )
