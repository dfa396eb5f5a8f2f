"""How a search makes a student: its training for each number of bits, and its export. The folder's digest names this code."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_sparse.agents import Player, play_starts
from sb3_sparse.agents.observations import Observation
from sb3_sparse.agents.player import find_masks
from sb3_sparse.distillation.checkpoint import CannotGoOn
from sb3_sparse.distillation.experience.environments import Seeds
from sb3_sparse.distillation.learning.network import read_network
from sb3_sparse.distillation.recipe import distill
from sb3_sparse.distillation.search.workers.trial import InTime, Trial
from sb3_sparse.export import CompressedPolicy, compress
from sb3_sparse.runtime import Policy

#: Observations to calibrate with.
_CALIBRATED = 2048
#: Environment steps per update, and most of them.
_STEPS, _MOST_STEPS = 3, 400_000


@dataclass(frozen=True)
class Maker:
    """
    Makes students of one teacher.

    :param teacher: The teacher.
    :param venv: Its environment.
    :param normalization: The statistics of its observations, if they are normalized.
    :param seeds: Seeds of the search.
    """

    teacher: BaseAlgorithm
    venv: VecEnv
    normalization: VecNormalize | None
    seeds: Seeds

    def lessons(self, bits: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """
        :param bits: Bits that a student is to be exported in.
        :return: Bits that it learns with, 8 for float weights, and those of them that it is exported in then
        """
        # A mean of estimates is on no grid, so its weights are rounded afterwards.
        few = [each for each in bits if each < 8 and read_network(self.teacher).estimates == 1]
        others = [each for each in bits if each not in few]
        if others:
            yield 8, others
        yield from ((each, [each]) for each in few)

    def train(self, trial: Trial, bits: int, folder: Path, check: Callable[[], None]) -> BaseAlgorithm:
        """
        :param trial: A student.
        :param bits: Bits that it learns with.
        :param folder: Folder of a training that goes on.
        :param check: Raises an error if the training has to end now.
        :return: The student
        """
        try:
            return self._distill(trial, bits, folder, check)
        except CannotGoOn:
            # An environment that does not follow its seeds gives every training first states of its own.
            shutil.rmtree(folder)
            return self._distill(trial, bits, folder, check)

    def _distill(self, trial: Trial, bits: int, folder: Path, check: Callable[[], None]) -> BaseAlgorithm:
        return distill(
            self.teacher,
            self.venv,
            trial.shape.sparsity,
            trial.shape.net_arch,
            bits,
            steps=min(_STEPS * trial.updates, _MOST_STEPS),
            updates=trial.updates,
            seed=self.seeds.seed,
            normalization=self.normalization,
            callback=InTime(check),
            checkpoint=folder,
        )

    def observe(self, model: BaseAlgorithm) -> tuple[Observation, NDArray[Any]]:
        """
        :param model: The teacher or a student.
        :return: Observations of its own episodes, and which of them begin one
        """
        policy = compress(model, 32, normalization=self.normalization)
        return play_starts(self.venv, self.player(policy), _CALIBRATED, self.seeds.calibration())

    def player(self, policy: Policy) -> Player:
        """
        :param policy: An exported policy.
        :return: What plays it in this environment
        """
        return Player(policy, masks=find_masks(self.teacher, self.venv))

    def export(self, student: BaseAlgorithm, bits: int, observations: Observation, starts: NDArray[Any]) -> CompressedPolicy:
        """
        :param student: A student.
        :param bits: Bits of its weights.
        :param observations: Observations to calibrate with.
        :param starts: Which of them begin an episode.
        :return: The student as a small policy
        """
        return compress(student, bits, observations, episode_starts=starts, normalization=self.normalization)
