"""
Small agents to run: students of trained agents as compact files, with what a reader has to know of each.

    python -m benchmarks.size.agents tqc-HalfCheetah-v4.zip:256x256-95:8 sac-HalfCheetah-v4.zip:256x256-98:8 \\
        tqc-Hopper-v4.zip:32x32-0:4 sac-Hopper-v4.zip:16x16-0:8 --updates 300000 \\
        --json benchmarks/results/agents.json

Each is distilled from the agent with the hidden layers, the sparsity in percent and the bits that stand behind its name, with
seed 0, and exported with calibration on its own episodes. Teacher and student then play the same fresh episodes, which nothing
was chosen on. The files are written to ``--out``.

Students are kept in ``--folder``, and a second call makes only what is missing. Without agents, PPO is trained on CartPole-v1
first.
"""

import hashlib
import re
import time
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.shared.question import ask, option, table
from benchmarks.shared.store import Result
from benchmarks.size.students import (
    Student,
    choose_agents,
    make_students,
    name_of,
    observe,
    open_teacher,
    play_teacher,
    ratio,
)
from sb3_sparse import compress, distill
from sb3_sparse.agents import Player
from sb3_sparse.sweeps import Folder
from sb3_sparse.sweeps.kinds.evaluation import play_episodes

FILE = "agent.sb3s"


def split(shape: str) -> tuple[list[int], float]:
    """
    :param shape: Such as "64x64-80".
    :return: Widths of the hidden layers, and the sparsity
    """
    widths, _, sparsity = shape.partition("-")
    return [int(width) for width in widths.split("x")], float(sparsity) / 100


@dataclass(frozen=True, kw_only=True)
class Small(Student):
    """
    :param shape: Hidden layers and sparsity in percent, such as "64x64-80".
    :param bits: Bits of the weights.
    :param updates: See :func:`~sb3_sparse.distill`, as of the steps.
    """

    kind: ClassVar[str] = "benchmarks.size.agents.Small"

    shape: str
    bits: int
    updates: int | None = None
    steps: int | None = None

    def make(self, folder: Path) -> dict[str, Any]:
        """
        :param folder: Where its compact file is kept.
        :return: Episodes of the teacher and of the student, bytes and weights
        """
        teacher = open_teacher(Path(self.agent))
        venv, normalization = teacher.venv, teacher.normalization
        assert venv is not None
        net_arch, sparsity = split(self.shape)
        settings: dict[str, Any] = {
            "seed": self.seed,
            "updates": self.updates,
            "steps": self.steps,
            "normalization": normalization,
        }
        student = distill(teacher.model, venv, sparsity, net_arch, self.bits, **settings)
        minutes = time.process_time() / 60
        observations = observe(teacher, student)
        policy = compress(student, self.bits, observations, normalization=normalization)
        policy.save(folder / FILE)
        return {
            "env": venv.get_attr("spec")[0].id,
            "algorithm": type(student).__name__,
            "cpu_minutes": round(minutes, 1),
            "nbytes": policy.nbytes,
            "weights": sum(layer.nonzero_after for layer in policy.report().layers),
            "teacher": play_teacher(teacher, self.episodes),
            "student": play_episodes(venv, Player(policy), self.episodes),
        }


def measure(args: Namespace) -> Result:
    """
    :param args: Agents with shapes and bits, episodes, settings of the distillation, and folders.
    :return: By name of the file: what the card says
    """
    wanted = args.agents or [f"{choose_agents([])[0]}:16x16-50:8"]
    settings = {"seed": 0, "episodes": args.episodes, "updates": args.updates, "steps": args.steps}
    students = []
    for text in wanted:
        if not re.fullmatch(r".+:\d+(x\d+)*-\d+(\.\d+)?:\d+", text):
            raise ValueError(f"'{text}' is not an agent with shape and bits, such as agent.zip:64x64-80:8")
        agent, shape, bits = text.rsplit(":", 2)
        students.append(Small(agent=agent, shape=shape, bits=int(bits), **settings))
    names = [name_of(Path(student.agent)) for student in students]
    if len(set(names)) < len(names):
        raise ValueError("an agent is given twice, and each has one file: give another --out")
    rng, folder = np.random.default_rng(0), Folder(args.folder)
    result: Result = {"agents": {}, "episodes": args.episodes, "updates": args.updates}
    args.out.mkdir(parents=True, exist_ok=True)
    for name, found in make_students(students, args.folder).items():
        for student, own in found:
            data = (folder.cell_folder(student.name) / FILE).read_bytes()
            (args.out / f"{name}.sb3s").write_bytes(data)
            means = {who: round(float(np.mean(own[who]["returns"])), 1) for who in ("teacher", "student")}
            share, interval = ratio(own["teacher"]["returns"], [own["student"]["returns"]], rng)
            result["agents"][name] = {
                "teacher": name_of(Path(student.agent)),
                **{key: own[key] for key in ("env", "algorithm", "cpu_minutes", "nbytes", "weights")},
                **{"shape": student.shape, "bits": student.bits, "seed": student.seed, "returns": means},
                **{"ratio": share, "interval": interval, "sha256": hashlib.sha256(data).hexdigest()},
            }
    return result


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: A table
    """
    rows = [
        (name, own["shape"], own["bits"], own["nbytes"], own["returns"]["teacher"], own["returns"]["student"], own["ratio"])
        for name, own in result["agents"].items()
    ]
    yield table("", ("agent", "shape", "bits", "bytes", "teacher", "student", "return / teacher's"), rows)


if __name__ == "__main__":
    ask(
        measure,
        option("agents", [], "zips of agents, with shape and bits: AGENT:64x64-80:8", type=str, nargs="*"),
        option("--episodes", 50, "of teacher and student", quick=2),
        option("--updates", None, "gradient updates; by default those of distill", quick=5_000, type=int),
        option("--steps", None, "environment steps, likewise", quick=3_000, type=int),
        option("--out", Path("docs/results/agents"), "where the files are written", quick=Path("logs/agents_quick/files")),
        option("--folder", Path("logs/agents"), "where students are kept", quick=Path("logs/agents_quick")),
        show=show,
        quick="a short distillation",
    )
