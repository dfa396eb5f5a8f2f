"""The files of an agent that a cell begins with."""

import hashlib
from functools import cache
from pathlib import Path
from zipfile import ZipFile, is_zipfile


def check_agent(agent: Path) -> None:
    """
    :param agent: Zip of an agent.
    :raises ValueError: if it does not exist, or is no zip of SB3
    """
    if not agent.is_file():
        raise ValueError(
            f"there is no agent {agent}: give the path of its zip from where the command runs; benchmarks/README.md says"
            " where those of our grids are from"
        )
    if not is_zipfile(agent) or "data" not in ZipFile(agent).namelist():
        raise ValueError(f"{agent} is not the zip of an agent that SB3 has saved")


@cache
def digest_agent(agent: Path, env: str) -> dict[str, str | None]:
    """
    :param agent: Zip of an agent.
    :param env: Its environment.
    :return: Hashes of it and of the files that belong to it; None for an agent that is not there
    """
    if not agent.is_file():
        return {"agent": None}
    from sb3_sparse.agents import load_normalization
    from sb3_sparse.zoo.settings import find_settings

    settings, normalization = find_settings(agent, env), load_normalization(agent, env)
    files = {
        "agent": agent,
        "settings": None if settings is None else settings.file,
        "normalization": None if normalization is None else normalization[0],
    }
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items() if file is not None}
