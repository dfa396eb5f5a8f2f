"""
How much return is there in how many bytes: a large network pruned, a smaller one pruned, or a small dense one?

    python -m benchmarks.size.sizes tqc-Hopper-v4.zip tqc-HalfCheetah-v4.zip sac-Hopper-v4.zip sac-HalfCheetah-v4.zip \\
        --json benchmarks/results/sizes.json --png benchmarks/results/sizes.png

Each agent is distilled into students of several widths and sparsities, in the environment that its file is named after. All
have the same number of gradient updates and environment steps. Every student is exported with float weights and in 8, 4, 3 and
2 bits, rounded after the training and calibrated on its own episodes. Teacher and students then play the same fresh episodes,
which nothing was chosen on. Bytes are those of the compact file.

Results are kept in ``--folder``, and a second call makes only what is missing; with ``--stored`` it makes nothing, and says
what is missing. Without agents, PPO is trained on CartPole-v1 first. The grid ``return_over_bytes`` has some of these
students.
"""

import time
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.shared.question import ask, option, table
from benchmarks.shared.store import Result
from benchmarks.size.sizes_figure import FAMILIES, ROUNDED, TRAINED, draw, published
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
from sb3_sparse.distillation.search.costs import flash_bytes
from sb3_sparse.sweeps.kinds.evaluation import play_episodes


def split(shape: str) -> tuple[list[int], float]:
    """
    :param shape: Such as "64x64-80".
    :return: Widths of the hidden layers, and the sparsity
    """
    widths, _, sparsity = shape.partition("-")
    return [int(width) for width in widths.split("x")], float(sparsity) / 100


@dataclass(frozen=True, kw_only=True)
class Sized(Student):
    """
    :param shape: Hidden layers and sparsity in percent, such as "64x64-80"; None for the teacher itself.
    :param updates: See :func:`~sb3_sparse.distill`, as of the others.
    """

    kind: ClassVar[str] = "benchmarks.size.sizes.Sized"

    shape: str | None
    updates: int | None = None
    steps: int | None = None
    bits: int | None = None

    @property
    def title(self) -> str:
        """How it is called where it is missing."""
        if self.shape is None:
            return f"teacher_{self.episodes}"
        trained = "" if self.bits is None else f"_bits{self.bits}"
        return f"{self.shape}_{self.seed}_updates{self.updates}_steps{self.steps}{trained}_{self.episodes}"

    def make(self, folder: Path) -> dict[str, Any]:
        """
        :return: Episodes of every form of the student, or of the teacher
        """
        teacher = open_teacher(Path(self.agent))
        if self.shape is None:
            return {"model": play_teacher(teacher, self.episodes)}
        venv, normalization = teacher.venv, teacher.normalization
        assert venv is not None
        net_arch, sparsity = split(self.shape)
        settings = {"seed": self.seed, "updates": self.updates, "steps": self.steps, "normalization": normalization}
        student = distill(teacher.model, venv, sparsity, net_arch, self.bits, **settings)
        result: dict[str, Any] = {"cpu_minutes": time.process_time() / 60}
        observations = observe(teacher, student)
        for form, bits in (ROUNDED if self.bits is None else {f"{self.bits} bits, trained": self.bits}).items():
            policy = compress(student, bits, observations, normalization=normalization)
            _, tables = flash_bytes(policy.network)
            episodes = play_episodes(venv, Player(policy), self.episodes)
            result[form] = {**episodes, "nbytes": policy.nbytes, "tables": tables}
        return result


