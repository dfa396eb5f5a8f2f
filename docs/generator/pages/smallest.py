"""The smallest agent of each task that keeps its return."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from sb3_sparse.sweeps.report.comparison import RULE, RULE_PUBLISHED, Comparison

from .. import grids
from ..markdown import estimate, number, percent, table
from ..page import Page
from ..stored import require

#: Share of the dense return that the mean over the seeds has to keep, beside the rule of the reports.
KEEP = 0.95


class Found(NamedTuple):
    """
    :param grid: A grid and its size.
    :param task: A task and an algorithm.
    :param dense: The dense agents' mean return.
    :param nbytes: Mean bytes of the exported agents.
    :param best: Their comparison with the dense agents.
    """

    grid: str
    task: str
    dense: float
    nbytes: float
    best: Comparison


def page() -> Page:
    """
    :return: The page
    """
    found = list(smallest())
    require(len(found) > 3, "several tasks have an agent that keeps its return")
    most = max(found, key=lambda each: each.nbytes)
    rows = [
        (
            f"[{each.task}]({grids.page_name(each.grid)}.md)",
            number(each.dense, _digits(each)) + (" (published)" if each.best.published else ""),
            estimate(each.best.mean.value, each.best.mean.interval, _digits(each)),
            _how(each.best),
            str(len(each.best.group.results)),
            number(each.nbytes),
            _minutes(each.best),
        )
        for each in found
        if each.best.mean is not None
    ]
    return Page(
        title="The smallest agent of each task",
        question="How small is the smallest agent that keeps the return of its dense one, of all that the stored grids have?",
        answer=(
            f"For {len(found)} tasks and algorithms there is one of at most {number(most.nbytes)} bytes; the median is"
            f" {number(median(each.nbytes for each in found))} bytes."
        ),
        tables=[table(("task", "dense", "return", "how", "seeds", "bytes", "CPU minutes"), rows, align="lrrlrrr")],
        columns={
            "task": "and algorithm, with their page",
            "dense": "mean return of the dense agents, or of the teacher",
            "return": "mean over the seeds and its 95 % interval",
            "how": "recipe or distillation, sparsity, bits",
            "bytes": "of the compact file, mean over the seeds",
            "CPU minutes": "of training or distilling it, mean over the seeds, where they are known",
        },
        limits=[
            f"An agent keeps the return if it is without loss by the rule of the reports, with two seeds or more, and its mean"
            f" is at least {KEEP:.2f} of the dense one.",
            RULE,
            RULE_PUBLISHED,
            "The smallest of many is chosen by the same episodes that it is judged by.",
        ],
        settings={"grids": ", ".join(dict.fromkeys(each.grid for each in found))},
        commands=["python docs/generate.py  # from the results of the grids"],
        files=(),
    )


def smallest() -> Iterator[Found]:
    """
    :return: Of each task and algorithm, distilled and trained, the smallest exported agents of all grids that keep the return
    """
    found: dict[tuple[str, bool], Found] = {}
    for grid in grids.grids():
        for each in grids.comparisons(grid):
            settings = each.group.settings
            distilled = settings["kind"] == "distill"
            sizes = [result["evaluations"][each.group.form].get("nbytes") for result in each.group.results]
            if each.loses is not False or each.mean is None or each.difference is None or None in sizes:
                continue
            if distilled and each.group.sparsity is None:
                # The agent itself.
                continue
            dense = each.mean.value - each.difference.value
            # Returns below zero may fall by the same share.
            if each.difference.value < -(1.0 - KEEP) * abs(dense):
                continue
            task = f"{settings['env']}, {_algorithm(settings)}"
            known = Found(grid, task, dense, sum(sizes) / len(sizes), each)
            if (task, distilled) not in found or known.nbytes < found[task, distilled].nbytes:
                found[task, distilled] = known
    yield from (found[key] for key in sorted(found))


def _algorithm(settings: Mapping[str, Any]) -> str:
    """Of a folder of rl-zoo3, ALGO/ENV_1/ENV.zip, where the settings do not say it."""
    name = settings["algo"] or Path(settings["agent"]).parts[-3]
    return str(name).upper()


def _digits(found: Found) -> int:
    return 0 if abs(found.dense) >= 300 else 1


def _how(best: Comparison) -> str:
    settings, words = best.group.settings, []
    words.append("distilled" if settings["kind"] == "distill" else str(settings["recipe"]))
    words.append("the recipe's sparsity" if best.group.sparsity is None else percent(best.group.sparsity))
    return ", ".join([*words, best.group.form])


def _minutes(best: Comparison) -> str:
    times = [result["cpu_seconds"] for result in best.group.results]
    return "" if None in times else number(sum(times) / len(times) / 60, 1)
