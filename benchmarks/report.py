"""What every stored result says of where it was measured."""

import os
import platform
from importlib.metadata import version

import torch as th

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
    return {"processor": _processor(), "cores": os.cpu_count(), "torch_threads": th.get_num_threads(), "gpu": gpu}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor()} ({platform.machine()})"
