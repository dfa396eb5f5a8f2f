"""The parts of an SB3 zip that can be read without unpickling anything but tensors."""

import io
import json
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import torch as th

from sb3_sparse.nn import plain_name
from sb3_sparse.runtime.format.artifact import MAGIC


def find_agent(path: Path) -> Path:
    """
    :param path: An SB3 zip; its ending ``.zip`` may be missing, as in SB3's own ``load``.
    :return: The file
    :raises ValueError: if it is an exported policy
    :raises OSError: if there is not such a file, or it cannot be read
    """
    agent = next((file for file in (path, Path(f"{path}.zip")) if file.is_file()), None)
    if agent is None:
        raise FileNotFoundError(f"there is no agent at {path}: give the zip that model.save() has written")
    with agent.open("rb") as file:
        if file.read(len(MAGIC)) == MAGIC:
            raise ValueError(f"{agent} is an exported policy, not an SB3 zip: give the zip that it was exported from")
    return agent


def read_policy(agent: Path) -> dict[str, th.Tensor]:
    """
    :param agent: An SB3 zip.
    :return: The state dict of its policy, with its names before any compilation; only tensors are unpickled, and nothing else
        of the file is read
    :raises ValueError: if the file is damaged, or SB3 did not write it
    :raises OSError: if it cannot be read
    """
    return {plain_name(name): tensor for name, tensor in _read_tensors(agent).items()}


def without_compilation(agent: Path) -> Path | io.BytesIO:
    """
    SB3 cannot load the zip of a model whose networks were compiled (``th.compile(model.policy.actor)``), because the names of
    their tensors are others.

    :param agent: An SB3 zip.
    :return: The same zip, or one in memory with the names before the compilation
    :raises ValueError: if the file is damaged, or SB3 did not write it
    :raises OSError: if it cannot be read
    """
    tensors = _read_tensors(agent)
    plain = {plain_name(name): tensor for name, tensor in tensors.items()}
    if plain.keys() == tensors.keys():
        return agent
    policy, copy = io.BytesIO(), io.BytesIO()
    th.save(plain, policy)
    with zipfile.ZipFile(agent) as source, zipfile.ZipFile(copy, "w") as target:
        for name in source.namelist():
            target.writestr(name, policy.getvalue() if name == "policy.pth" else source.read(name))
    copy.seek(0)
    return copy


def _read_tensors(agent: Path) -> dict[str, th.Tensor]:
    try:
        with zipfile.ZipFile(agent) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"{agent} is damaged: its part '{damaged}' fails the checksum; save or copy the agent again")
            if "policy.pth" not in archive.namelist():
                raise ValueError(f"{agent} holds no 'policy.pth': it is damaged, or was not saved by Stable-Baselines3")
            with archive.open("policy.pth") as file:
                state_dict: dict[str, th.Tensor] = th.load(file, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, RuntimeError, UnpicklingError, EOFError, AttributeError) as error:
        raise ValueError(f"{agent} is damaged, or not a zip ({error}); save or copy the agent again") from error
    if not isinstance(state_dict, dict) or not all(isinstance(value, th.Tensor) for value in state_dict.values()):
        raise ValueError(f"{agent} is damaged: its policy does not consist of tensors; save or copy the agent again")
    return state_dict


def read_settings(agent: Path) -> dict[str, object]:
    """
    :param agent: An SB3 zip.
    :return: The attributes of its model as the zip's JSON holds them: plain values, and dicts that hold what is pickled
    :raises ValueError: if the file is damaged, or SB3 did not write it
    :raises OSError: if it cannot be read
    """
    try:
        with zipfile.ZipFile(agent) as archive:
            settings = json.loads(archive.read("data")) if "data" in archive.namelist() else {}
    except (zipfile.BadZipFile, ValueError, RecursionError) as error:
        raise ValueError(f"{agent} is damaged: its part 'data' is not JSON ({error}); save or copy the agent again") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{agent} is damaged: its part 'data' holds no attributes; save or copy the agent again")
    return settings
