"""
A trained agent from its files: the model, the statistics of its observations, and the environment that it plays in.

SB3's zips and ``VecNormalize`` files hold pickles, and unpickling runs what they say: load only files that you trust.
"""

import json
import re
import zipfile
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from sb3_contrib import QRDQN, TQC, TRPO, CrossQ
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.save_util import json_to_data, load_from_pkl
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize, VecTransposeImage
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy

from sb3_sparse.offline import (
    BC,
    BCQ,
    BCQPolicy,
    DiscreteBC,
    DiscreteBCPolicy,
    DiscreteBCQ,
    DiscreteBCQPolicy,
    MLPPolicy,
    VAEPolicy,
)
from sb3_sparse.pixels.atari import is_atari
from sb3_sparse.state import restore

#: Base class of a policy -> the algorithms that it may be of. They differ in training alone: any of them acts the same.
ALGORITHMS: dict[type[BasePolicy], dict[str, type[BaseAlgorithm]]] = {
    SACPolicy: {"sac": SAC},
    TD3Policy: {"td3": TD3, "ddpg": DDPG},
    DQNPolicy: {"dqn": DQN},
    ActorCriticPolicy: {"ppo": PPO, "a2c": A2C, "trpo": TRPO},
    TQC.policy_aliases["MlpPolicy"]: {"tqc": TQC},
    CrossQ.policy_aliases["MlpPolicy"]: {"crossq": CrossQ},
    QRDQN.policy_aliases["MlpPolicy"]: {"qrdqn": QRDQN},
    VAEPolicy: {"bc": BC},
    MLPPolicy: {"bc": BC},
    BCQPolicy: {"bcq": BCQ},
    DiscreteBCPolicy: {"discrete_bc": DiscreteBC},
    DiscreteBCQPolicy: {"discrete_bcq": DiscreteBCQ},
}
#: What only training needs is not worth its memory, nor are functions that another version of Python has pickled.
_UNUSED = {"buffer_size": 1, "learning_rate": 0.0, "lr_schedule": lambda _: 0.0, "clip_range": lambda _: 0.0}
_BROKEN = (ImportError, AttributeError, KeyError, TypeError, RuntimeError, EOFError, UnpicklingError, json.JSONDecodeError)


def load_agent(path: Path, algorithm: str | None = None) -> BaseAlgorithm:
    """
    Load an SB3 zip on the CPU, with masks and quantizers as they were trained.

    :param path: The zip.
    :param algorithm: Name of its algorithm, such as "sac"; by default found by the class of its policy.
    :return: The model
    :raises ValueError: if the file is damaged, or the algorithm is unknown, or another
    :raises OSError: if it cannot be read
    """
    known = {name: cls for algorithms in ALGORITHMS.values() for name, cls in algorithms.items()}
    if algorithm is not None and algorithm not in known:
        raise ValueError(f"unknown algorithm '{algorithm}': use one of {', '.join(known)}")
    found = _find_algorithms(path)
    if algorithm is None and not found:
        raise ValueError(f"{path} does not say what algorithm it is of: give --algo, one of {', '.join(known)}")
    if algorithm is not None and found and algorithm not in found:
        raise ValueError(f"{path} holds a policy of {' or '.join(found)}, not of {algorithm}: leave out --algo")
    cls = known[algorithm or next(iter(found))]
    try:
        model = cls.load(path, device="cpu", custom_objects=dict(_UNUSED))
    except _BROKEN as error:
        raise ValueError(f"{path} cannot be loaded as {cls.__name__} ({type(error).__name__}: {error})") from error
    restore(model)
    return model


def _find_algorithms(path: Path) -> dict[str, type[BaseAlgorithm]]:
    """The algorithms that the policy in a zip may be of, the likeliest first; none if it does not say."""
    try:
        with zipfile.ZipFile(path) as archive:
            data = json.loads(archive.read("data"))
        policy = json_to_data(json.dumps({"policy_class": data["policy_class"]}))["policy_class"]
    except (zipfile.BadZipFile, *_BROKEN):
        return {}
    if not isinstance(policy, type):
        return {}
    if issubclass(policy, RecurrentActorCriticPolicy | MaskableActorCriticPolicy):
        raise ValueError(f"{path} holds a {policy.__name__}: policies with an LSTM or with masked actions cannot be exported")
    return next((algorithms for base, algorithms in ALGORITHMS.items() if issubclass(policy, base)), {})


def load_normalization(agent: Path, env: str | None = None, path: Path | None = None) -> tuple[Path, VecNormalize] | None:
    """
    Statistics of ``VecNormalize`` for an agent.

    :param agent: Its zip.
    :param env: Its environment.
    :param path: The file, or "none" for no normalization; by default one that belongs to the same checkpoint, or
        ``vecnormalize.pkl`` beside the zip or in the folder with the environment's name, as rl-zoo3 saves it.
    :return: The file and what it holds; None if there is none
    :raises ValueError: if the file is no such file
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
    except (*_BROKEN, ValueError) as error:
        raise ValueError(f"{path} is no file of VecNormalize ({error})") from error
    if not isinstance(normalization, VecNormalize):
        raise ValueError(f"{path} is no file of VecNormalize: it holds a {type(normalization).__name__}")
    return path, normalization


def make_environment(env: str, model: BaseAlgorithm, env_kwargs: dict[str, Any] | None = None) -> VecEnv:
    """
    One environment in a ``VecEnv``, with SB3's wrappers and stacked frames for an Atari game that is played from images. Its
    observations are not normalized.

    :param env: Name of the environment.
    :param model: The model that will play in it.
    :param env_kwargs: Arguments of the environment.
    :return: The environment
    :raises ValueError: if there is none of this name, or the model does not fit it
    """
    # Registers MinAtar's games.
    import_module("sb3_sparse.pixels.minatar")
    atari = is_image_space(model.observation_space) and is_atari(env)
    try:
        venv = make_vec_env(
            lambda: gym.make(env, **(env_kwargs or {})), n_envs=1, wrapper_class=AtariWrapper if atari else None
        )
    except (gym.error.Error, ImportError, TypeError) as error:
        raise ValueError(f"there is no environment '{env}' to be had: {error}") from error
    if atari:
        venv = VecFrameStack(venv, n_stack=min(model.observation_space.shape or (1,)))
    try:
        _check_spaces(env, venv, model)
    except ValueError:
        venv.close()
        raise
    return venv


def _check_spaces(env: str, venv: VecEnv, model: BaseAlgorithm) -> None:
    observations, actions = venv.observation_space, venv.action_space
    if isinstance(observations, spaces.Box) and is_image_space(observations) and is_image_space(model.observation_space):
        if not is_image_space_channels_first(observations):
            observations = VecTransposeImage.transpose_space(observations)
    # Bounds of observations change from version to version of an environment and mean nothing to a policy; those of
    # actions do.
    if observations.shape != model.observation_space.shape or type(observations) is not type(model.observation_space):
        raise ValueError(f"{env} has observations {observations}, the model was trained on {model.observation_space}")
    if actions != model.action_space:
        raise ValueError(f"{env} has actions {actions}, the model was trained on {model.action_space}")
