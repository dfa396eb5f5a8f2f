"""
What decides in a distillation: the score of the weights, and where the states come from.

    python -m benchmarks.size.ablation tqc-HalfCheetah-v4.zip --json benchmarks/results/ablation.json

The agent is distilled at 95 % as ``distill`` does it, and with one thing changed: weights ranked by their magnitude; states of
the teacher's own episodes alone; states of the teacher with segments of noisy actions, but none of the student. The number of
states is the same. Students have float weights, and play the same fresh episodes as the teacher.
Students are kept, and a second call makes only what is missing. The grid ``sac_scores`` asks about the score in reinforcement
learning.
"""

from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.shared.question import ask, option, table
from benchmarks.shared.store import Result
from benchmarks.size.students import Student, make_students, open_teacher
from sb3_sparse import compress, distill
from sb3_sparse.agents import Player, play_observations
from sb3_sparse.distillation.experience.rollouts import Rollouts
from sb3_sparse.sweeps.kinds.evaluation import play_episodes
from sb3_sparse.sweeps.report.statistics import estimate_mean

SPARSITY = 0.95
BASE, MAGNITUDE, PATH, NOISY = "as it is", "magnitude", "the teacher's path alone", "the teacher's path and noise"
ARMS = (BASE, MAGNITUDE, PATH, NOISY)


@dataclass(frozen=True, kw_only=True)
class Arm(Student):
    """
    :param arm: What is changed; None for the teacher itself.
    :param updates: See :func:`~sb3_sparse.distill`.
    :param steps: Number of states.
    """

    kind: ClassVar[str] = "benchmarks.size.ablation.Arm"

    arm: str | None
    updates: int
    steps: int

    def make(self, folder: Path) -> dict[str, Any]:
        """
        :return: Its episodes
        """
        opened = open_teacher(Path(self.agent))
        model, venv, normalization = opened.model, opened.venv, opened.normalization
        assert venv is not None
        act, given = Player(compress(model, 32, normalization=normalization)), venv
        if self.arm == PATH:
            given = play_observations(venv, act, self.steps, seed=100_003 * self.seed)
        if self.arm == NOISY:
            rollouts = Rollouts(venv, lambda observations: np.stack([act(each, False) for each in observations]))
            given = rollouts.play(self.steps, self.seed)[0][: self.steps]
        if self.arm is not None:
            saliency = "magnitude" if self.arm == MAGNITUDE else "fisher"
            settings = {"seed": self.seed, "updates": self.updates, "steps": self.steps, "saliency": saliency}
            model = distill(model, given, SPARSITY, normalization=normalization, **settings)
        return play_episodes(venv, Player(compress(model, 32, normalization=normalization)), self.episodes)


def compare(found: Sequence[tuple[Arm, dict[str, Any]]]) -> Result:
    """
    :param found: The teacher and its students, and their episodes.
    :return: Mean return of the teacher; by arm, of each seed the mean return, standard deviation and worst episode
    """
    (teacher,) = (played["returns"] for student, played in found if student.arm is None)
    result: Result = {"arms": {}, "teacher": round(float(np.mean(teacher)), 1)}
    for arm in ARMS:
        returns = np.array([played["returns"] for student, played in found if student.arm == arm])
        result["arms"][arm] = {
            "returns": returns.mean(axis=1).round(1).tolist(),
            "deviations": returns.std(axis=1).round(1).tolist(),
            "worst": returns.min(axis=1).round(1).tolist(),
        }
    return result


def measure(args: Namespace) -> Result:
    """
    :param args: The agent, seeds, settings of the distillation, and where students are kept.
    :return: Returns by arm
    """
    lengths = {"updates": args.updates, "steps": args.steps, "episodes": args.episodes}
    arms: list[tuple[str | None, int]] = [(None, 0), *((arm, seed) for seed in range(args.seeds) for arm in ARMS)]
    students = [Arm(agent=str(args.agent), arm=arm, seed=seed, **lengths) for arm, seed in arms]
    (found,) = make_students(students, args.folder).values()
    return {**compare(found), "lengths": lengths, "seeds": args.seeds}


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: A table
    """
    rows = []
    for arm, own in result["arms"].items():
        share = estimate_mean(np.array(own["returns"]) / result["teacher"])
        between = None if share.interval is None else tuple(round(end, 3) for end in share.interval)
        rows.append((arm, f"{share.value:.3f}", between, own["returns"], own["worst"]))
    yield table("", ("distillation", "share of the return", "95 % interval", "returns", "worst episodes"), rows)


if __name__ == "__main__":
    ask(
        measure,
        option("agent", None, "zip of an agent", type=Path),
        option("--seeds", 3, "of each student", quick=1),
        option("--episodes", 50, "of each student", quick=2),
        option("--updates", 100_000, "of each student", quick=5_000),
        option("--steps", 300_000, "states of each student", quick=3_000),
        option("--folder", Path("logs/ablation"), "where students are kept", quick=Path("logs/ablation_quick")),
        show=show,
        quick="short distillations",
    )
