"""The papers' numbers, from ``benchmarks/published.yml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from sb3_sparse.sweeps.report.study import AGENT, Group

#: Where the numbers are, in a checkout.
PUBLISHED = Path(__file__).parents[3] / "benchmarks" / "published.yml"


@dataclass(frozen=True)
class Published:
    """
    A figure or table of a paper.

    :param paper: Authors, title, year.
    :param place: Figure or table, with its section.
    :param source: How its numbers are known: printed there, read off a figure, or said in the text.
    :param claims: Largest sparsities without loss: ``sparsity``, the settings and form that it is claimed for, and ``place``
        where the figure is one of several.
    :param returns: Mean returns: ``mean``, ``sd`` or null, and the settings and form.
    :param note: What else is to be known.
    :param steps: Environment steps or updates of its agents, before those with quantized weights; None if it claims nothing.
    :param files: Small networks: ``env``, ``layers`` with inputs and outputs, ``bits`` of the weights, and ``keeps``, the
        share of a dense agent's return.
    """

    paper: str
    place: str
    source: str
    claims: tuple[Mapping[str, Any], ...]
    returns: tuple[Mapping[str, Any], ...]
    note: str
    steps: int | None = None
    files: tuple[Mapping[str, Any], ...] = ()

    def claim(self, group: Group) -> Mapping[str, Any] | None:
        """
        :param group: A group.
        :return: The claim that was made for its task, line and form; None if there is none
        """
        return next((claim for claim in self.claims if _fits(claim, group, ("sparsity", "place"))), None)

    def published_return(self, group: Group) -> Mapping[str, Any] | None:
        """
        :param group: A group.
        :return: The return that was published for it; None if there is none
        """
        return next((value for value in self.returns if _fits(value, group, ("mean", "sd"))), None)

    def stand_in(self, control: Group) -> Mapping[str, Any] | None:
        """
        :param control: Dense agents.
        :return: The return that was published for them, if they are fewer than two; None if there is none
        """
        return self.published_return(control) if len(control.results) < 2 else None

    def published_files(self, env: str) -> list[tuple[int, float]]:
        """
        :param env: An environment.
        :return: Bytes of the packed weights alone, and share of the return, of the networks that were published for it
        """
        return [(_packed(file), file["keeps"]) for file in self.files if _base(file["env"]) == _base(env)]


def read_published(name: str, file: Path = PUBLISHED) -> Published:
    """
    :param name: Name of an entry.
    :param file: The file of the entries.
    :return: The entry
    :raises ValueError: if there is no such file or entry
    """
    import yaml

    if not file.is_file():
        raise ValueError(f"report: published numbers are found in a checkout alone: there is no {file}")
    content = yaml.safe_load(file.read_text())
    if not isinstance(name, str) or name not in content["results"]:
        raise ValueError(f"report: there is no '{name}' in {file.name}, which has: {', '.join(content['results'])}")
    entry = content["results"][name]
    return Published(
        paper=content["papers"][entry["paper"]],
        place=entry["place"],
        source=entry["source"],
        claims=tuple(entry.get("claims", ())),
        returns=tuple(entry.get("returns", ())),
        note=entry.get("note", ""),
        steps=entry.get("steps"),
        files=tuple(entry.get("files", ())),
    )


def _fits(entry: Mapping[str, Any], group: Group, values: tuple[str, ...]) -> bool:
    """Whether a group has the settings of an entry. Versions of environments do not count: v2 and v3 run nowhere today."""
    conditions = {name: value for name, value in entry.items() if name not in values}
    if _base(conditions.pop("env")) != _base(str(group.settings.get("env"))) or conditions.pop("form", AGENT) != group.form:
        return False
    return all(group.settings.get(name) == value for name, value in conditions.items())


def _packed(file: Mapping[str, Any]) -> int:
    layers: list[int] = file["layers"]
    return sum(inputs * outputs for inputs, outputs in pairwise(layers)) * int(file["bits"]) // 8


def _base(env: str) -> str:
    """The task without its version and Gymnasium's ways to write it: Pong is PongNoFrameskip-v4 and ALE/Pong-v5."""
    return (env.rpartition("-v")[0] or env).removeprefix("ALE/").removesuffix("NoFrameskip")
