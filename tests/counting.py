"""A kind of cell that takes no time: a sum of random numbers, with a checkpoint after every number, and some ways to die."""

import json
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sb3_sparse.sweeps.folder import write_whole
from sb3_sparse.sweeps.kinds.cell import Cell


@dataclass(frozen=True, kw_only=True)
class Counting(Cell):
    """
    A sum of ``numbers`` random numbers. Each process writes into ``audit.txt`` of the sweep that it begins, and that it ends.

    :param numbers: How many.
    :param pause: Seconds for each.
    :param deaths: How many of its processes kill themselves when they have the sum.
    :param scale: What the sum is multiplied by.
    """

    kind: ClassVar[str] = "tests.counting.Counting"

    numbers: int = 5
    pause: float = 0.0
    deaths: int = 0
    scale: float = 1.0

    def check(self) -> None:
        if self.numbers < 1:
            raise ValueError(f"numbers must be at least 1, got {self.numbers}")

    def content(self) -> object:
        return None

    @property
    def work(self) -> int:
        return self.numbers

    @property
    def rates(self) -> tuple[str, ...]:
        return ("counting", str(self.scale))

    @property
    def usual(self) -> tuple[float, float]:
        return 1.0, 0.5

    def make(self, folder: Path) -> dict[str, Any]:
        _audit(folder, f"begin {self.name}")
        died = _read_audit(folder).count(f"begin {self.name}") - 1
        file = folder / "checkpoint.json"
        count, total = json.loads(file.read_text()) if file.exists() else (0, 0.0)
        while count < self.numbers:
            time.sleep(self.pause)
            total += self.scale * random.Random(f"{self.seed} {count}").random()
            count += 1
            write_whole(file, json.dumps([count, total]))
        if died < self.deaths:
            print("about to die", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        _audit(folder, f"end {self.name}")
        return {
            "evaluations": {"agent": {"returns": [total], "lengths": [count]}},
            "curve": {"steps": [], "returns": []},
            "networks": {},
            "steps": count,
        }


def _audit(folder: Path, line: str) -> None:
    with open(folder.parent.parent / "audit.txt", "a") as file:
        file.write(f"{line}\n")


def _read_audit(folder: Path) -> list[str]:
    return (folder.parent.parent / "audit.txt").read_text().splitlines()
