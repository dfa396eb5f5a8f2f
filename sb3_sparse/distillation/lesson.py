"""A distillation under way: the teacher, the student in training, and the states that come in between."""

from __future__ import annotations

import hashlib
import warnings
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList

from sb3_sparse.agents.observations import Observation
from sb3_sparse.agents.player import find_masks
from sb3_sparse.agents.returns import compare_with_training
from sb3_sparse.distillation.checkpoint import Checkpoint
from sb3_sparse.distillation.experience.rollouts import Rollouts
from sb3_sparse.distillation.experience.source import Source
from sb3_sparse.distillation.learning.behavior import Behavior
from sb3_sparse.distillation.learning.states import States
from sb3_sparse.distillation.learning.training import Distillation
from sb3_sparse.distillation.plan import FIXED, PRUNING, ROUNDS, Plan
from sb3_sparse.distillation.student import finish
from sb3_sparse.distillation.teacher import Teacher, fast_act

#: Rounds between two checkpoints, and rounds whose returns decide whether the student plays like the teacher.
_SAVED, _RECENT = 5, 10
#: Fewest episodes that decide.
_EPISODES = 5
#: Rounds of one seed have seeds of their own.
_STRIDE = 100_003


class Lesson:
    """
    A distillation.

    :param teacher: The teacher.
    :param student: The student.
    :param source: Where states come from.
    :param plan: How long it takes.
    :param seed: Seed of everything that is drawn.
    :param on_grid: Whether its weights or activations will be on a grid.
    :param coarse: See :class:`~sb3_sparse.distillation.learning.states.States`.
    :param stop_at: Share of the teacher's return at which it ends early; None for never.
    :param checkpoint: Where it is saved; None for nowhere.
    :param verbose: Verbosity level, as in SB3.
    """

    #: Seed of what is played before its first round, among the seeds of a run.
    first_seed: ClassVar[int] = 0

    def __init__(
        self,
        teacher: Teacher,
        student: BaseAlgorithm,
        source: Source,
        plan: Plan,
        seed: int,
        *,
        on_grid: bool = False,
        coarse: bool = False,
        stop_at: float | None = None,
        checkpoint: Checkpoint | None = None,
        verbose: int = 0,
    ) -> None:
        self.teacher, self.student = teacher, student
        self.source, self.plan, self.seed = source, plan, seed
        self.stop_at, self.checkpoint, self.on_grid = stop_at, checkpoint, on_grid
        #: Returns of episodes without noise: the teacher's, and the student's by round.
        self.teacher_returns: list[float] = []
        self.returns: dict[int, list[float]] = {}
        masks = None if source.env is None else find_masks(teacher.model, source.env)
        self._rollouts = None if source.env is None else Rollouts(source.env, teacher.act, masks)
        inputs = self.teacher.inputs(self._first_observations(self._rollouts))
        self.behavior = self._find_behavior(inputs)
        vectors = self.teacher.network.first is not None
        capacity = len(inputs) if self._rollouts is None else plan.steps
        self.states = States(capacity, inputs, self._targets(inputs), normalize=vectors, coarse=coarse)
        self.training = Distillation(
            self.student,
            self.behavior,
            self.states,
            plan.rate,
            round_updates=plan.updates // plan.rounds,
            begin_round=self._begin_round,
            seed=seed,
            verbose=verbose,
        )

    def _first_observations(self, rollouts: Rollouts | None) -> Observation:
        if rollouts is None:
            assert self.source.recorded is not None
            return self.source.recorded
        observations, self.teacher_returns = rollouts.play(self.plan.first_steps, self._seed_of(-1))
        if doubt := compare_with_training(self.teacher.model, self.teacher_returns):
            warnings.warn(doubt, stacklevel=2)
        return observations

    def _seed_of(self, number: int) -> int:
        """The seed of a round; -1 is what is played before the first one."""
        return self.seed * _STRIDE + self.first_seed + number + 1

    def _find_behavior(self, inputs: NDArray[np.generic]) -> Behavior:
        return self.teacher.behavior(inputs)

    def _targets(self, inputs: NDArray[np.generic]) -> NDArray[np.float32]:
        targets: NDArray[np.float32] = self.behavior.targets(self.teacher.network.outputs(inputs)).numpy()
        return targets

    def resume(self) -> None:
        """Go on where the checkpoint says."""
        saved = None if self.checkpoint is None else self.checkpoint.load(self._digest())
        if saved is not None:
            assert self.checkpoint is not None
            self.checkpoint.put_back(self.states, saved["added"])
            self.teacher_returns, self.returns = saved["teacher_returns"], saved["returns"]
            self.training.put_back(saved)

    def _digest(self) -> str:
        """The first states, and what the teacher does there: another teacher, environment or normalization differs."""
        digest = hashlib.sha256()
        for table in (self.states.inputs, self.states.targets):
            digest.update(table[: len(self.states)].reshape(-1).view(np.uint8).data)
        digest.update(repr(self.states.mean).encode())
        return digest.hexdigest()

    def train(self, updates: int, callbacks: list[BaseCallback]) -> None:
        """
        :param updates: Updates of the whole run; one that goes on has fewer left.
        :param callbacks: Callbacks of the training.
        """
        training = self.training
        left = updates - training.num_timesteps
        if left > 0:
            training.learn(left, CallbackList(callbacks), reset_num_timesteps=False)

    def _begin_round(self, number: int) -> bool:
        """Add states, and say whether to go on."""
        if number >= self.plan.rounds:
            return True
        if self.checkpoint is not None and number and number % _SAVED == 0:
            shared = self.training.num_timesteps < self.plan.rounding[0]
            self.checkpoint.save(self.training, self.teacher_returns, self.returns, shared=shared)
        self.training.publish()
        wanted = self.plan.states_by(number) - self.states.added
        if self._rollouts is None or wanted <= 0:
            return True
        act = fast_act(self.student, self.source.normalization, self.source.env)
        observations, self.returns[number] = self._rollouts.play(wanted, self._seed_of(number), act)
        inputs = self.teacher.inputs(observations)
        self.states.add(inputs, self._targets(inputs))
        self._log(number)
        return not self._plays_like_the_teacher(number)

    def _log(self, number: int) -> None:
        logger = self.training.logger
        recent = self._recent(number)
        if recent:
            logger.record("rollout/ep_rew_mean", float(np.mean(recent)))
        if self.teacher_returns:
            logger.record("rollout/teacher_ep_rew_mean", float(np.mean(self.teacher_returns)))
        logger.record("rollout/states", len(self.states))

    def _recent(self, number: int) -> list[float]:
        return [each for index in range(number - _RECENT + 1, number + 1) for each in self.returns.get(index, ())]

    def _plays_like_the_teacher(self, number: int) -> bool:
        recent = self._recent(number)
        # A student on a grid is ready once that does not change any more.
        ready = FIXED * ROUNDS if self.on_grid else PRUNING * ROUNDS + _RECENT
        if self.stop_at is None or number < ready or len(recent) < _EPISODES or not self.teacher_returns:
            return False
        goal = float(np.mean(self.teacher_returns))
        return float(np.mean(recent)) >= goal - (1 - self.stop_at) * abs(goal)

    def end(self) -> BaseAlgorithm:
        """
        :return: The student, whole
        """
        self.training.publish()
        inputs = self.states.inputs[: len(self.states)]
        trained = self.training.policy.student
        finish(self.teacher.model, self.student, trained, self.states.raw(inputs[-20_000:]), self.states.deviations)
        return self.student
