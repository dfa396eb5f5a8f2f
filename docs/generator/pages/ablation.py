"""What decides in a distillation."""

from typing import Any

import numpy as np

from sb3_sparse.sweeps.report.statistics import estimate_difference, estimate_mean

from ..markdown import estimate, interval, number, table
from ..page import Page, formerly, today
from ..stored import require, stored


def _learning(sac: dict[str, Any]) -> list[str]:
    """The score in reinforcement learning: text and table."""
    rows = [
        (score, ", ".join(number(value) for value in own), number(sum(own) / len(own)), interval(sac["intervals"][score]))
        for score, own in sac["returns"].items()
    ]
    low, high = sac["difference"]
    verdict = "helps" if low > 0 else "hurts" if high < 0 else "makes no difference that so few seeds could show"
    return [
        "## The score in reinforcement learning",
        f"SAC on HalfCheetah-v4 from scratch, {number(sac['steps'])} steps in the engine, actor and critics pruned gradually"
        f" from 60 % at the start to 95 % in the middle of the run. The score {verdict}: the difference, fisher less"
        f" magnitude, lies in {interval(sac['difference'])} (Welch's t over seeds).",
        table(("score", "returns of the seeds", "mean", "95 % interval"), rows),
    ]


def _commands(results: dict[str, Any]) -> list[str]:
    """The part about reinforcement learning is a grid today."""
    agent, out = "tqc-HalfCheetah-v4.zip", "--json benchmarks/results/ablation.json"
    command = f"python -m benchmarks.size.ablation {agent} {out}"
    if "sac" not in results:
        return [command]
    return [*formerly("c1dabe4", f"python benchmarks/ablation.py {agent} {out}"), *today("sac_scores"), command]


def page() -> Page:
    """
    :return: The page
    """
    results = stored("ablation")
    lengths = results["lengths"]
    rows = []
    shares = {arm: np.array(own["returns"]) / results["teacher"] for arm, own in results["arms"].items()}
    for arm, own in results["arms"].items():
        share = estimate_mean(shares[arm])
        lists = (", ".join(number(value) for value in own[key]) for key in ("returns", "deviations", "worst"))
        rows.append((arm, estimate(share.value, share.interval, 3), *lists))
    header = ("distillation", "share of the return", "means", "deviations", "worst episodes")
    arms = ("as it is", "magnitude", "the teacher's path alone", "the teacher's path and noise")
    base, magnitude, path, noise = (float(shares[arm].mean()) for arm in arms)
    ranked, alone = (estimate_difference(shares[arms[0]], shares[arm]) for arm in arms[1:3])
    assert ranked.interval is not None and alone.interval is not None
    require(ranked.interval[0] > 0.0 > alone.interval[0], "the score makes a difference, the states make none for certain")
    worst = min(results["arms"]["the teacher's path alone"]["worst"])
    return Page(
        title="What decides in a distillation",
        question="What is the score of the weights worth, and what are states off the teacher's path?",
        answer=(
            f"Distillation to 95 % keeps {base:.3f} of the return as it is, {magnitude:.3f} when weights are ranked by their"
            f" magnitude, and {path:.3f} on states of the teacher's path alone, with a worst episode of {number(worst)}. With"
            f" noise on half of that path it keeps {noise:.3f}, without one state of the student. The score decides, by"
            f" {estimate(ranked.value, ranked.interval, 3)}. Whether the states do, {results['seeds']} seeds do not show: as"
            f" it is, less the teacher's path alone, is {estimate(alone.value, alone.interval, 3)}."
        ),
        tables=[table(header, rows), *(_learning(results["sac"]) if "sac" in results else [])],
        columns={
            "as it is": "the settings of `distill`: score `fisher`; states of the student and of both with noise",
            "magnitude": "weights are ranked by their magnitude",
            "the teacher's path alone": "as many observations of the teacher's own episodes, given as an array",
            "the teacher's path and noise": "the same, half of its segments with noisy actions; no states of the student",
            "share of the return": "mean over the teacher's, and Student's 95 % interval over the seeds",
            "means, deviations, worst episodes": "of each seed's student over its episodes",
        },
        limits=["One agent, TQC's HalfCheetah, at one sparsity, with float weights."],
        settings={
            "distillation": f"{number(lengths['updates'])} updates, {number(lengths['steps'])} states",
            "evaluation": f"{lengths['episodes']} fresh episodes per student",
            "seeds": f"{results['seeds']} of the distillation",
        },
        commands=_commands(results),
        files=["ablation"],
    )
