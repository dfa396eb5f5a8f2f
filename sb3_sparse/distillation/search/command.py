"""``sb3-sparse fit``: from an SB3 zip to the smallest policy that still plays."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from sb3_contrib import MaskablePPO

from sb3_sparse.agents.compression.files import check_writable
from sb3_sparse.agents.environment import close
from sb3_sparse.agents.load import restore_training
from sb3_sparse.agents.opening import open_agent
from sb3_sparse.distillation.experience.environments import NamedEnvironment
from sb3_sparse.distillation.search.fit import fit
from sb3_sparse.distillation.search.front import Unmet


def fit_agent(
    path: Path,
    out: Path,
    *,
    env: str,
    env_kwargs: Mapping[str, object] | None = None,
    env_wrapper: object = None,
    frame_stack: int | None = None,
    config: Path | None = None,
    algorithm: str | None = None,
    vecnormalize: Path | None = None,
    trust: bool = False,
    flash: int | None = None,
    keep: float | None = None,
    us: float | None = None,
    cycles: int | None = None,
    board: str | None = None,
    bits: Sequence[int] | None = None,
    updates: int | None = None,
    minutes: float | None = 20,
    jobs: int | None = None,
    backend: str = "loky",
    episodes: int = 50,
    seed: int = 0,
) -> bool:
    """
    Search, print what was found, and write it: see :meth:`~sb3_sparse.distillation.search.Front.save`. What is finished is
    kept in ``candidates/``, and the same command goes on from there.

    :param path: An SB3 zip.
    :param out: Folder to write to; it is made if it does not exist.
    :param env: Name of the environment.
    :param env_kwargs: See :func:`~sb3_sparse.agents.opening.open_agent`.
    :param env_wrapper: Likewise.
    :param frame_stack: Likewise.
    :param config: Likewise.
    :param algorithm: Likewise.
    :param vecnormalize: Likewise.
    :param trust: Likewise.
    :param flash: See :func:`~sb3_sparse.fit`.
    :param keep: Likewise.
    :param us: Likewise.
    :param cycles: Likewise.
    :param board: Likewise.
    :param bits: Likewise; None for the default.
    :param updates: Likewise.
    :param minutes: Likewise.
    :param jobs: Likewise.
    :param backend: Likewise.
    :param episodes: Likewise.
    :param seed: Likewise.
    :return: Whether something reaches the target
    :raises ValueError: if an argument is wrong, or the agent cannot be distilled or exported
    :raises OSError: if a file cannot be read or written
    """
    check_writable(out)
    agent = open_agent(
        path,
        env=env,
        env_kwargs=env_kwargs,
        env_wrapper=env_wrapper,
        frame_stack=frame_stack,
        config=config,
        algorithm=algorithm,
        vecnormalize=vecnormalize,
        trust=trust,
    )
    close(agent.venv)
    for name in restore_training(agent.model, agent.path, trust=trust):
        print(f"the {name} in {agent.path.name} is code that cannot be read here, so the students have SB3's default")
    place = NamedEnvironment(env, agent.settings.env_kwargs, agent.wrappers, agent.settings.frame_stack)
    others = {name: value for name, value in (("bits", bits), ("updates", updates)) if value is not None}
    try:
        front = fit(
            agent.model,
            place,
            flash=flash,
            keep=keep,
            us=us,
            cycles=cycles,
            board=board,
            minutes=minutes,
            jobs=jobs,
            backend=backend,
            episodes=episodes,
            seed=seed,
            normalization=agent.normalization,
            checkpoint=out,
            verbose=1,
            **others,  # type: ignore[arg-type]
        )
    except Unmet as unmet:
        front = unmet.front
    print(f"\n{front}\n")
    if front.about["cut"]:
        print("there was no time for the whole plan: with more minutes there may be better policies")
    if not front.met and _has_met(out):
        print(f"{front.verdict}\n\n{out} keeps the policy of an earlier search, which met its target", flush=True)
        return False
    written = front.save(out, name=path.stem, masks=isinstance(agent.model, MaskablePPO))
    print(f"{front.verdict}\n\nwritten to {out}: {', '.join(written)}", flush=True)
    return front.met


def _has_met(out: Path) -> bool:
    """Whether a search that met its target has written there."""
    try:
        return bool(json.loads((out / "fit.json").read_text())["met"])
    except (OSError, ValueError, LookupError, TypeError):
        return False
