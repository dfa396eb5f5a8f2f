"""
What benchmarks of distilled students share: teachers from files, processes of their own, episodes that nothing was chosen on.

A script that makes students has cells, dicts that say how one is made. ``run_cells`` calls the script with ``--cell`` for
every cell whose result is not there yet, in a process with one thread.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from rich.progress import track
from stable_baselines3 import PPO

from sb3_sparse import compress
from sb3_sparse.agents import Act, Player
from sb3_sparse.agents.opening import Agent, open_agent
from sb3_sparse.agents.returns import play

#: The first seed of the episodes; those of the training are drawn from 31 bits.
FIRST_EPISODE = 1_000_000


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


def make_teacher(folder: Path) -> Path:
    """
    :param folder: Where to save it.
    :return: Zip of an agent that is trained within seconds
    """
    path = folder / "ppo-CartPole-v1.zip"
    folder.mkdir(parents=True, exist_ok=True)
    PPO("MlpPolicy", "CartPole-v1", n_steps=256, seed=0, device="cpu").learn(8_000).save(path)
    return path


def play_episodes(venv: Any, act: Act, count: int) -> dict[str, list]:
    """
    :param venv: One environment.
    :param act: Who plays.
    :param count: Number of episodes.
    :return: The return of each, and its steps: shorter episodes are falls
    """
    returns, steps = [], []
    for seed in range(FIRST_EPISODE, FIRST_EPISODE + count):
        totals = [total for _, total in play(venv, act, seed)]
        returns.append(totals[-1])
        steps.append(len(totals))
    return {"returns": returns, "steps": steps}


def play_teacher(teacher: Agent, count: int) -> dict[str, list]:
    """
    :param teacher: A teacher.
    :param count: Number of episodes.
    :return: As :func:`play_episodes`
    """
    policy = compress(teacher.model, 32, normalization=teacher.normalization)
    return play_episodes(teacher.venv, Player(policy), count)


def keep(result: Any, out: Path) -> None:
    """
    :param result: A result, as JSON has it.
    :param out: Where it is kept; the file is there whole or not at all.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".part")
    partial.write_text(json.dumps(result))
    os.replace(partial, out)


def run_cells(
    script: str,
    work: list[tuple[Path, dict[str, Any]]],
    name: Callable[[dict[str, Any]], str],
    folder: Path,
    jobs: int = 1,
    *,
    missing: bool = True,
) -> dict[str, list[tuple[dict, dict]]]:
    """
    :param script: The script, ``__file__``.
    :param work: Zips of teachers, and what to make of each, in this order.
    :param name: Gives the name of a cell's file, without ``.json``.
    :param folder: Where results are kept.
    :param jobs: Processes at a time.
    :param missing: Whether to make cells that are not there; otherwise they are left out.
    :return: By agent: cells and their results
    :raises RuntimeError: if a cell fails
    """

    def run(agent: Path, cell: dict[str, Any]) -> dict[str, Any] | None:
        out = folder / name_of(agent) / f"{name(cell)}.json"
        if not out.exists() and not missing:
            return None
        if not out.exists():
            command = [sys.executable, script, str(agent), "--cell", json.dumps(cell), str(out)]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{name_of(agent)} {name(cell)} failed:\n{done.stderr}")
        result: dict[str, Any] = json.loads(out.read_text())
        return result

    found: dict[str, list[tuple[dict, dict]]] = {name_of(agent): [] for agent, _ in work}
    with ThreadPoolExecutor(jobs) as pool:
        results = track(pool.map(lambda pair: run(*pair), work), total=len(work), description="students")
        for (agent, cell), result in zip(work, results, strict=True):
            if result is not None:
                found[name_of(agent)].append((cell, result))
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
