"""
The statistics of an agent's observations, from a file of ``VecNormalize``.

Such a file holds a pickle, and unpickling runs what it says: load only files that you trust.
"""

import re
from pathlib import Path

from stable_baselines3.common.save_util import load_from_pkl
from stable_baselines3.common.vec_env import VecNormalize

from sb3_sparse.agents.load import BROKEN


def load_normalization(agent: Path, env: str | None = None, path: Path | None = None) -> tuple[Path, VecNormalize] | None:
    """
    Load the statistics of ``VecNormalize`` for an agent.

    :param agent: Its zip.
    :param env: Name of its environment.
    :param path: The file, or "none" for no normalization; by default the file of the same checkpoint, or
        ``vecnormalize.pkl`` next to the zip or in the folder with the environment's name, as rl-zoo3 saves it.
    :return: The file and its statistics; None if there is none
    :raises ValueError: if the file was not saved by ``VecNormalize``
    :raises OSError: if it cannot be read
    """
    if path == Path("none"):
        return None
    if path is None:
        folders = [agent.parent, agent.parent / (env or agent.stem).split(":")[-1].replace("/", "-")]
        checkpoint = re.sub(r"_(\d+_steps)$", r"_vecnormalize_\1.pkl", agent.stem)
        candidates = [agent.parent / checkpoint] if checkpoint != agent.stem else []
        candidates += [folder / "vecnormalize.pkl" for folder in folders]
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path is None:
            return None
    try:
        with path.open("rb") as file:
            normalization = load_from_pkl(file)
    except (*BROKEN, ValueError) as error:
        raise ValueError(f"{path} was not saved by VecNormalize.save() ({error}): give another file") from error
    if not isinstance(normalization, VecNormalize):
        raise ValueError(f"{path} was not saved by VecNormalize.save(): it holds a {type(normalization).__name__}")
    return path, normalization
