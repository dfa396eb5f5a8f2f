"""The parts of an SB3 zip that can be read without unpickling anything but tensors."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

import torch as th

from sb3_sparse.nn import plain_name
from sb3_sparse.runtime.format.artifact import MAGIC

#: A zip whose parts are so many times as large as itself, and have more bytes than this, is not unpacked.
_RATIO, _LARGE = 100, 1 << 28


class Damaged(ValueError):
    """A sentence about a damaged file."""


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
    with _opened(agent) as source, zipfile.ZipFile(copy, "w") as target:
        for name in source.namelist():
            target.writestr(name, policy.getvalue() if name == "policy.pth" else source.read(name))
    copy.seek(0)
    return copy


def unpacked_bytes(agent: Path) -> int:
    """
    :param agent: An SB3 zip.
    :return: Bytes of all its parts
    :raises ValueError: if the file is damaged
    :raises OSError: if it cannot be read
    """
    with _opened(agent) as archive:
        return sum(part.file_size for part in archive.infolist())


def explain(error: Exception | str) -> str:
    """
    :param error: An error of any package that reads a damaged file, or a name in such a file.
    :return: It in part of a sentence
    """
    text = " ".join(str(error).split())
    if text.startswith("Weights only load failed"):
        # The rest of torch's advice is to load the file without this protection.
        found = re.search(r"(?:WeightsUnpickler error: |GLOBAL )(.*?)( was not an allowed|Please| Check the doc|$)", text)
        text = f"it holds more than tensors: {found[1] if found else 'objects'}"
    return shorten(re.sub(r"[^\x20-\x7e]", "?", text), 200, placeholder=" ...") or type(error).__name__


@contextmanager
def _opened(agent: Path) -> Iterator[zipfile.ZipFile]:
    """
    A zip. Whoever reads a damaged one may meet any error, which becomes a sentence.

    :raises ValueError: if the file is damaged
    :raises OSError: if it cannot be read
    """
    with agent.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                size, packed = sum(part.file_size for part in archive.infolist()), agent.stat().st_size
                if size > max(_RATIO * packed, _LARGE):
                    raise Damaged(f"{agent} has {packed:,} bytes and would unpack to {size:,}: save the agent again")
                yield archive
        except Damaged:
            raise
        except Exception as error:
            raise Damaged(f"{agent} is damaged, or not a zip ({explain(error)}); save or copy the agent again") from error


def _read_tensors(agent: Path) -> dict[str, th.Tensor]:
    with _opened(agent) as archive:
        if (damaged := archive.testzip()) is not None:
            raise Damaged(
                f"{agent} is damaged: its part '{explain(damaged)}' fails the checksum; save or copy the agent again"
            )
        if "policy.pth" not in archive.namelist():
            raise Damaged(f"{agent} holds no 'policy.pth': it is damaged, or was not saved by Stable-Baselines3")
        with archive.open("policy.pth") as file:
            tensors: dict[str, th.Tensor] = th.load(file, map_location="cpu", weights_only=True)
        if not isinstance(tensors, dict) or not all(map(_is_whole, tensors, tensors.values())):
            raise Damaged(f"{agent} is damaged: its policy does not consist of tensors; save or copy the agent again")
    return tensors


def _is_whole(name: object, value: object) -> bool:
    """Whether it is a named tensor that has memory for each of its numbers: strides of 0 make a few look like very many."""
    if not isinstance(name, str) or not isinstance(value, th.Tensor) or value.layout != th.strided:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def read_settings(agent: Path) -> dict[str, object]:
    """
    :param agent: An SB3 zip.
    :return: The attributes of its model as the zip's JSON holds them: plain values, and dicts that hold what is pickled
    :raises ValueError: if the file is damaged, or SB3 did not write it
    :raises OSError: if it cannot be read
    """
    with _opened(agent) as archive:
        written = archive.read("data") if "data" in archive.namelist() else b"{}"
        try:
            settings = json.loads(written)
        except (ValueError, RecursionError) as error:
            reason = explain(error)
            raise Damaged(
                f"{agent} is damaged: its part 'data' is not JSON ({reason}); save or copy the agent again"
            ) from error
    if not isinstance(settings, dict):
        raise Damaged(f"{agent} is damaged: its part 'data' holds no attributes; save or copy the agent again")
    return settings
