"""Zips as SB3 1.x wrote them, without the packages that it needed."""

import base64
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

#: Functions and buffers that SB3 1.x pickled as code of its Python, and nobody needs for acting.
_CODE = ("lr_schedule", "clip_range", "exploration_schedule", "ep_info_buffer", "ep_success_buffer")


def by_gym(instance: Any) -> bytes:
    """A pickle as the old package wrote it: of its own module, with a generator of random numbers and fewer attributes."""
    instance.seed(0)
    written = pickle.dumps(instance, protocol=3)
    assert b"cgymnasium.spaces." in written
    return written.replace(b"cgymnasium.spaces.", b"cgym.spaces.").replace(b"cgymnasium.utils.", b"cgym.utils.")


def rewrite(agent: Path, **pickles: bytes) -> None:
    """Replace pickled attributes of a zip."""
    with zipfile.ZipFile(agent) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(parts["data"])
    for name, written in pickles.items():
        data[name] = {":type:": "what it was", ":serialized:": base64.b64encode(written).decode()}
    parts["data"] = json.dumps(data).encode()
    with zipfile.ZipFile(agent, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)


class _Gone:
    """Stands in for code of another Python; a pickle of it names a module that is not installed."""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return _Gone, ()


def save_old(model: BaseAlgorithm, agent: Path) -> None:
    """
    :param model: A model.
    :param agent: Where to save it as SB3 1.x did: spaces of ``gym``, and code that no Python of today can read.
    """
    model.save(agent)
    code = pickle.dumps(_Gone(), protocol=2).replace(b"ctests.old_zips\n_Gone", b"ccloudpickle.cloudpickle\n_fill_function")
    pickles = {name: code for name in _CODE if hasattr(model, name)}
    rewrite(agent, **{name: by_gym(getattr(model, name)) for name in ("observation_space", "action_space")}, **pickles)


def save_old_statistics(venv: VecNormalize, file: Path) -> None:
    """
    :param venv: An environment with statistics.
    :param file: Where to save them as ``VecNormalize`` of SB3 1.x did.
    """
    file.write_bytes(pickle.dumps(venv, protocol=3).replace(b"cgymnasium.", b"cgym."))
