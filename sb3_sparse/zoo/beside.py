"""Where rl-zoo3, the hub and people keep the files that belong to an agent: next to its zip, or in a folder there."""

import re
from collections.abc import Sequence
from pathlib import Path


def folder_of(env: str) -> str:
    """
    >>> folder_of("ALE/Pong-v5")
    'ALE-Pong-v5'

    :param env: Name of an environment.
    :return: rl-zoo3's name of its folder
    """
    return env.split(":")[-1].replace("/", "-")


def find_beside(agent: Path, env: str | None, names: Sequence[str], pattern: str, *, unnamed: bool) -> list[Path]:
    """
    Find a file that belongs to an agent. It has one of the names and is in the folder with the name of the environment or of
    the zip, as rl-zoo3 saves it, or next to the zip. Where there is none, others are looked for next to the zip and a folder
    below, but where the environment is known not in the folder of another one.

    :param agent: Its zip.
    :param env: Name of its environment, if it is known.
    :param names: Names of the file, all with the same ending.
    :param pattern: A regular expression for the names of others, in lower case.
    :param unnamed: Whether others may be in a folder without the name of an environment, although the environment is known.
    :return: The file; several if more than one of the others may be meant, none if there is none
    """
    folders = [*([folder_of(env)] if env else []), agent.stem, ""]
    for file in (agent.parent / folder / name for folder in folders for name in names):
        if file.is_file():
            return [file]
    ending = Path(names[0]).suffix
    others = [file for depth in ("*", "*/*") for file in agent.parent.glob(f"{depth}{ending}")]
    known = None if env is None else {_unversioned(folder_of(env)) or folder_of(env), *([None] if unnamed else [])}
    return sorted(
        file
        for file in others
        if re.fullmatch(pattern, file.name.lower())
        and (known is None or file.parent == agent.parent or _unversioned(file.parent.name) in known)
    )


def _unversioned(folder: str) -> str | None:
    """The name of an environment without its version; None if it is not the name of one."""
    found = re.fullmatch(r"(.+)-v\d+", folder)
    return found[1] if found else None
