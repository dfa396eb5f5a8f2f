"""The smallest agent of each task that keeps its return."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from sb3_sparse.sweeps.report.comparison import DECIDES, RULE, Comparison
from sb3_sparse.sweeps.report.study import Group

from .. import grids
from ..markdown import estimate, number, percent, table
from ..page import Page
from ..stored import require

#: The largest loss of the mean, as a share of the dense return.
LARGEST = 0.05


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
    weak = [each.dense for each in found if each.task == "CartPole-v1, DQN"]
    require(bool(weak) and max(weak) < 450, "DQN's dense agent on CartPole is weak")
    most = max(found, key=lambda each: each.nbytes)
    rows = [
        (
            f"[{each.task}]({grids.page_name(each.grid)}.md)",
            *_how(each.best),
            number(each.dense, _digits(each)),
            estimate(each.best.mean.value, each.best.mean.interval, _digits(each)),
            f"{max(0.0, -100 * each.best.relative):.0f} %",
            str(len(each.best.group.results)),
            number(each.nbytes),
            _minutes(each.best),
        )
        for each in found
        if each.best.mean is not None and each.best.relative is not None
    ]
    head = ("task", "made by", "sparsity", "dense", "return", "loss that is not excluded", "seeds", "bytes", "CPU minutes")
    return Page(
        title="The smallest agent of each task",
        question=(
            "How small is the smallest agent that keeps the return of its dense one, of all sparse ones in the stored grids"
            " that have two seeds or more?"
        ),
        answer=(
            f"For {len({each.task for each in found})} tasks and algorithms there is one of at most"
            f" {number(most.nbytes)} bytes; the median is {number(median(each.nbytes for each in found))} bytes. Single seeds"
            " are smaller on [small agents](agents.md) and [return over bytes](return_over_bytes-reduced.md)."
        ),
        tables=[table(head, rows, align="lllrrrrrr")],
        columns={
            "task": "and algorithm, with their page; distilled and trained agents have a row each",
            "made by": "a recipe, or the distillation of a trained agent",
            "sparsity": "as the grid sets it; all have 8 bits unless it says otherwise",
            "dense": "mean return of the dense agents of the same training, or of the agent that was distilled",
            "return": "mean over the seeds and its 95 % interval",
            "loss that is not excluded": (
                "lower end of the interval of the difference, as a share of the dense return, where the grid names a lowest"
                " return above that"
            ),
            "bytes": "of the compact file, mean over the seeds",
            "CPU minutes": (
                "of the training, or of the distillation without the training of its teacher, mean over the seeds, where they"
                " are known"
            ),
        },
        limits=[
            RULE,
            f"Beside that, the mean may lose {percent(LARGEST)} of the dense return at most, and the interval excludes a loss"
            f" of more than {percent(DECIDES)}.",
            "The smallest of several is chosen by the episodes that it is judged by, which flatters its return.",
            "Some dense agents are weak, as DQN's on CartPole, and to keep their return is then easier than the task sounds.",
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
    stored = [(grid, each) for grid in grids.grids() for each in grids.comparisons(grid)]
    # Of a setting that several grids have, that with the most seeds counts.
    seeds: dict[str, int] = {}
    for _, each in stored:
        seeds[_setting(each)] = max(seeds.get(_setting(each), 0), len(each.group.results))
    for grid, each in stored:
        if len(each.group.results) < seeds[_setting(each)]:
            continue
        settings = each.group.settings
        distilled = settings["kind"] == "distill"
        sizes = [result["evaluations"][each.group.form].get("nbytes") for result in each.group.results]
        if each.loses is not False or each.mean is None or each.difference is None or None in sizes:
            continue
        dense = each.mean.value - each.difference.value
        if not _is_sparse(each.group) or not each.decides or each.difference.value < -LARGEST * abs(dense):
            continue
        task = f"{settings['env']}, {_algorithm(settings)}"
        known = Found(grid, task, dense, sum(sizes) / len(sizes), each)
        if (task, distilled) not in found or known.nbytes < found[task, distilled].nbytes:
            found[task, distilled] = known
    yield from (found[key] for key in sorted(found))


def _is_sparse(group: Group) -> bool:
    """Of a recipe's own sparsity, and of an agent that is distilled, the networks say it."""
    if group.sparsity is not None:
        return group.sparsity > 0.0
    networks = [network for result in group.results for network in result["networks"].values()]
    return any(network["nonzero"] < network["total"] for network in networks)


def _setting(each: Comparison) -> str:
    return json.dumps([each.group.form, {**each.group.settings, "seed": None}], sort_keys=True)


def _algorithm(settings: Mapping[str, Any]) -> str:
    """Of a folder of rl-zoo3, ALGO/ENV_1/ENV.zip, where the settings do not say it."""
    name = settings["algo"] or Path(settings["agent"]).parts[-3]
    return str(name).upper()


def _digits(found: Found) -> int:
    return 0 if abs(found.dense) >= 300 else 1


def _how(best: Comparison) -> tuple[str, str]:
    settings = best.group.settings
    bits = "" if best.group.form == "8 bits" else f", {best.group.form}"
    sparsity = "the recipe's" if best.group.sparsity is None else percent(best.group.sparsity)
    if settings["kind"] != "distill":
        return str(settings["recipe"]), sparsity + bits
    critics = f", {number(settings['critic_updates'])} updates through the critics" if settings["critic_updates"] else ""
    return f"distillation{critics}", sparsity + bits


def _minutes(best: Comparison) -> str:
    times = [result["cpu_seconds"] for result in best.group.results]
    return "" if None in times else number(sum(times) / len(times) / 60, 1)
