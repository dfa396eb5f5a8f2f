"""Who works for a search: how many, where, and whether its environment can go there."""

from __future__ import annotations

import os

import torch as th

from sb3_sparse.cores import count_cores
from sb3_sparse.distillation.checks import check_whole
from sb3_sparse.distillation.experience.environments import NamedEnvironment, OpenEnvironment
from sb3_sparse.distillation.search.workers.actors import Actors
from sb3_sparse.distillation.search.workers.crew import Crew, ThisProcess
from sb3_sparse.distillation.search.workers.processes import Processes
from sb3_sparse.distillation.search.workers.worker import Make

#: Processes of this machine, if nobody says how many.
_JOBS = 2


def count_jobs(backend: str, jobs: int | None, most: int, place: NamedEnvironment | OpenEnvironment) -> int:
    """
    :param backend: One of :data:`~sb3_sparse.cores.BACKENDS`.
    :param jobs: How many workers are wanted; None for 2, or one for each core of a Ray cluster.
    :param most: How many can have work at once.
    :param place: The environment that they make or inherit.
    :return: How many workers there will be
    :raises ValueError: if ``jobs`` is wrong, the backend's package is missing, or workers there cannot have the environment
    """
    if jobs is not None:
        check_whole("jobs", jobs, 1)
    if backend == "ray":
        if isinstance(place, OpenEnvironment):
            raise ValueError("workers of a Ray cluster cannot take this environment over: give its name, or take loky")
        return min(count_cores(backend), most) if jobs is None else jobs
    jobs = _JOBS if jobs is None else jobs
    if jobs > 1 and not _forks() and isinstance(place, OpenEnvironment):
        raise ValueError("other processes cannot take this environment over here: give its name, or jobs=1")
    return jobs


def hire(backend: str, jobs: int, make: Make) -> Crew:
    """
    :param backend: One of :data:`~sb3_sparse.cores.BACKENDS`.
    :param jobs: See :func:`count_jobs`.
    :param make: Makes what a worker needs.
    :return: The workers, who are to be closed in the end
    """
    if backend == "ray":
        return Actors(jobs, make)
    return ThisProcess(make) if jobs == 1 else Processes(jobs, make, inherited=_forks())


def _forks() -> bool:
    """Whether processes are forked. A process that has computed on a GPU cannot be."""
    return hasattr(os, "fork") and not th.cuda.is_available()
