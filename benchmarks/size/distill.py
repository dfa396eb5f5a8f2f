"""
How sparse does a trained agent become in minutes, and how well does it still play?

    python -m benchmarks.size.distill sac-HalfCheetah-v4.zip tqc-HalfCheetah-v4.zip sac-Hopper-v4.zip tqc-Hopper-v4.zip \\
        --json benchmarks/results/distill.json --png benchmarks/results/distill.png
    python -m benchmarks.size.distill sac-HalfCheetah-v4.zip tqc-HalfCheetah-v4.zip --sparsities 0.98 --seeds 2 \\
        --critic-updates 10000 --json benchmarks/results/distill_critics.json
    python -m benchmarks.size.distill {dqn,ppo}/CartPole-v1_1/CartPole-v1.zip {ppo,dqn}/Acrobot-v1_1/Acrobot-v1.zip \\
        {a2c,tqc}/Pendulum-v1_1/Pendulum-v1.zip dqn/MountainCar-v0_1/MountainCar-v0.zip ppo/Walker2d-v3_1/Walker2d-v3.zip \\
        --sparsities 0.95 --json benchmarks/results/distill_others.json --png benchmarks/results/distill_others.png
    python -m benchmarks.size.distill dqn/MinAtarBreakout-v1_1/MinAtarBreakout-v1.zip --sparsities 0.95 \\
        --updates 20000 --steps 60000 --json benchmarks/results/distill_images.json
    python -m benchmarks.size.distill ppo/Walker2d-v3_1/Walker2d-v3.zip --sparsities 0.95 \\
        --updates 600000 --steps 400000 --json benchmarks/results/distill_longer.json
    python -m benchmarks.size.distill ppo/Walker2d-v3_1/Walker2d-v3.zip --sparsities 0.9 0.8 \\
        --json benchmarks/results/distill_denser.json

Each agent is distilled into students of its own shape, for every sparsity and seed, in the environment that its file is named
after. Files in rl-zoo3's folders (``ppo/Acrobot-v1_1/Acrobot-v1.zip``) have their statistics and wrappers there. A student is
exported with float weights and with 8 bits, calibrated on its own episodes. Teacher, students and random actions then play the
same fresh episodes, which nothing was chosen on. Every student is the last one of its run. CPU time is that of the whole
process: start, environment steps, training, without the evaluation.

Results are kept in ``--folder``, and a second call makes only what is missing. Without agents, PPO is trained on CartPole-v1
first. The grid ``distillation`` asks the same without random actions and a phase through the critics.
"""

import time
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure

from benchmarks.shared.question import ask, option, table
from benchmarks.shared.store import Result
from benchmarks.size.students import (
    Student,
    choose_agents,
    make_students,
    observe,
    open_teacher,
    play_teacher,
    ratio,
)
from sb3_sparse import compress, distill
from sb3_sparse.agents import Player
from sb3_sparse.sweeps.kinds.evaluation import FIRST_EPISODE, play_episodes

SPARSITIES = [0.9, 0.95, 0.98, 0.99]


@dataclass(frozen=True, kw_only=True)
class Distilled(Student):
    """
    :param sparsity: Of the student; None for the teacher itself, next to random actions.
    :param updates: See :func:`~sb3_sparse.distill`, as of the others.
    """

    kind: ClassVar[str] = "benchmarks.size.distill.Distilled"

    sparsity: float | None
    updates: int | None = None
    steps: int | None = None
    critic_updates: int | None = None

    def make(self, folder: Path) -> dict[str, Any]:
        """
        :return: Episodes of both forms of the student, or of the teacher and of random actions
        """
        teacher = open_teacher(Path(self.agent))
        model, venv, normalization = teacher.model, teacher.venv, teacher.normalization
        assert venv is not None
        if self.sparsity is None:
            space = venv.action_space
            space.seed(FIRST_EPISODE)
            return {
                "model": play_teacher(teacher, self.episodes),
                "random": play_episodes(venv, lambda *_: space.sample(), self.episodes),
                "teacher_steps": model.num_timesteps,
            }
        settings: dict[str, Any] = {"updates": self.updates, "steps": self.steps}
        settings |= {"critic_updates": self.critic_updates} if self.critic_updates else {}
        student = distill(model, venv, self.sparsity, seed=self.seed, normalization=normalization, **settings)
        result: dict[str, Any] = {"cpu_minutes": time.process_time() / 60}
        observations = observe(teacher, student)
        for name, bits in (("float", 32), ("8 bits", 8)):
            policy = compress(student, bits, observations, normalization=normalization)
            result[name] = {**play_episodes(venv, Player(policy), self.episodes), "nbytes": policy.nbytes}
        return result


