"""The last phase of a distillation: the teacher's critics say which of a student's deviations cost return."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch as th
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_sparse.agents.observations import Observation
from sb3_sparse.distillation.checks import check_whole
from sb3_sparse.distillation.experience.rollouts import Rollouts
from sb3_sparse.distillation.learning.behavior import Behavior
from sb3_sparse.distillation.learning.critics import find_critics, value_actions
from sb3_sparse.distillation.learning.training import BLOCK
from sb3_sparse.distillation.lesson import Lesson
from sb3_sparse.distillation.plan import Plan, make_critic_plan
from sb3_sparse.distillation.teacher import fast_act


class Refinement(Lesson):
    """
    A lesson of a student that has its weights and masks already. Its first states come from its own episodes, as
    the later ones do, or are the recorded ones.
    """

    first_seed: ClassVar[int] = 1000

    def _first_observations(self, rollouts: Rollouts | None) -> Observation:
        if rollouts is None:
            return super()._first_observations(rollouts)
        act = fast_act(self.student, self.source.normalization, self.source.env)
        observations, self.returns[-1] = rollouts.play(self.plan.first_steps, self._seed_of(-1), act)
        return observations

    def _find_behavior(self, inputs: NDArray[np.generic]) -> Behavior:
        imitation = super()._find_behavior(inputs)
        actions = imitation.targets(self.teacher.network.outputs(inputs))
        return value_actions(imitation, find_critics(self.teacher.model), th.as_tensor(inputs), actions)

    def _targets(self, inputs: NDArray[np.generic]) -> NDArray[np.float32]:
        # The critics see the observations as they are, and the student normalized ones.
        return np.hstack([super()._targets(inputs), inputs.astype(np.float32)])


def find_last_phase(model: BaseAlgorithm, updates: int, on_grid: bool) -> Plan | None:
    """
    :param model: The teacher.
    :param updates: Updates through its critics; 0 for none.
    :param on_grid: Whether the student's weights or activations are on a grid.
    :return: The plan of the phase; None for no phase
    :raises ValueError: if it has no such critics, the updates are too few, or the phase would leave the grid
    """
    check_whole("critic_updates", updates, 0)
    if not updates:
        return None
    find_critics(model)
    if on_grid:
        raise ValueError(
            f"critic_updates={updates} would take a student in few bits off its grid: leave critic_updates or the bits out"
        )
    return make_critic_plan(updates, BLOCK)
