"""``fit``: the smallest policy that still plays, or the best that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import time
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_sparse.agents.compression.files import check_writable
from sb3_sparse.cores import BACKENDS
from sb3_sparse.distillation.checks import check_model, check_number, check_whole, read_list, read_widths
from sb3_sparse.distillation.experience.environments import NamedEnvironment, Seeds, read_environment
from sb3_sparse.distillation.search.candidates import BITS, count_weights, find_shapes, teacher_widths
from sb3_sparse.distillation.search.folder import Temporary, claim, identify
from sb3_sparse.distillation.search.front import Front, Unmet
from sb3_sparse.distillation.search.search import SELECTION, Search
from sb3_sparse.distillation.search.target import Target
from sb3_sparse.distillation.search.training import UNIT
from sb3_sparse.distillation.search.workers import Crew, Workshop, count_jobs, hire
from sb3_sparse.export import check_bits
from sb3_sparse.export.boards import BOARDS, check_tools
from sb3_sparse.sparsity import check_sparsity


def fit(
    model: BaseAlgorithm,
    env: str | gym.Env[Any, Any] | VecEnv | NamedEnvironment,
    *,
    flash: int | None = None,
    keep: float | None = None,
    us: float | None = None,
    cycles: int | None = None,
    board: str | None = None,
    net_archs: Sequence[Sequence[int] | None] | None = None,
    sparsities: Sequence[float] | None = None,
    bits: Sequence[int] = BITS,
    updates: int = 200_000,
    minutes: float | None = 20,
    jobs: int | None = None,
    backend: str = "loky",
    episodes: int = 50,
    seed: int = 0,
    normalization: VecNormalize | None = None,
    checkpoint: str | Path | None = None,
    verbose: int = 0,
) -> Front:
    """
    Search the smallest policy that plays like a trained agent, or the best that fits, among widths, sparsities and bits, by
    :func:`~sb3_sparse.distill` and successive halving.

        front = fit(SAC.load("expert"), "Hopper-v4", flash=4096)
        print(front)
        front.save("hopper")

    Students are trained for a short time first, and the best of them for longer, with their bits where these are fewer than 8.
    What cannot be within the limits is not trained: a student that has not learnt anything takes as many bytes. Choices are
    made by 20 episodes of each policy; the finalists then play fresh ones, with seeds that nothing has used before, and these
    are the returns in the result.

    :param model: The trained agent; see :func:`~sb3_sparse.distill`.
    :param env: Its environment or the name of it. Processes make it anew by the name; another one they inherit.
    :param flash: Most bytes of the C header in flash: its tables, and its code as ``arm-none-eabi-gcc -O2`` compiles it for a
        Cortex-M4 where that is installed, otherwise 1,024 bytes for it.
    :param keep: Least share of the teacher's return, ``1 + (mean - teacher) / |teacher|``; the result is the smallest policy
        that keeps so much. Without it, the result is the policy with the largest return within the limits.
    :param us: Most microseconds of a call of :func:`sb3_sparse.runtime.load`'s policy on this machine.
    :param cycles: Most instructions of an action of the C header on ``board``, the mean over its test vectors. They are
        counted under QEMU, which models neither pipelines nor wait states of flash: they are not cycles of hardware.
    :param board: Name of the board that ``cycles`` are counted on, such as ``"m4f"``, see :mod:`sb3_sparse.export.boards`.
    :param net_archs: Widths of hidden layers to search, None among them for the agent's; by default these and smaller ones.
    :param sparsities: Sparsities to search; by default those that fit each width.
    :param bits: Bits of the weights to search, 2 to 8, or 32 for float.
    :param updates: Gradient updates of the last students, rounded to a multiple of 5,000.
    :param minutes: Minutes that it may take: the trainings become shorter and fewer, and before each rung the rest of the plan
        is fitted anew into the time that is left. None for as long as it takes; then the same seed gives the same result.
    :param jobs: Processes, with one thread each; by default 2, or one for each core of a Ray cluster and at most one for each
        student.
    :param backend: Where processes are: ``"loky"`` for this machine, or ``"ray"`` for a cluster. That needs ``checkpoint``, a
        folder that all nodes share, and an environment that they can make by its name.
    :param episodes: Fresh episodes of each finalist.
    :param seed: Seed of everything that is drawn, 0 to 1,023.
    :param normalization: The ``VecNormalize`` that the model was trained in; by default that of the environment.
    :param checkpoint: Folder for what is trained: called again, a search that was interrupted goes on. A second call at a
        time is refused, and so is one of another version of this package.
    :param verbose: 1 shows how far it is.
    :return: The policies with their bytes and returns
    :raises Unmet: a ``ValueError`` with the ``front``, if nothing reaches the target; the sentence names the nearest policy
    :raises ValueError: if an argument is wrong, or the agent cannot be distilled or exported
    """
    check_model(model, normalization, "fit")
    target = Target(flash, keep, us, cycles, board)
    _check_board(model, board)
    _check_backend(backend, us, checkpoint)
    seeds = Seeds(seed)
    for name, number, least in (("updates", updates, UNIT), ("episodes", episodes, 1)):
        check_whole(name, number, least)
    if minutes is not None:
        check_number("minutes", minutes, 0)
        minutes = None if minutes == float("inf") else minutes
    updates = round(updates / UNIT) * UNIT
    bits = read_list("bits", bits, "[8, 4]")
    net_archs = None if net_archs is None else read_list("net_archs", net_archs, "[None, [64, 64]]")
    for arch in net_archs or []:
        if arch is not None:
            read_widths(arch)
    sparsities = None if sparsities is None else read_list("sparsities", sparsities, "[0.9, 0.95]")
    shapes = find_shapes(teacher_widths(model), count_weights(model), net_archs, sparsities)
    if not shapes or not bits:
        raise ValueError("there is nothing to search: give net_archs, sparsities and bits that are not empty")
    for shape in shapes:
        check_sparsity(shape.sparsity)
    for each in bits:
        check_bits(each)
    place, own = (env, normalization) if isinstance(env, NamedEnvironment) else read_environment(env, model, normalization)
    begin = time()
    # The environment fits before anything is made.
    if isinstance(place, NamedEnvironment):
        place.close(place.make(model))
    jobs = count_jobs(backend, jobs, len(shapes), place)
    temporary = Temporary() if checkpoint is None else None
    # Workers may be called elsewhere.
    folder = temporary.folder if temporary is not None else Path(str(checkpoint)).absolute()
    check_writable(folder)
    with claim(folder, identify(model, place, own, seed)):
        teacher = folder / "teacher.zip"
        model.save(teacher)
        make = partial(Workshop, type(model), teacher, place, own, folder, seed, SELECTION, board=board)
        crew = hire(backend, jobs, make)
        try:
            _recount(crew, folder, board)
            seconds = float("inf") if minutes is None else 60 * minutes - (time() - begin)
            front = Search(crew, folder, target, shapes, tuple(bits), updates, seeds, episodes, seconds, verbose > 0).run()
        finally:
            crew.close()
    about = {**front.about, "minutes": minutes, "seconds": time() - begin, "backend": backend, "jobs": jobs, "seed": seed}
    front = replace(front, about=about, normalization=own, keeper=temporary)
    if not front.met:
        raise Unmet(front)
    return front


def _check_board(model: BaseAlgorithm, board: str | None) -> None:
    if board is None:
        return
    if isinstance(model.observation_space, gym.spaces.Dict):
        raise ValueError(
            "instructions are counted of policies with one observation, not of dict observations: limit flash or us"
        )
    check_tools([BOARDS[board]])


def _check_backend(backend: str, us: float | None, checkpoint: str | Path | None) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} must be one of {', '.join(BACKENDS)}")
    if backend != "ray":
        return
    if us is not None:
        raise ValueError("microseconds are those of this machine, and a Ray cluster has others: limit flash, or take loky")
    if checkpoint is None:
        raise ValueError("workers of a Ray cluster need a folder that all nodes share: give checkpoint")


def _recount(crew: Crew, folder: Path, board: str | None) -> None:
    """Count the instructions of students of an earlier search, which had another board or none."""
    earlier = [] if board is None else [file.parent for file in sorted(folder.glob("candidates/*/result.json"))]
    for _ in crew.run(("recount", (each,)) for each in earlier):
        pass
