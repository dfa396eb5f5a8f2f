"""What of a model and of this machine is compared, and on which observations."""

import base64
import hashlib
import os
import platform
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm

Arrays = dict[str, np.ndarray]


def observations(space: spaces.Space[Any], count: int = 32) -> np.ndarray:
    """
    :param space: A Box.
    :param count: How many.
    :return: Observations that are the same wherever this is called
    """
    rng = np.random.default_rng(5)
    if space.dtype == np.uint8:
        return rng.integers(256, size=(count, *space.shape), dtype=np.uint8)
    return rng.normal(size=(count, *space.shape)).astype(np.float32)


def facts(model: BaseAlgorithm) -> dict[str, Any]:
    """
    :param model: A model that a callback of this package has trained.
    :return: All of it that is a whole number: clocks, history and bits as they are, everything masked as its hash
    """
    state = model.sparsity_state
    packed = {kind: {name: _digest(_unpack(text)) for name, text in state[kind].items()} for kind in ("explored", "pending")}
    return {
        "masks": {
            name: _digest(np.packbits(module.mask.numpy()).tobytes())
            for name, module in model.policy.named_modules()
            if isinstance(getattr(module, "mask", None), th.Tensor)
        },
        "saved masks": _digest(b"".join(_unpack(state["masks"][name]) for name in sorted(state["masks"]))),
        **packed,
        "bits": state["bits"],
        "topology": state["topology"],
        "clocks": sorted([key.split("(")[0], _integers(clock)] for key, clock in state["callbacks"].items()),
        "num_timesteps": model.num_timesteps,
    }


def _integers(clock: dict[str, Any]) -> dict[str, int]:
    return {key: value for key, value in clock.items() if type(value) is int}


def _unpack(text: str) -> bytes:
    return zlib.decompress(base64.b85decode(text))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def numbers(model: BaseAlgorithm) -> Arrays:
    """
    :param model: Any model.
    :return: Its parameters and buffers, and its actions on fixed observations
    """
    arrays = {f"policy/{key}": value.numpy() for key, value in model.policy.state_dict().items() if value.dtype != th.bool}
    return {**arrays, "actions": actions(model)}


def actions(model: BaseAlgorithm) -> np.ndarray:
    """
    :param model: Any model.
    :return: Its actions on fixed observations
    """
    return model.predict(observations(model.observation_space), deterministic=True)[0]


def machine() -> str:
    """
    :return: What the last bits of a float depend on: versions, processor, compiler, and the cores that BLAS works on
    """
    cpuinfo = Path("/proc/cpuinfo")
    names = ("cpu family", "model", "model name", "stepping")
    rows = dict(
        tuple(map(str.strip, line.split(":", 1)))
        for line in (cpuinfo.read_text().split("\n\n")[0].splitlines() if cpuinfo.exists() else ())
    )
    processor = " ".join(rows.get(name, "") for name in names) or platform.processor()
    gcc = shutil.which("gcc")
    compiler = subprocess.run([gcc, "-dumpfullversion"], capture_output=True, text=True).stdout.strip() if gcc else "missing"
    torch = f"torch {th.__version__} {th.backends.cpu.get_cpu_capability()}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor}, {torch}, numpy {np.__version__}, gcc {compiler}, {cores} cores"
