"""How results are stored, and what each says of where it was measured."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch as th

from sb3_sparse.sweeps.origin import describe_processor

#: A result as JSON has it.
Result = dict[str, Any]
PACKAGES = ("sb3_sparse", "stable_baselines3", "sb3_contrib", "torch", "gymnasium", "numpy")


def describe_versions() -> dict[str, str]:
    """
    :return: Versions of Python and of the packages that matter
    """
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def describe_machine() -> dict[str, str | int | None]:
    """
    :return: Processor, number of cores, threads that torch uses and GPU
    """
    gpu = th.cuda.get_device_name() if th.cuda.is_available() else None
    return {"processor": describe_processor(), "cores": os.cpu_count(), "torch_threads": th.get_num_threads(), "gpu": gpu}


def store(path: Path, result: Result) -> None:
    """
    Write a result as JSON, with versions and machine.

    :param path: Where to write it.
    :param result: The result; what it says itself of versions and machine is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    described = {"versions": describe_versions(), "machine": describe_machine()} | result
    path.write_text(json.dumps({**result, **described}, indent=2) + "\n")
