"""
What benchmarks of distilled students share: teachers from files, episodes that nothing was chosen on, and students that the
runner of sweeps makes and keeps, each in a process with one thread.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from stable_baselines3.common.base_class import BaseAlgorithm

from benchmarks.data.smoke import AGENT, make_agent
from sb3_sparse import compress
from sb3_sparse.agents import Agent, Player, model_act, open_agent, play_observations
from sb3_sparse.agents.observations import Observation
from sb3_sparse.sweeps import Cell, Folder
from sb3_sparse.sweeps.kinds import Distill
from sb3_sparse.sweeps.kinds.evaluation import CALIBRATED, FIRST_CALIBRATED, play_episodes
from sb3_sparse.sweeps.prices import Prices
from sb3_sparse.sweeps.progress import show_progress
from sb3_sparse.sweeps.runner import run


def name_of(agent: Path) -> str:
    """
    :param agent: Zip of an agent, ``sac-Hopper-v4.zip`` or ``sac/Hopper-v4_1/Hopper-v4.zip``.
    :return: Its algorithm and environment, ``sac-Hopper-v4``
    """
    return agent.stem if agent.stem.split("-")[0].islower() else f"{agent.parent.parent.name}-{agent.stem}"


def open_teacher(agent: Path) -> Agent:
    """
    :param agent: Zip of a teacher.
    :return: The teacher, with the environment that its file is named after
    """
    opened = open_agent(agent, env=name_of(agent).split("-", 1)[1])
    assert opened.venv is not None
    return opened


def observe(teacher: Agent, student: BaseAlgorithm) -> Observation:
    """
    :param teacher: A teacher, with its environment.
    :param student: A student of it.
    :return: Observations of the student's own episodes to calibrate with, which are others than those that are compared
    """
    assert teacher.venv is not None
    return play_observations(teacher.venv, model_act(student, teacher.normalization), CALIBRATED, FIRST_CALIBRATED)


def play_teacher(teacher: Agent, count: int) -> dict[str, list]:
    """
    :param teacher: A teacher.
    :param count: Number of episodes.
    :return: As :func:`play_episodes`
    """
    policy = compress(teacher.model, 32, normalization=teacher.normalization)
    return play_episodes(teacher.venv, Player(policy), count)


@dataclass(frozen=True, kw_only=True)
class Student(Cell):
    """
    A student of a trained agent, or the agent itself.

    :param agent: Zip of the agent.
    :param episodes: Number of episodes that it plays.
    """

    agent: str
    episodes: int

    def check(self) -> None:
        """
        :raises ValueError: if there is no such agent
        """
        if not Path(self.agent).is_file():
            raise ValueError(f"there is no agent {self.agent}")

    def content(self) -> object:
        """
        :return: That of the agent
        """
        return Distill(agent=self.agent, env=name_of(Path(self.agent)).split("-", 1)[1], seed=0).content()

    @property
    def work(self) -> int:
        """Students are counted, and not their updates."""
        return 1

    @property
    def rates(self) -> tuple[str, ...]:
        """Only the agent."""
        return (self.agent,)

    @property
    def usual(self) -> tuple[float, float]:
        """About a minute."""
        return 8.0, 60.0

    @abstractmethod
    def make(self, folder: Path) -> dict[str, Any]:
        """
        :param folder: Unused: a student that was interrupted is made anew.
        :return: What is kept of it
        """


AnyStudent = TypeVar("AnyStudent", bound=Student)


def choose_agents(agents: list[Path]) -> list[Path]:
    """
    :param agents: Agents of the command line.
    :return: These, or one that is trained within seconds
    """
    if not agents:
        make_agent(AGENT)
    return agents or [AGENT]


def make_students(students: Sequence[AnyStudent], root: Path) -> dict[str, list[tuple[AnyStudent, dict[str, Any]]]]:
    """
    :param students: Students, and teachers among them, in the order in which they are made.
    :param root: Where results are kept.
    :return: By name of the agent: students and their results
    :raises ValueError: if an agent is missing
    :raises RuntimeError: if one cannot be made
    """
    folder = Folder(root)
    for student in students:
        student.check()
    with show_progress(students, folder, Prices(folder), 1):
        run(students, root, jobs=1)
    found: dict[str, list[tuple[AnyStudent, dict[str, Any]]]] = {name_of(Path(student.agent)): [] for student in students}
    for student in students:
        result = folder.read(student.name)
        if result is None:
            raise RuntimeError(f"{student} failed: {folder.deaths(student.name)[-1]}")
        found[name_of(Path(student.agent))].append((student, result))
    return found


def ratio(teacher: ArrayLike, students: ArrayLike, rng: np.random.Generator) -> tuple[float, list[float]]:
    """
    :param teacher: Returns of the teacher, ``[episodes]``.
    :param students: Those of each seed's student, ``[seeds, episodes]``.
    :param rng: Source of the bootstrap.
    :return: Mean of the students over the teacher's, and a 95 % interval by a bootstrap over seeds, and over the episodes of
        each seed and of the teacher
    """
    base, table = np.array(teacher), np.array(students)
    draws = []
    for _ in range(4000):
        rows = rng.integers(len(table), size=len(table))
        columns = rng.integers(table.shape[1], size=(len(table), table.shape[1]))
        draws.append(table[rows[:, None], columns].mean() / rng.choice(base, len(base)).mean())
    return round(float(table.mean() / base.mean()), 4), [round(float(q), 4) for q in np.quantile(draws, [0.025, 0.975])]
