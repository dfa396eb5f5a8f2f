"""
A trained agent from its SB3 zip, whatever its algorithm.

SB3's zips hold pickles, and unpickling runs what they say: load only files that you trust.
"""

import json
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from sb3_contrib import QRDQN, TQC, TRPO, CrossQ
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import json_to_data

from sb3_sparse import offline
from sb3_sparse.state import restore

#: The algorithms by their names in rl-zoo3. Of those whose policies are of one class and act the same (TD3 and DDPG; PPO, A2C
#: and TRPO), the likeliest comes first.
ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    "sac": SAC,
    "td3": TD3,
    "ddpg": DDPG,
    "dqn": DQN,
    "ppo": PPO,
    "a2c": A2C,
    "trpo": TRPO,
    "tqc": TQC,
    "crossq": CrossQ,
    "qrdqn": QRDQN,
    **offline.ALGORITHMS,
}
#: Replacements for attributes that only training needs: a replay buffer, which takes memory, or an environment as that of HER
#: does, and functions that another version of Python has pickled.
_UNUSED: dict[str, Any] = {
    "buffer_size": 1,
    "replay_buffer_class": None,
    "replay_buffer_kwargs": {},
    "learning_rate": 0.0,
    "lr_schedule": lambda _: 0.0,
    "clip_range": lambda _: 0.0,
}
#: Errors of a damaged pickle or zip.
BROKEN = (ImportError, AttributeError, KeyError, TypeError, RuntimeError, EOFError, UnpicklingError, json.JSONDecodeError)


def load_agent(path: Path, algorithm: str | None = None) -> BaseAlgorithm:
    """
    Load an SB3 zip on the CPU, with masks and quantizers as they were trained.

    :param path: The zip.
    :param algorithm: Name of its algorithm, such as "sac"; by default it is found by the class of the policy.
    :return: The model
    :raises ValueError: if the file is damaged, or the algorithm is unknown or not the one in the zip
    :raises OSError: if the file cannot be read
    """
    if algorithm is not None and algorithm not in ALGORITHMS:
        raise ValueError(f"unknown algorithm '{algorithm}': use one of {', '.join(ALGORITHMS)}")
    found = _find_algorithms(path)
    if algorithm is None and not found:
        raise ValueError(f"{path} does not say its algorithm: give --algo, one of {', '.join(ALGORITHMS)}")
    if algorithm is not None and found and algorithm not in found:
        raise ValueError(f"{path} holds a policy of {' or '.join(found)}, not of {algorithm}: leave out --algo")
    cls = ALGORITHMS[algorithm or found[0]]
    try:
        model = cls.load(path, device="cpu", custom_objects=dict(_UNUSED))
    except BROKEN as error:
        raise ValueError(f"{path} cannot be loaded as {cls.__name__} ({type(error).__name__}: {error})") from error
    restore(model)
    return model


def _find_algorithms(path: Path) -> list[str]:
    """Names of the algorithms that take the policy in a zip, the likeliest first; empty if the zip does not say."""
    try:
        with zipfile.ZipFile(path) as archive:
            data = json.loads(archive.read("data"))
        policy = json_to_data(json.dumps({"policy_class": data["policy_class"]}))["policy_class"]
    except (zipfile.BadZipFile, *BROKEN):
        return []
    if not isinstance(policy, type):
        return []
    if issubclass(policy, RecurrentActorCriticPolicy | MaskableActorCriticPolicy):
        raise ValueError(f"{path} holds a {policy.__name__}: policies with an LSTM or with masked actions cannot be exported")
    return [name for name, cls in ALGORITHMS.items() if issubclass(policy, tuple(cls.policy_aliases.values()))]
