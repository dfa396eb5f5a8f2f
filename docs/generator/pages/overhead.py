"""The time of a training step over stock SB3's."""

from typing import Any

from ..markdown import estimate, percent, table
from ..page import Page
from ..stored import require, stored


def page() -> Page:
    """
    :return: The page
    """
    results = stored("overhead")
    groups = {
        "sac": "SAC",
        "td3": "TD3",
        "td3_batch100": "TD3, batch 100",
        "td3_rmsprop": "TD3 with RMSprop, which has no fused form",
    }

    gpu = stored("overhead_gpu")

    def rows(*variants: str, of: dict[str, Any] = results) -> list[tuple[str, ...]]:
        cells = {key: estimate(value, of["intervals"][key], 3) for key, value in of["ratios"].items()}
        return [(label, *(cells[f"{group}/{variant}"] for variant in variants)) for group, label in groups.items()]

    costs = [results["ratios"][f"{group}/all/prune"] for group in ("sac", "td3", "td3_batch100")]
    require(max(costs) < 1.03, "pruning costs less than 3 % of a step")
    return Page(
        title="Cost of a training step",
        question="How long does a training step with masks, rewiring or 8-bit weights take, compared with stock SB3?",
        answer=(
            f"Pruned actors and critics take {min(costs):.2f} to {max(costs):.2f} of stock's time with Adam. An 8-bit actor"
            f" costs {percent(min(_qat('actor')) - 1)} to {percent(max(_qat('actor')) - 1)}, 8-bit critics, which are never"
            f" exported, bring that to {percent(min(_qat('all')) - 1)} to {percent(max(_qat('all')) - 1)}."
        ),
        tables=[
            "## Pruning to 90 %, and 8-bit weights",
            table(
                ("", "actor pruned", "actor and critics pruned", "actor in 8 bits", "actor and critics in 8 bits"),
                rows("actor/prune", "all/prune", "actor/qat", "all/qat"),
            ),
            "## Static and dynamic sparse training at 50 %",
            "Actor and critics with budgets of ERK, rewired every 1,000 steps:",
            table(("", "static", "SET, targets pruned by count", "RigL"), rows("all/static", "all/set", "all/rigl")),
            "## On a GPU",
            f"The same on an {gpu['machine']['gpu']}, where a small network waits for the start of each operation:",
            table(
                ("", "actor pruned", "actor and critics pruned", "actor in 8 bits", "actor and critics in 8 bits"),
                rows("actor/prune", "all/prune", "actor/qat", "all/qat", of=gpu),
            ),
            table(
                ("", "static", "SET, targets pruned by count", "RigL"),
                rows("all/static", "all/set", "all/rigl", of=gpu),
            ),
        ],
        columns={
            "numbers": (
                "time of a step with the callback over the time of a stock step, everything counted that the callback does"
                " around it; median over rounds and its 95 % interval. 1.05 is 5 % slower"
            ),
            "actor pruned, actor and critics pruned": "the networks stand at 90 %; a thousandth of a pruning is in each step",
            "static, SET, RigL": 'SET prunes its targets by count (`targets="topk"`, as DS-TD3 does), the others mask them',
        },
        limits=[
            (
                "Pruned networks get a fused Adam. Stock SB3 does not use it, and it pays for the masks; without it (last row)"
                " they cost. Compare with a dense run that has `optimizer_kwargs=dict(fused=True)` and the masks cost what"
                " Adam gains."
            ),
            (
                "ERK at 50 % leaves the first layers dense. The λ of DS-TD3 prune those as well, and SET then costs a few"
                " percent more."
            ),
            (
                "A GPU computes these small layers in less time than it takes to start an operation, so what counts there is"
                " the number of operations: quantized critics and targets pruned by count cost most."
            ),
            "Sparse weights do not make PyTorch's layers faster: zeros are multiplied too.",
            "One size of network; wide layers and small batches pay more.",
        ],
        settings={
            "networks": "17-256-256-6, batch 256 or as stated",
            "rounds": f"{results['rounds']} of {results['updates_per_round']} updates, all variants in turns",
        },
        commands=[
            "taskset -c 1 python -m benchmarks.speed.overhead --json benchmarks/results/overhead.json",
            f"python -m benchmarks.speed.overhead --device cuda --rounds {gpu['rounds']}"
            " --json benchmarks/results/overhead_gpu.json",
        ],
        files=["overhead", "overhead_gpu"],
    )


def _qat(which: str) -> list[float]:
    return [stored("overhead")["ratios"][f"{group}/{which}/qat"] for group in ("sac", "td3", "td3_batch100", "td3_rmsprop")]