def evaluate(name: str, cells: list[tuple[Distilled, dict[str, Any]]], rng: np.random.Generator, result: Result) -> None:
    """
    :param name: Name of an agent.
    :param cells: It and its students, and their results.
    :param rng: Source of the bootstrap.
    :param result: Where ratios, intervals and the rest go.
    """
    (players,) = (found for cell, found in cells if cell.sparsity is None)
    teacher, nothing = players["model"], float(np.mean(players["random"]["returns"]))
    result["teachers"][name] = float(np.mean(teacher["returns"]))
    result["teacher_steps"][name], result["random"][name] = players["teacher_steps"], nothing
    longest = max(teacher["lengths"])
    for sparsity in sorted({cell.sparsity for cell, _ in cells if cell.sparsity is not None}):
        own = [found for cell, found in cells if cell.sparsity == sparsity]
        for form in ("float", "8 bits"):
            key = f"{name}/{sparsity}/{form}"
            returns = np.array([found[form]["returns"] for found in own])
            for shares, intervals, origin in (("ratios", "intervals", 0.0), ("kept", "kept_intervals", nothing)):
                share, interval = ratio(np.array(teacher["returns"]) - origin, returns - origin, rng)
                result[shares][key], result[intervals][key] = share, interval
            shorter = [int((np.array(found[form]["lengths"]) < longest).sum()) for found in own]
            result["students"][key] = {
                "returns": [round(float(np.mean(found[form]["returns"])), 1) for found in own],
                "shorter": shorter,
                "teacher_shorter": int((np.array(teacher["lengths"]) < longest).sum()),
                "nbytes": [found[form]["nbytes"] for found in own],
                "cpu_minutes": [round(found["cpu_minutes"], 2) for found in own],
            }


def measure(args: Namespace) -> Result:
    """
    :param args: Agents, sparsities, seeds, settings of the distillation, and where students are kept.
    :return: Shares of the return, with and without that of random actions
    """
    settings = {"updates": args.updates, "steps": args.steps, "critic_updates": args.critic_updates}
    agents = list(map(str, choose_agents(args.agents)))
    students = [Distilled(agent=agent, sparsity=None, seed=0, episodes=args.episodes) for agent in agents]
    students += [
        Distilled(agent=agent, sparsity=sparsity, seed=seed, episodes=args.episodes, **settings)
        for seed in range(args.seeds)
        for sparsity in args.sparsities
        for agent in agents
    ]
    names = ("ratios", "intervals", "kept", "kept_intervals", "students", "teachers", "teacher_steps", "random")
    result: Result = {name: {} for name in names}
    result |= {"episodes": args.episodes, "seeds": args.seeds, "updates": args.updates, "steps": args.steps}
    result |= {"critic_updates": args.critic_updates} if args.critic_updates else {}
    rng = np.random.default_rng(0)
    for name, found in make_students(students, args.folder, args.jobs).items():
        evaluate(name, found, rng, result)
    return result


def show(result: Result) -> Iterable[object]:
    """
    :param result: What was measured.
    :return: A table
    """
    rows = []
    for key, share in result["ratios"].items():
        own, (low, high) = result["students"][key], result["intervals"][key]
        columns = (", ".join(map(str, own[name])) for name in ("shorter", "nbytes", "cpu_minutes"))
        rows.append((key, f"{share:.3f}", f"{low:.3f} - {high:.3f}", *columns))
    columns = ("student", "return / teacher's", "95 % interval", "shorter episodes", "bytes", "CPU minutes")
    yield table(f"{result['episodes']} episodes each", columns, rows)


def draw(result: Result) -> Figure:
    """
    :param result: What was measured.
    :return: Return over the teacher's by sparsity, one panel per agent; at one sparsity what is kept, one column per agent
    """
    names, sparsities = list(result["teachers"]), list(dict.fromkeys(key.split("/")[1] for key in result["ratios"]))
    several = len(sparsities) > 1
    figure = Figure(figsize=(3.2 * len(names), 3.2) if several else (0.9 * len(names) + 1.2, 3.6), layout="constrained")
    panels = figure.subplots(1, len(names) if several else 1, sharey=True, squeeze=False)[0]
    shares, intervals = ("ratios", "intervals") if several else ("kept", "kept_intervals")
    for axis, name in zip(panels, names, strict=False):
        for form, color, shift in (("float", "tab:blue", -0.06), ("8 bits", "tab:green", 0.06)):
            keys = [key for key in result[shares] if key.endswith(form) and (not several or key.startswith(f"{name}/"))]
            y = np.array([result[shares][key] for key in keys])
            low, high = np.array([result[intervals][key] for key in keys]).T
            bounds = [np.maximum(y - low, 0), np.maximum(high - y, 0)]
            axis.errorbar(
                np.arange(len(keys)) + shift, y, bounds, fmt="o-" if several else "o", color=color, label=form, capsize=3
            )
        axis.axhline(1.0, color="tab:gray", linewidth=0.8)
        if several:
            axis.set_xticks(range(len(sparsities)), [f"{100 * float(sparsity):.3g} %" for sparsity in sparsities])
            axis.set_title(name, fontsize=9)
            axis.set_xlabel("sparsity")
        else:
            axis.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
            axis.set_ylim(bottom=0)
    panels[0].set_ylabel("return / teacher's" if several else "(student - random) / (teacher - random)")
    panels[0].legend(loc="lower left")
    return figure


if __name__ == "__main__":
    ask(
        measure,
        option("agents", [], "zips of agents", type=Path, nargs="*"),
        option("--sparsities", SPARSITIES, "of the students", quick=[0.9], type=float, nargs="+"),
        option("--seeds", 3, "of each student", quick=2),
        option("--episodes", 50, "of each agent", quick=5),
        option("--updates", None, "updates of every student; by default those of distill", quick=5_000, type=int),
        option("--steps", None, "environment steps, likewise", quick=3_000, type=int),
        option("--critic-updates", None, "updates through the teacher's critics; by default none", type=int),
        option("--jobs", 1, "processes at a time"),
        option("--folder", Path("logs/distill"), "where students are kept", quick=Path("logs/distill_quick")),
        show=show,
        draw=draw,
        quick="short distillations",
    )
