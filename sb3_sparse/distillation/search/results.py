"""What the trainings of a search have come to: one file per student, which grows by the bits that it is exported in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sb3_sparse.distillation.search.candidates import Shape
from sb3_sparse.distillation.search.costs import Costs

_FILE = "result.json"


@dataclass(frozen=True)
class Exported:
    """
    A student in some bits.

    :param bits: Bits of its weights.
    :param costs: What it takes.
    :param selection: Returns of the episodes that choices are made by.
    :param training: Seconds of its training, in equal parts if one student is exported in several bits.
    :param exporting: Seconds of its export and its episodes.
    """

    bits: int
    costs: Costs
    selection: tuple[float, ...]
    training: float
    exporting: float


@dataclass(frozen=True)
class Result:
    """
    What a training has come to.

    :param shape: The student.
    :param updates: Gradient updates.
    :param policies: The student in some bits.
    """

    shape: Shape
    updates: int
    policies: tuple[Exported, ...] = ()

    def add(self, policy: Exported, folder: Path) -> Result:
        """
        :param policy: The student in some bits, which replaces an earlier one in the same bits.
        :param folder: Folder of the student, which has the file.
        :return: The result with this policy, which is in the file now
        """
        others = (each for each in self.policies if each.bits != policy.bits)
        result = replace(self, policies=(*others, policy))
        partial = folder / f"{_FILE}.part"
        partial.write_text(json.dumps(asdict(result), indent=1) + "\n")
        # Whole or not at all.
        os.replace(partial, folder / _FILE)
        return result

    def within(self, bits: Sequence[int]) -> Result:
        """
        :param bits: Some bits.
        :return: The result in these alone
        """
        return replace(self, policies=tuple(each for each in self.policies if each.bits in bits))


def read_result(folder: Path) -> Result | None:
    """
    :param folder: Folder of a student.
    :return: What its training has come to; None if nothing is there
    """
    file = folder / _FILE
    if not file.is_file():
        return None
    found = json.loads(file.read_text())
    arch = found["shape"]["net_arch"]
    policies = tuple(
        Exported(**{**each, "costs": Costs(**each["costs"]), "selection": tuple(each["selection"])})
        for each in found["policies"]
    )
    return Result(Shape(None if arch is None else tuple(arch), found["shape"]["sparsity"]), found["updates"], policies)


def longest(results: Iterable[Result], shape: Shape, bits: Sequence[int] = ()) -> int:
    """
    :param results: What trainings have come to.
    :param shape: A student.
    :param bits: Bits that it has to be in.
    :return: Gradient updates of its longest training, 0 if there is none
    """
    found = (each for each in results if each.shape == shape and len(each.within(bits).policies) == len(bits))
    return max((each.updates for each in found), default=0)
