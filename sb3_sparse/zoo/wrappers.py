"""
The wrappers of an environment in rl-zoo3's notation, ``env_wrapper`` in its files: a name, a name with arguments, or a list.

    sb3_contrib.common.wrappers.TimeFeatureWrapper
    {rl_zoo3.wrappers.FrameSkip: {skip: 4}}

A name imports a module, and importing runs code. So a name from somebody's file has to be in a short list of modules.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

import gymnasium as gym
import yaml

from sb3_sparse.zoo.arguments import check_arguments
from sb3_sparse.zoo.notation import brief

#: The modules that a file may name. A module below them counts as them: old files name those.
KNOWN = (
    "sb3_contrib.common.wrappers",
    "stable_baselines3.common.atari_wrappers",
    "gymnasium.wrappers",
    "rl_zoo3.wrappers",
    "minigrid.wrappers",
)
#: Modules that had other names.
_OLD_MODULES = {
    "gym.wrappers": "gymnasium.wrappers",
    "utils.wrappers": "rl_zoo3.wrappers",
    "gym_minigrid.wrappers": "minigrid.wrappers",
}
#: Classes that had other names, or were elsewhere.
_OLD_CLASSES = {
    "rl_zoo3.wrappers.TimeFeatureWrapper": "sb3_contrib.common.wrappers.TimeFeatureWrapper",
    "rl_zoo3.wrappers.DoneOnSuccessWrapper": "rl_zoo3.wrappers.TruncatedOnSuccessWrapper",
    "gymnasium.wrappers.GrayScaleObservation": "gymnasium.wrappers.GrayscaleObservation",
}
_REFUSED = {
    "gymnasium.wrappers.NormalizeObservation": "normalizes by statistics that no file of the agent holds",
    "gymnasium.wrappers.RecordVideo": "writes files",
    "gymnasium.wrappers.HumanRendering": "opens a window",
    "gymnasium.wrappers.RenderCollection": "keeps every frame",
}
_WAY_OUT = "give the right wrappers with --env-wrapper, or --env-wrapper none"


@dataclass(frozen=True)
class Wrappers:
    """
    Wrappers of an environment. Calling them wraps one.

    :param classes: Each class with its arguments, the innermost first.
    """

    classes: tuple[tuple[type[gym.Wrapper], Mapping[str, object]], ...] = ()

    def __call__(self, env: gym.Env) -> gym.Env:
        for cls, kwargs in self.classes:
            try:
                env = cls(env, **kwargs)
            except Exception as error:  # A wrapper may raise anything.
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise ValueError(f"{cls.__name__} cannot wrap this environment ({reason}): {_WAY_OUT}") from error
        return env

    def __str__(self) -> str:
        return ", ".join(
            f"{cls.__name__}({', '.join(f'{name}={brief(value)}' for name, value in kwargs.items())})"
            for cls, kwargs in self.classes
        )


def read_wrappers(notation: object, *, trust: bool = False) -> Wrappers:
    """
    >>> print(read_wrappers({"gymnasium.wrappers.ClipReward": {"max_reward": 5}}))
    ClipReward(max_reward=5)

    :param notation: The wrappers in rl-zoo3's notation; a class may stand for its name. None for no wrapper.
    :param trust: Whether to import whatever module is named, and to take any argument.
    :return: The wrappers; a name of an old version stands for that of today
    :raises ValueError: if a name is not known, an argument may do harm, or the notation is not rl-zoo3's
    """
    entries = notation if isinstance(notation, list) else [] if notation is None else [notation]
    return Wrappers(tuple(_read(entry, trust) for entry in entries))


def read_notation(texts: Sequence[str]) -> list[object]:
    """
    >>> read_notation(["rl_zoo3.wrappers.HistoryWrapper", "{rl_zoo3.wrappers.FrameSkip: {skip: 4}}"])
    ['rl_zoo3.wrappers.HistoryWrapper', {'rl_zoo3.wrappers.FrameSkip': {'skip': 4}}]

    :param texts: Wrappers on a command line, each as rl-zoo3's files write it; "none" for none.
    :return: The same as :func:`read_wrappers` takes it
    :raises ValueError: if one cannot be read
    """
    if list(texts) == ["none"]:
        return []
    try:
        return [yaml.safe_load(text) for text in texts]
    except yaml.YAMLError as error:
        raise ValueError(f"--env-wrapper takes names, or {{name: {{argument: value}}}}, got {' '.join(texts)}") from error


def _read(entry: object, trust: bool) -> tuple[type[gym.Wrapper], Mapping[str, object]]:
    named, kwargs = next(iter(entry.items())) if isinstance(entry, dict) and len(entry) == 1 else (entry, None)
    kwargs = {} if kwargs is None else kwargs
    if isinstance(kwargs, dict) and all(isinstance(name, str) for name in kwargs):
        if isinstance(named, str):
            found = _find(named, trust)
            if not trust:
                check_arguments(f"the environment wrapper {found.__name__}", kwargs, _WAY_OUT)
            return found, kwargs
        if isinstance(named, type) and issubclass(named, gym.Wrapper):
            return named, kwargs
    raise ValueError(f"an environment wrapper is a name, or one name with its arguments, not {brief(entry)}: {_WAY_OUT}")


def _find(written: str, trust: bool) -> type[gym.Wrapper]:
    module, _, name = _today(written).rpartition(".")
    path = f"{module}.{name}"
    if path in _REFUSED:
        raise ValueError(f"the environment wrapper {written} {_REFUSED[path]}, so it is not used: {_WAY_OUT}")
    if module not in KNOWN and not trust:
        raise ValueError(
            f"the environment wrapper {brief(written)} is not imported, as it is not in {', '.join(KNOWN)}: --trust "
            f"imports it, which may run any code; or {_WAY_OUT}"
        )
    try:
        found = getattr(import_module(module), name, None)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"the environment wrapper {written} cannot be imported ({error}): install it, or {_WAY_OUT}"
        ) from error
    if not isinstance(found, type) or not issubclass(found, gym.Wrapper):
        raise ValueError(f"there is no environment wrapper {brief(written)} in the {module} of today: {_WAY_OUT}")
    return found


def _today(written: str) -> str:
    """The name of today for a class."""
    module, _, name = written.rpartition(".")
    for package in (*_OLD_MODULES, *KNOWN):
        if f"{module}.".startswith(f"{package}."):
            module = _OLD_MODULES.get(package, package)
    path = f"{module}.{name}"
    return _OLD_CLASSES.get(path, path)
