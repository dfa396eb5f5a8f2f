"""The folder of a search: whose it is, which code has trained what is there, and that one search is there at a time."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from sb3_sparse.distillation.experience.environments import NamedEnvironment, OpenEnvironment
from sb3_sparse.distillation.learning.network import read_network
from sb3_sparse.lock import try_lock
from sb3_sparse.sources import digest_sources
from sb3_sparse.version import __version__

#: What makes a student, in this room of the package. With the package's version they stand for the code: a digest of all code
#: would make every training void with each change.
_CODE = (
    "sb3_sparse.distillation.checkpoint",
    "sb3_sparse.distillation.experience.environments",
    "sb3_sparse.distillation.experience.rollouts",
    "sb3_sparse.distillation.experience.source",
    "sb3_sparse.distillation.learning.behavior",
    "sb3_sparse.distillation.learning.critics",
    "sb3_sparse.distillation.learning.network",
    "sb3_sparse.distillation.learning.rewiring",
    "sb3_sparse.distillation.learning.rounding",
    "sb3_sparse.distillation.learning.states",
    "sb3_sparse.distillation.learning.training",
    "sb3_sparse.distillation.learning.update",
    "sb3_sparse.distillation.lesson",
    "sb3_sparse.distillation.plan",
    "sb3_sparse.distillation.recipe",
    "sb3_sparse.distillation.refinement",
    "sb3_sparse.distillation.search.workers.making",
    "sb3_sparse.distillation.student",
    "sb3_sparse.distillation.teacher",
)


class Temporary:
    """A folder that lives as long as this."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


def identify(
    model: BaseAlgorithm, place: NamedEnvironment | OpenEnvironment, normalization: VecNormalize | None, seed: int
) -> str:
    """
    :param model: The teacher.
    :param place: Its environment.
    :param normalization: The statistics of its observations, if they are normalized.
    :param seed: Seed of the search.
    :return: What searches that share students have in common
    """
    # Students have the teacher's hyperparameters in their zips. Of functions, which have no text, the learning rate counts.
    names = sorted(signature(type(model).__init__).parameters.keys() - {"seed", "verbose", "device", "tensorboard_log"})
    plain = {name: value for name in names if isinstance(value := vars(model).get(name), (bool, int, float, str))}
    rates = [model.lr_schedule(remaining) for remaining in (1.0, 0.5, 0.0)]
    digest = hashlib.sha256(repr((plain, rates)).encode())
    for parameter in read_network(model).parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    statistics = None if normalization is None or not normalization.norm_obs else normalization.obs_rms
    for each in statistics.values() if isinstance(statistics, dict) else [statistics]:
        if each is not None:
            digest.update(each.mean.tobytes() + each.var.tobytes())
    return f"{type(model).__name__} {digest.hexdigest()} {place} seed {seed}"


@contextmanager
def claim(folder: Path, identity: str) -> Iterator[None]:
    """
    Hold a folder for a search.

    :param folder: Where students are kept; it is made if it does not exist.
    :param identity: See :func:`identify`.
    :return: A context in which no other search is there
    :raises ValueError: if another search is at work there, or has been, or other code has trained there, or it is damaged
    """
    with try_lock(folder / "lock") as lock:
        if lock is None:
            raise ValueError(f"another search is at work in {folder}: wait until it has ended, or give another folder")
        _name(folder, {"identity": identity, "code": f"{__version__} {digest_sources(_CODE)[:12]}"})
        yield


def _name(folder: Path, own: dict[str, str]) -> None:
    """Say whose folder it is, if it is nobody else's."""
    file = folder / "search.json"
    if not file.exists():
        file.write_text(json.dumps(own) + "\n")
        return
    try:
        other = json.loads(file.read_text())
        identity, code = other["identity"], other.get("code", "of an earlier version")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{file} is damaged: give another folder, or delete this one") from error
    if identity != own["identity"]:
        raise ValueError(f"{folder} holds the search of another agent, environment or seed: give another folder")
    if code != own["code"]:
        raise ValueError(
            f"{folder} holds students that other code has trained, sb3_sparse {code}, and this is {own['code']}: give another"
            " folder"
        )