def evaluate(name: str, cells: list[tuple[Sized, dict[str, Any]]], rng: np.random.Generator, result: Result) -> None:
    """
    :param name: Name of an agent.
    :param cells: It and its students, and their results, as far as they are there.
    :param rng: Source of the bootstrap.
    :param result: Where ratios, intervals and the rest go.
    """
    teachers = [found["model"] for cell, found in cells if cell.shape is None]
    if not teachers:
        return
    (teacher,) = teachers
    result["teachers"][name] = float(np.mean(teacher["returns"]))
    for shape in dict.fromkeys(cell.shape for cell, _ in cells if cell.shape is not None):
        for form in ROUNDED | TRAINED:
            own = [found for cell, found in cells if cell.shape == shape and form in found]
            if not own:
                continue
            key, students = f"{name}/{shape}/{form}", [found[form] for found in own]
            share, interval = ratio(teacher["returns"], [student["returns"] for student in students], rng)
            result["ratios"][key], result["intervals"][key] = share, interval
            result["students"][key] = {
                "returns": [round(float(np.mean(student["returns"])), 1) for student in students],
                "nbytes": [student["nbytes"] for student in students],
                "tables": [student["tables"] for student in students],
                "cpu_minutes": [round(found["cpu_minutes"], 2) for found in own],
            }


def measure(args: Namespace) -> Result:
    """
    :param args: Agents, shapes, seeds, settings of the distillation, and where students are kept.
    :return: Shares of the return by shape and form
    """
    agents = list(map(str, choose_agents(args.agents)))
    trained: list[int | None] = [None, *args.trained]
    students = []
    for seed in range(args.seeds):
        for agent in agents:
            if seed == 0:
                students.append(Sized(agent=agent, shape=None, seed=0, episodes=args.episodes))
            settings = {"agent": agent, "seed": seed, "updates": args.updates, "steps": args.steps, "episodes": args.episodes}
            students += [Sized(shape=shape, bits=bits, **settings) for bits in trained for shape in args.shapes]
    found = make_students(students, args.folder, args.jobs, missing=not args.stored)
    result: Result = {"ratios": {}, "intervals": {}, "students": {}, "teachers": {}, "families": FAMILIES}
    result |= {"episodes": args.episodes, "seeds": args.seeds, "updates": args.updates, "steps": args.steps}
    rng = np.random.default_rng(0)
    for name, cells in found.items():
        evaluate(name, cells, rng, result)
    done = {student for cells in found.values() for student, _ in cells}
    left = [student for student in students if student not in done]
    result["missing"] = [f"{name_of(Path(student.agent))}/{student.title}" for student in left]
    result["published"] = {name: published(name) for name in result["teachers"]}
    return result


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: A table, and what is missing
    """
    rows = []
    for key, share in result["ratios"].items():
        own, (low, high) = result["students"][key], result["intervals"][key]
        columns = (", ".join(map(str, own[name])) for name in ("nbytes", "tables", "cpu_minutes"))
        rows.append((key, f"{share:.3f}", f"{low:.3f} - {high:.3f}", *columns))
    columns = ("student", "return / teacher's", "95 % interval", "bytes", "bytes of tables in C", "CPU minutes")
    yield table(f"{result['episodes']} episodes each", columns, rows)
    if result["missing"]:
        yield f"missing: {', '.join(result['missing'])}"


if __name__ == "__main__":
    # The first shapes of every family, then the second ones, and so on.
    shapes = [shape for row in zip(*FAMILIES.values(), strict=True) for shape in row]
    ask(
        measure,
        option("agents", [], "zips of agents", type=Path, nargs="*"),
        option("--shapes", shapes, "hidden layers and sparsities in percent", quick=["64x64-90", "8x8-0"], nargs="+"),
        option("--seeds", 1, "of each student"),
        option("--episodes", 20, "of each agent", quick=5),
        option("--updates", 300_000, "gradient updates of every student", quick=5_000),
        option("--steps", 150_000, "environment steps, likewise", quick=3_000),
        option("--trained", [], "bits that students are trained for as well", type=int, nargs="*"),
        option("--jobs", 1, "processes at a time"),
        option("--folder", Path("logs/sizes"), "where students are kept", quick=Path("logs/sizes_quick")),
        option("--stored", False, "make nothing: what is missing is named"),
        show=show,
        draw=draw,
        quick="short distillations",
    )
