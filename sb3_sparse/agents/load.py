"""
A trained agent from its SB3 zip, whatever its algorithm and version.

SB3's zips hold pickles, and Python's unpickling runs what they say. Here only known classes are unpickled, unless the file is
trusted.
"""

import base64
import json
import math
import pickle
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

from sb3_contrib import ARS, QRDQN, TQC, TRPO, CrossQ, MaskablePPO, RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import json_to_data
from stable_baselines3.common.utils import FloatSchedule
from torch.utils._python_dispatch import TorchDispatchMode

from sb3_sparse import offline
from sb3_sparse.agents.archive import explain, read_settings, unpacked_bytes, without_compilation
from sb3_sparse.agents.unpickle import loads
from sb3_sparse.state import restore

#: The algorithms by their names in rl-zoo3. TD3 and DDPG, whose policies are of one class and act the same, save the same
#: settings: the likelier comes first.
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
    "ars": ARS,
    "ppo_lstm": RecurrentPPO,
    "ppo_mask": MaskablePPO,
    **offline.ALGORITHMS,
}
#: A replay buffer that takes no memory, and no environment as that of HER does.
NO_BUFFER: dict[str, Any] = {
    "buffer_size": 1,
    "replay_buffer_class": None,
    "replay_buffer_kwargs": {},
    # It needs arguments of the buffer that are left out here.
    "optimize_memory_usage": False,
}
#: Replacements for attributes that only training needs: the buffer, and functions that another version of Python has pickled.
_UNUSED: dict[str, Any] = {
    **NO_BUFFER,
    "learning_rate": 0.0,
    "lr_schedule": lambda _: 0.0,
    "clip_range": lambda _: 0.0,
}
#: Attributes that a policy cannot be made without.
_NEEDED = ("policy_class", "policy_kwargs", "observation_space", "action_space")


def load_agent(path: Path, algorithm: str | None = None, *, trust: bool = False) -> BaseAlgorithm:
    """
    Load an SB3 zip on the CPU, with masks and quantizers as they were trained.

    :param path: The zip.
    :param algorithm: Name of its algorithm, such as "sac"; by default it is found by the class of the policy and the settings.
    :param trust: Whether to unpickle whatever the zip names, which may run any code: a policy of your own needs it. Otherwise
        only classes of SB3, gymnasium, numpy and torch are unpickled; what else only training needs is left out.
    :return: The model
    :raises ValueError: if the file is damaged, the algorithm is unknown or not the one in the zip, or it has to be trusted
    :raises OSError: if the file cannot be read
    """
    if algorithm is not None and algorithm not in ALGORITHMS:
        raise ValueError(f"unknown algorithm '{algorithm}': use one of {', '.join(ALGORITHMS)}")
    attributes = {} if trust else _read_attributes(path)
    found = _find_algorithms(path, _trusted_policy(path) if trust else attributes.get("policy_class"))
    if algorithm is None and not found:
        raise ValueError(f"{path} does not say its algorithm: give --algo, one of {', '.join(ALGORITHMS)}")
    if algorithm is not None and found and algorithm not in found:
        raise ValueError(f"{path} holds a policy of {' or '.join(found)}, not of {algorithm}: leave out --algo")
    cls = ALGORITHMS[algorithm or found[0]]
    file = without_compilation(path)
    try:
        with _Frugal(unpacked_bytes(path)):
            model = cls.load(file, device="cpu", custom_objects={**attributes, **_UNUSED})
        restore(model)
    except Exception as error:  # Whoever reads a damaged file may meet any of them.
        raise ValueError(f"{path} cannot be loaded as {cls.__name__} ({type(error).__name__}: {explain(error)})") from error
    return model


def restore_training(model: BaseAlgorithm, path: Path, *, trust: bool = False) -> list[str]:
    """
    Give a model the settings of a zip that :func:`load_agent` leaves out: the size of the replay buffer, its class, the
    learning rate and the like. A buffer that it has stays as it is.

    :param model: A model of the zip's algorithm.
    :param path: The zip.
    :param trust: Whether to unpickle whatever the zip names.
    :return: Names of those that cannot be read, as code of another Python: they get the algorithm's defaults
    :raises ValueError: if the file is damaged
    :raises OSError: if it cannot be read
    """
    settings, lost = read_settings(path), []
    defaults = signature(type(model).__init__).parameters
    for name in _UNUSED.keys() & settings.keys() - {"lr_schedule"}:
        value = settings[name]
        if isinstance(value, dict) and ":serialized:" in value:
            try:
                written = base64.b64decode(cast(str, value[":serialized:"]))
                value = pickle.loads(written) if trust else loads(written)
            except Exception:  # As above.
                value = defaults[name].default
                lost.append(name)
        setattr(model, name, value)
    model._setup_lr_schedule()
    if hasattr(model, "clip_range"):
        model.clip_range = FloatSchedule(model.clip_range)
    return sorted(lost)


class _Frugal(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """
    Bounds the tensors that a model is made of: its settings are a few bytes of a file, and may ask for any memory.

    :param nbytes: Bytes of the parts of its zip.
    """

    def __init__(self, nbytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Four bytes each, twice: some are made as well as initialized. A million is a size that nobody minds.
        self.left = nbytes // 2 + 1_000_000

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """
        :param func: What torch is about to compute.
        :param types: Not used.
        :param args: Its arguments; those of an operation that makes a tensor begin with the shape.
        :param kwargs: Its other arguments.
        :return: What it computes
        """
        if args and isinstance(args[0], (list, tuple)) and all(isinstance(size, int) for size in args[0]):
            self.left -= math.prod(args[0])
            if self.left < 0:
                raise ValueError("its settings ask for more weights than the file holds")
        return func(*args, **(kwargs or {}))


def _read_attributes(path: Path) -> dict[str, Any]:
    """
    The pickled attributes of a model, by name. Those that only training needs are None if they name more than known classes.
    """
    attributes = {}
    for name, value in read_settings(path).items():
        if isinstance(value, dict) and ":serialized:" in value:
            try:
                attributes[name] = loads(base64.b64decode(value[":serialized:"]))
            except (ValueError, TypeError, UnpicklingError) as error:
                if name in _NEEDED:
                    raise ValueError(
                        f"{path} cannot be loaded: {explain(error)} in the pickle of its {name}, and only classes of "
                        "Stable-Baselines3, gymnasium, numpy and torch are unpickled; --trust unpickles everything, which may "
                        "run any code"
                    ) from error
                attributes[name] = None
    return attributes


def _trusted_policy(path: Path) -> object:
    """The class of the policy in a zip, unpickled whatever it names; None if the zip does not say."""
    try:
        return json_to_data(json.dumps({"policy_class": read_settings(path)["policy_class"]}))["policy_class"]
    except Exception:  # As above.
        return None


def _find_algorithms(path: Path, policy: object) -> list[str]:
    """
    Names of the algorithms that take the policy in a zip, the likeliest first: that of whose arguments the zip lacks fewest.
    Empty if the zip does not say.
    """
    if not isinstance(policy, type):
        return []
    if issubclass(policy, RecurrentActorCriticPolicy):
        # Its class is one of PPO's as well.
        return ["ppo_lstm"]
    known = read_settings(path).keys() | signature(BaseAlgorithm.__init__).parameters.keys()
    names = [name for name, cls in ALGORITHMS.items() if issubclass(policy, tuple(cls.policy_aliases.values()))]
    return sorted(names, key=lambda name: len(signature(ALGORITHMS[name].__init__).parameters.keys() - known))
