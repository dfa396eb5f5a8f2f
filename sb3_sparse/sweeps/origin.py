"""Where a result comes from: versions, commit and machine."""

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sb3_sparse.version import __version__

PACKAGES = ("stable_baselines3", "sb3_contrib", "rl_zoo3", "torch", "gymnasium", "mujoco", "numpy")


def describe_origin() -> dict[str, Any]:
    """
    :return: ``versions``, ``commit``, ``machine`` and ``time`` of a result
    """
    # That of the code which runs: a checkout may be another one than what is installed.
    versions = {"python": platform.python_version(), "sb3_sparse": __version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    machine = {"name": platform.node(), "processor": describe_processor(), "cores": os.cpu_count()}
    time = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"versions": versions, "commit": _commit(), "machine": machine, "time": time}


def _commit() -> str | None:
    """That of the checkout that the package is in, with "+" if its files were changed; None if it is installed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    # Git would write its index anew here; killed meanwhile, it would leave a lock that stops every later commit.
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


def describe_processor() -> str:
    """
    :return: Its name, and the architecture
    """
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor()} ({platform.machine()})"
