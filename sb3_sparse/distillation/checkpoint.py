"""A distillation on disk, so that one that was interrupted goes on and ends as if it had not been."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from numpy.typing import NDArray

from sb3_sparse.agents.compression.files import check_writable
from sb3_sparse.distillation.learning.states import States
from sb3_sparse.distillation.learning.training import Distillation

#: Rows that are written and read at once.
_BLOCK = 1024


class CannotGoOn(ValueError):
    """A checkpoint that is damaged, or of a run that began in other states."""


class Checkpoint:
    """
    A folder with the states that have been seen, which grows, and everything else in one file, which is replaced. Runs that
    begin alike share what was saved last before they part.

    :param folder: The folder; it is made when something is saved.
    :param identity: What has to be the same for a run to go on: printable arguments.
    :param beginning: What has to be the same for a run to go on from where others part from it; by default the same.
    :raises ValueError: if the folder cannot be written to
    """

    def __init__(self, folder: Path, identity: str, beginning: str | None = None) -> None:
        check_writable(folder)
        self.folder = folder
        self._run, self._shared, self._rows = folder / "run.pt", folder / "shared.pt", folder / "states.bin"
        self._identities = {self._run: identity, self._shared: beginning or identity}

    def load(self, digest: str) -> dict[str, Any] | None:
        """
        :param digest: What has to be the same as well.
        :return: What was saved last; None if nothing was
        :raises CannotGoOn: if another distillation was saved there, or the file is damaged
        """
        self._identities = {file: identity + digest for file, identity in self._identities.items()}
        files = [file for file in (self._run, self._shared) if file.exists()]
        for file in files:
            try:
                saved: dict[str, Any] = th.load(file, map_location="cpu", weights_only=True)
                identity = saved["identity"]
            except Exception as error:  # Any damage.
                raise CannotGoOn(f"the checkpoint {file} cannot be read ({error}): delete the folder to start anew") from error
            if identity == self._identities[file]:
                if file == self._shared:
                    # The states of the run that has parted are overwritten from here on.
                    self._run.unlink(missing_ok=True)
                return saved
        if files:
            raise CannotGoOn(
                f"{self.folder} holds the checkpoint of another distillation, or the environment does not play alike with the"
                " same seed: give another folder, or delete it"
            )
        return None

    def save(
        self, training: Distillation, teacher_returns: list[float], returns: dict[int, list[float]], *, shared: bool
    ) -> None:
        """
        :param training: The training, between two rounds.
        :param teacher_returns: Returns of the teacher.
        :param returns: Those of the student by round.
        :param shared: Whether runs with the same beginning are here as well.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        states, file = training.states, self._shared if shared else self._run
        self._append(states)
        saved = {"identity": self._identities[file], "added": states.added, "teacher_returns": teacher_returns}
        partial = file.with_suffix(".part")
        th.save(saved | {"returns": returns} | training.saved(), partial)
        os.replace(partial, file)

    def _append(self, states: States) -> None:
        """Write the rows that are not there yet; those behind the last checkpoint are overwritten."""
        kind = _kind_of(states)
        # Rows that have been overwritten in the table leave a hole.
        first = max(self._written, states.added - states.capacity)
        with open(self._rows, "r+b" if self._rows.exists() else "w+b") as file:
            file.truncate(self._written * kind.itemsize)
            file.seek(first * kind.itemsize)
            for places in _blocks(first, states):
                rows = np.empty(len(places), kind)
                rows["inputs"], rows["targets"] = states.inputs[places], states.targets[places]
                file.write(rows.tobytes())
        self._written = states.added

    #: Rows in the file.
    _written: int = 0

    def put_back(self, states: States, added: int) -> None:
        """
        :param states: States without rows.
        :param added: How many had been added.
        :raises CannotGoOn: if the file has fewer
        """
        kind = _kind_of(states)
        first, states.added = max(0, added - states.capacity), added
        with open(self._rows, "rb") as file:
            file.seek(first * kind.itemsize)
            for places in _blocks(first, states):
                rows = np.fromfile(file, kind, len(places))
                if len(rows) < len(places):
                    raise CannotGoOn(f"{self._rows} has lost states: delete {self.folder} to start anew")
                states.inputs[places], states.targets[places] = rows["inputs"], rows["targets"]
        self._written = added


def _kind_of(states: States) -> np.dtype[np.void]:
    """Type of a row of the file."""
    tables = {"inputs": states.inputs, "targets": states.targets}
    return np.dtype([(name, table.dtype, table.shape[1:]) for name, table in tables.items()])


def _blocks(first: int, states: States) -> Iterator[NDArray[np.int64]]:
    """Places in the table of the rows from the first one on, some at a time."""
    for begin in range(first, states.added, _BLOCK):
        yield np.arange(begin, min(begin + _BLOCK, states.added)) % states.capacity
