"""What the three papers claim, and what the stored grids say to it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from sb3_sparse.sweeps.report.comparison import RULE, Comparison
from sb3_sparse.sweeps.report.published import PUBLISHED, Published, read_published

from .. import grids
from ..markdown import estimate, number, percent, table
from ..page import Page

_NOT_TESTED, _SHORTER = "not tested", "not tested at its length"
_VERDICTS = ("confirmed", "not confirmed", "not decided", _SHORTER, _NOT_TESTED)


def page() -> Page:
    """
    :return: The page
    """
    entries = yaml.safe_load(PUBLISHED.read_text())
    tables: list[str] = []
    verdicts: Counter[str] = Counter()
    for paper, title in entries["papers"].items():
        names = [name for name, entry in entries["results"].items() if entry["paper"] == paper and _claims(entry)]
        if not names:
            continue
        rows = [row for name in names for row in _rows(name)]
        own = Counter(row[-1] for row in rows)
        verdicts.update(own)
        head = ("figure", "task", "agent", "sparsity", "ours, against dense", "steps", "seeds", "verdict")
        tables += [f"## {title.partition(':')[0]}", f"{title} {_count(own)}", table(head, rows, align="llllllll")]
    return Page(
        title="The papers' claims",
        question="Which of the papers' claims do our runs confirm?",
        answer=_count(verdicts),
        tables=tables,
        columns={
            "agent": "algorithm and recipe, and the form that is played",
            "sparsity": "that the paper claims to cost no return; of DS-TD3's table that of its code",
            "ours, against dense": "difference between the mean returns, and its 95 % interval",
            "steps": "of our runs, the longest that are stored; the papers' have a million, on Atari ten million",
            "verdict": (
                "confirmed, not confirmed or not decided by the rule below; not tested without two seeds of the agent and of"
                " its control, and not tested at its length if these train for fewer steps than the paper's"
            ),
        },
        limits=[RULE],
        settings={"claims": "[published.yml](../../benchmarks/published.yml), with the place of each in its paper"},
        commands=[
            "sb3-sparse benchmark run GRID    # and store; the grids name their entry of published.yml",
            "python docs/generate.py",
        ],
        files=(),
    )


def _count(verdicts: Counter[str]) -> str:
    found = ", ".join(f"{verdicts[word]} {word}" for word in _VERDICTS if verdicts[word])
    return f"Of {verdicts.total()} claims: {found}."


def _claims(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Of returns those of the dynamic agents, which the paper says are as good as the dense ones."""
    return [*entry.get("claims", ()), *(value for value in entry.get("returns", ()) if value["recipe"] == "set")]


def _rows(name: str) -> Iterator[tuple[str, ...]]:
    published = read_published(name)
    for claim in _claims({"claims": published.claims, "returns": published.returns}):
        agent = ", ".join(str(claim[key]) for key in ("algo", "recipe", "form") if key in claim)
        sparsity = "the recipe's" if claim["sparsity"] is None else percent(claim["sparsity"])
        found = max((each for each in _measured(name, published, claim) if each.loses is not None), key=_length, default=None)
        row = (claim.get("place", published.place.partition(" (")[0].partition(",")[0]), claim["env"], agent, sparsity)
        if found is None:
            yield (*row, "", "", "", _NOT_TESTED)
            continue
        assert found.difference is not None and published.steps is not None
        steps, seeds = _length(found)
        verdict = "not confirmed" if found.loses else "confirmed" if found.decides else "not decided"
        yield (
            *row,
            estimate(found.difference.value, found.difference.interval),
            number(steps),
            str(seeds),
            verdict if steps >= published.steps else _SHORTER,
        )


def _length(found: Comparison) -> tuple[int, int]:
    """Steps and seeds."""
    return min(result["steps"] for result in found.group.results), len(found.group.results)


def _measured(name: str, published: Published, claim: Mapping[str, Any]) -> Iterator[Comparison]:
    """What the stored grids that repeat this figure have at the claimed sparsity."""
    for stored in grids.grids():
        for each in grids.comparisons(stored) if grids.repeats(stored) == name else ():
            fits = claim in (published.claim(each.group), published.published_return(each.group))
            if fits and each.group.sparsity == claim["sparsity"]:
                yield each
