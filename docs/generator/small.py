"""The table of the small agents of the repository: what they return, and their bytes, time and training."""

from typing import Any

from .grids import comparisons, dense_agents, siblings
from .markdown import number, percent, table
from .stored import stored

NOTE = (
    "One agent each, in 8 bits unless it says otherwise; it returns a mean over {episodes} episodes. *dense*: the agent that"
    " was distilled, which learnt version 3 of its task (SAC's of Hopper falls earlier on version 4); or, from scratch, each"
    " of ours, too few on Walker2d and Hopper to [decide]({folder}sac_from_scratch.md). *µs*: one action in compiled C; SB3's"
    " `predict` takes {sb3}. *CPU minutes*: the distillation alone, or the whole training."
)


def small(folder: str) -> str:
    """
    :param folder: Where the pages are, seen from the file that holds the table.
    :return: The table
    """
    students, pruned = stored("agents")["agents"], stored("trained")["agents"]
    latency = stored("inference")["latency"]
    rows = [
        *(
            (name, own, number(own["returns"]["teacher"]), own["returns"]["student"], f"distilled, {_network(own)}")
            for name, own in students.items()
        ),
        *(
            (name, own, ", ".join(map(number, dense_agents(own["env"]))), own["return"], _from_scratch(own))
            for name, own in pruned.items()
        ),
    ]
    cells = [
        (
            f"[{own['env']}, {own['algorithm']}]({folder}agents.md#{name.lower()})",
            dense,
            number(returned),
            number(own["nbytes"]),
            number(latency[f"{name}/compiled"]["median"], 1),
            number(own["cpu_minutes"], 1),
            how,
        )
        for name, own, dense, returned, how in rows
    ]
    head = ("task", "dense returns", "it returns", "bytes", "µs", "CPU minutes", "how")
    (episodes,) = {stored(name)["episodes"] for name in ("agents", "trained")}
    note = NOTE.format(sb3=number(latency["sb3"]["median"]), episodes=episodes, folder=folder)
    return f"{table(head, cells, align='lrrrrrl')}\n\n{note}"


def _network(own: dict[str, Any]) -> str:
    widths, _, sparsity = own["shape"].rpartition("-")
    bits = "" if own["bits"] == 8 else f", {own['bits']} bits"
    return f"{widths.replace('x', '-')} units" + ("" if sparsity == "0" else f", {sparsity} % sparse") + bits


def _from_scratch(own: dict[str, Any]) -> str:
    """How it was made, and how good its siblings are."""
    returns = siblings(own).returns
    runs = sum(
        len(each.group.results)
        for each in comparisons("sac_from_scratch-full")
        if each.group.form == "8 bits" and each.group.settings["env"] == own["env"] and each.group.sparsity != 0.0
    )
    share = percent(1 - own["weights left"]["actor"])
    return (
        f"{share} sparse from scratch, `{own['recipe']}`, one of {runs} runs; mean of its {len(returns)} seeds"
        f" {number(returns.mean())}"
    )
