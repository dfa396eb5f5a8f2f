"""A distillation on disk, so that one that was interrupted goes on and ends as if it had not been."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from sb3_sparse.distillation.learning.states import States
from sb3_sparse.distillation.learning.training import Distillation


class Checkpoint:
    """
    A folder with the states that have been seen, which grows, and everything else in one file, which is replaced.

    :param folder: The folder; it is made when something is saved.
    :param identity: What has to be the same for a run to go on: printable arguments.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder, self._identity = folder, identity
        self._file, self._rows = folder / "run.pt", folder / "states.bin"

    def load(self, digest: str) -> dict[str, Any] | None:
        """
        :param digest: What has to be the same as well.
        :return: What was saved last; None if nothing was
        :raises ValueError: if another distillation was saved there, or the file is damaged
        """
        self._identity += digest
        if not self._file.exists():
            return None
        try:
            saved: dict[str, Any] = th.load(self._file, weights_only=True)
            identity = saved["identity"]
        except Exception as error:  # Any damage.
            raise ValueError(
                f"the checkpoint {self._file} cannot be read ({error}): delete the folder to start anew"
            ) from error
        if identity != self._identity:
            raise ValueError(f"{self.folder} holds the checkpoint of another distillation: give another folder, or delete it")
        return saved

    def save(self, training: Distillation, teacher_returns: list[float], returns: dict[int, list[float]]) -> None:
        """
        :param training: The training, between two rounds.
        :param teacher_returns: Returns of the teacher.
        :param returns: Those of the student by round.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        states = training.states
        self._append(states)
        saved = {"identity": self._identity, "added": states.added, "teacher_returns": teacher_returns, "returns": returns}
        partial = self._file.with_suffix(".part")
        th.save(saved | training.saved(), partial)
        os.replace(partial, self._file)

    def _append(self, states: States) -> None:
        """Write the rows that are not there yet; those behind the last checkpoint are overwritten."""
        row = states.inputs[0].nbytes + states.targets[0].nbytes
        written = self._written
        with open(self._rows, "r+b" if self._rows.exists() else "w+b") as file:
            file.truncate(written * row)
            file.seek(written * row)
            for index in range(written, states.added):
                place = index % states.capacity
                file.write(states.inputs[place].tobytes() + states.targets[place].tobytes())
        self._written = states.added

    #: Rows in the file.
    _written: int = 0

    def put_back(self, states: States, added: int) -> None:
        """
        :param states: States without rows.
        :param added: How many had been added.
        :raises ValueError: if the file has fewer
        """
        kinds = [("inputs", states.inputs.dtype, states.inputs.shape[1:]), ("targets", np.float32, states.targets.shape[1:])]
        table = np.fromfile(self._rows, np.dtype(kinds), count=added)
        if len(table) < added:
            raise ValueError(f"{self._rows} has lost states: delete {self.folder} to start anew")
        first = max(0, added - states.capacity)
        places = np.arange(first, added) % states.capacity
        states.inputs[places], states.targets[places] = table["inputs"][first:], table["targets"][first:]
        states.added = self._written = added
