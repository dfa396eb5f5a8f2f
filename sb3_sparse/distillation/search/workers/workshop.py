"""What one process of a search does: it has students made and measures them, and plays episodes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import isfinite
from pathlib import Path
from time import monotonic, sleep, time

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import VecNormalize

from sb3_sparse.agents import play
from sb3_sparse.agents.load import NO_BUFFER
from sb3_sparse.agents.observations import Observation
from sb3_sparse.distillation.experience.environments import NamedEnvironment, OpenEnvironment, Seeds
from sb3_sparse.distillation.search.candidates import Shape
from sb3_sparse.distillation.search.costs import Costs, count_instructions, foresee_costs, measure_costs
from sb3_sparse.distillation.search.results import Exported, Result, read_result
from sb3_sparse.distillation.search.workers.making import Maker
from sb3_sparse.distillation.search.workers.trial import OutOfTime, Trial
from sb3_sparse.export import compress
from sb3_sparse.lock import try_lock
from sb3_sparse.runtime import Policy, load
from sb3_sparse.state import restore

#: Seconds until a folder is looked at again that another worker has.
_PATIENCE = 1.0
#: Folder of a training that goes on.
_UNFINISHED = "training"


class Workshop:
    """
    What a process needs.

    :param kind: Class of the teacher.
    :param teacher: Its zip.
    :param environment: Makes the environment.
    :param normalization: The statistics of its observations, if they are normalized.
    :param folder: Where results are kept.
    :param seed: Seed of the search.
    :param episodes: Episodes that choices are made by.
    :param is_over: Whether the search has been interrupted.
    :param board: Name of the board that instructions are counted on; None for none.
    """

    def __init__(
        self,
        kind: type[BaseAlgorithm],
        teacher: Path,
        environment: NamedEnvironment | OpenEnvironment,
        normalization: VecNormalize | None,
        folder: Path,
        seed: int,
        episodes: int,
        is_over: Callable[[], bool],
        board: str | None = None,
    ) -> None:
        self.teacher = kind.load(teacher, device="cpu", custom_objects=NO_BUFFER)
        restore(self.teacher)
        settings = load_from_zip_file(teacher, device="cpu")[0] or {}
        self._buffer = {name: settings[name] for name in NO_BUFFER if name in settings}
        self.environment, self.venv = environment, environment.make(self.teacher)
        self.normalization, self.folder, self.is_over, self.board = normalization, folder, is_over, board
        self._maker = Maker(self.teacher, self.venv, normalization, Seeds(seed))
        self._selection = Seeds(seed).selection(episodes)

    def foresee(self, shape: Shape, bits: Sequence[int]) -> list[Costs]:
        """
        :param shape: A student that has not been trained.
        :param bits: Bits of its weights.
        :return: What it takes in each of them
        """
        if self._observed is None:
            self._observed = self._maker.observe(self.teacher)[0]
        observed, board = self._observed, self.board
        return [foresee_costs(self.teacher, shape, each, observed, self.normalization, board) for each in bits]

    #: Observations of the teacher's episodes, once somebody has asked for them.
    _observed: Observation | None = None

    def train(self, trial: Trial) -> Result:
        """
        Train a student: once for all bits up to where they matter, and then for each number of bits below 8. What an earlier
        call has come to is not done again, and a training that was interrupted goes on.

        :param trial: A student.
        :return: What it came to, as in its folder
        :raises OutOfTime: if its time is up
        """
        folder = self.folder / "candidates" / trial.name
        with self._alone(folder, trial.deadline):
            return self._train(trial, folder)

    def _save(self, student: BaseAlgorithm, file: Path) -> None:
        """With the teacher's settings of the buffer, since it may be trained further."""
        vars(student).update(self._buffer)
        student.save(file)
        vars(student).update({name: NO_BUFFER[name] for name in self._buffer})

    def _train(self, trial: Trial, folder: Path) -> Result:
        result = read_result(folder) or Result(trial.shape, trial.updates)
        missing = [bits for bits in trial.bits if not result.within([bits]).policies]
        for learnt, exported in self._maker.lessons(missing):
            begin = monotonic()
            student = self._maker.train(trial, learnt, folder / _UNFINISHED, lambda: self._check(trial.deadline))
            training, begin = (monotonic() - begin) / len(exported), monotonic()
            observations, starts = self._maker.observe(student)
            for bits in exported:
                policy = self._maker.export(student, bits, observations, starts)
                policy.save(folder / f"{bits}.sb3s")
                self._save(student, folder / f"{bits}.zip")
                costs = measure_costs(policy, observations, self.board)
                returns = tuple(self._play(policy, self._selection, trial.deadline))
                result = result.add(Exported(bits, costs, returns, training, monotonic() - begin), folder)
                begin = monotonic()
        shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)
        return result.within(trial.bits)

    def recount(self, folder: Path) -> None:
        """
        :param folder: Folder of a student, whose result has the instructions on the board from now on.
        :raises OutOfTime: if the search has been interrupted
        """
        assert self.board is not None
        result = read_result(folder)
        for policy in () if result is None else result.policies:
            self._check(float("inf"))
            if policy.costs.board != self.board:
                instructions = count_instructions(load(folder / f"{policy.bits}.sb3s").network, self.board)
                costs = replace(policy.costs, board=self.board, instructions=instructions)
                assert result is not None
                result = result.add(replace(policy, costs=costs), folder)

    def play(self, file: Path | None, seeds: Sequence[int], deadline: float) -> tuple[list[float], float]:
        """
        :param file: A compact file; None for the teacher.
        :param seeds: One seed per episode.
        :param deadline: See :class:`Trial`.
        :return: The return of each episode, and the seconds that all took
        :raises OutOfTime: if its time is up
        """
        policy = compress(self.teacher, 32, normalization=self.normalization) if file is None else load(file)
        begin = monotonic()
        return self._play(policy, seeds, deadline), monotonic() - begin

    def _play(self, policy: Policy, seeds: Sequence[int], deadline: float) -> list[float]:
        found = []
        for seed in seeds:
            self._check(deadline)
            found += [total for _, total in play(self.venv, self._maker.player(policy), seed) if total is not None]
            if not isfinite(found[-1]):
                raise ValueError(
                    f"an episode of the environment has the return {found[-1]}: look for NaN and infinity in its rewards"
                )
        return found

    def close(self) -> None:
        """End its work."""
        self.environment.close(self.venv)

    @contextmanager
    def _alone(self, folder: Path, deadline: float) -> Iterator[None]:
        """On a cluster a worker that was taken for lost may still be at work there, until it notices."""
        while True:
            with try_lock(folder / "lock") as lock:
                if lock is not None:
                    yield
                    return
            self._check(deadline)
            sleep(_PATIENCE)

    def _check(self, deadline: float) -> None:
        if self.is_over() or time() > deadline:
            raise OutOfTime
