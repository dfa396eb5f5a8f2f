"""``sb3-sparse distill``: from an agent's zip to its student's, with what ``sb3-sparse compress`` looks for next to it."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sb3_sparse.agents.compression.files import check_writable
from sb3_sparse.agents.environment import close
from sb3_sparse.agents.load import restore_training
from sb3_sparse.agents.opening import Agent
from sb3_sparse.agents.player import model_act
from sb3_sparse.agents.progress import Progress
from sb3_sparse.agents.returns import compare_returns
from sb3_sparse.distillation.recipe import distill
from sb3_sparse.offline import OfflineDataset
from sb3_sparse.sparsity import check_sparsity

#: Files of rl-zoo3 and the hub that say how an environment is made.
_SETTINGS = ("config.yml", "args.yml", "env_kwargs.yml")


def distill_agent(
    agent: Agent,
    out: Path,
    sparsity: float = 0.95,
    net_arch: Sequence[int] | None = None,
    steps: int | None = None,
    updates: int | None = None,
    seed: int = 0,
    *,
    bits: int | None = None,
    activation_bits: int | None = None,
    critic_updates: int = 0,
    stop_at: float | None = None,
    checkpoint: Path | None = None,
    dataset: str | None = None,
    episodes: int = 20,
    trust: bool = False,
) -> None:
    """
    Write the zip of a student, and the statistics and settings of its environment for ``sb3-sparse compress``; print the
    returns of both.

    :param agent: The teacher, whose environment is closed in the end.
    :param out: The zip to write; its ending ``.zip`` may be missing.
    :param sparsity: See :func:`~sb3_sparse.distill`, as for ``net_arch``, ``steps``, ``updates`` and ``seed``.
    :param bits: See :func:`~sb3_sparse.distill`, as for ``activation_bits``.
    :param critic_updates: See :func:`~sb3_sparse.distill`.
    :param stop_at: See :func:`~sb3_sparse.distill`.
    :param checkpoint: See :func:`~sb3_sparse.distill`.
    :param dataset: Id of a Minari dataset, whose observations the student learns from instead of playing.
    :param episodes: Episodes to compare the returns over, whose seeds are 0, 1, ...; 0 for none.
    :param trust: Whether to unpickle whatever the zip names.
    :raises ValueError: if an argument is wrong, or the agent cannot be distilled
    :raises OSError: if a file cannot be read or written
    """
    out = out if out.suffix == ".zip" else out.with_name(f"{out.name}.zip")
    try:
        if episodes < 0:
            raise ValueError(f"episodes must be at least 0, got {episodes}")
        if agent.venv is None and dataset is None:
            raise ValueError("a student learns from an environment or from recorded observations: give --env or --minari")
        if out.exists() and out.samefile(agent.path):
            raise ValueError(f"{out} is the agent itself: give another name for the student with -o")
        check_writable(out.parent)
        check_sparsity(sparsity)
        given = agent.venv if dataset is None else OfflineDataset.from_minari(dataset)
        assert given is not None
        print(f"the student learns to act as {agent.path.name}, with {sparsity:.4g} of its weights zero ...", flush=True)
        student = distill(
            agent.model,
            given,
            sparsity,
            net_arch,
            bits,
            steps=steps,
            updates=updates,
            seed=seed,
            activation_bits=activation_bits,
            critic_updates=critic_updates,
            stop_at=stop_at,
            normalization=agent.normalization,
            checkpoint=checkpoint,
            progress_bar=True,
        )
        for name in restore_training(student, agent.path, trust=trust):
            print(f"the {name} in {agent.path.name} is code that cannot be read here, so the student has SB3's default")
        out.parent.mkdir(parents=True, exist_ok=True)
        student.save(out)
        print(f"written: {', '.join(map(str, [out, *_copy_files(agent, out)]))}", flush=True)
        if agent.venv is not None and episodes:
            print(f"{episodes} episodes of {agent.env} each ...", flush=True)
            act = model_act(student, agent.normalization, agent.masks)
            progress = Progress("episodes", 2 * episodes, math.inf)
            returns = compare_returns(agent.venv, agent.act, act, range(episodes), progress)
            assert returns is not None
            print(replace(returns, names=("agent", "student")))
    finally:
        close(agent.venv)


def _copy_files(agent: Agent, out: Path) -> list[Path]:
    """Copy what belongs to an agent to where it is looked for next to another zip."""
    copies = {}
    if agent.statistics is not None:
        copies[out.with_name(f"{out.stem}_vecnormalize.pkl")] = agent.statistics
    if agent.settings.file is not None:
        own = {"config.yml": agent.settings.file, **{name: agent.settings.file.with_name(name) for name in _SETTINGS[1:]}}
        copies |= {out.parent / out.stem / name: file for name, file in own.items() if file.is_file()}
    for target, file in copies.items():
        target.parent.mkdir(exist_ok=True)
        if not (target.exists() and target.samefile(file)):
            shutil.copyfile(file, target)
    return list(copies)
