"""The search on a Ray cluster: what needs one runs in a process of its own, as Ray's processes outlive a failed test."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest

from sb3_sparse import fit
from tests.house import ROOT
from tests.test_fit import SMALL, cartpole


def run(part, folder, output):
    """What a part of ``ray_fit.py`` prints."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, str(Path(__file__).with_name("ray_fit.py")), part, str(folder)]
    # Not a pipe, whose end would be that of the last process of Ray.
    with open(output, "w") as file:
        done = subprocess.run(command, env=environment, cwd=ROOT, stdout=file, stderr=file, check=False)
    assert done.returncode == 0, output.read_text()
    return output.read_text()


@pytest.mark.slow
def test_actors(tmp_path):
    """Lost ones, warnings, errors and Ctrl-C."""
    pytest.importorskip("ray")
    (tmp_path / "folder").mkdir()
    run("actors", tmp_path / "folder", tmp_path / "output.txt")


@pytest.mark.slow
def test_a_lost_node(tmp_path):
    """Two machines with one core each, of which one is lost while both train: the search comes to what this process does."""
    pytest.importorskip("ray")
    found = json.loads(run("lost", tmp_path / "search", tmp_path / "output.txt").splitlines()[-1])
    front = fit(cartpole(), "CartPole-v1", keep=0.9, **SMALL)
    assert found == [[str(point), point.bytes, list(point.returns)] for point in front.evaluated]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"backend": "dask"}, "backend='dask' must be one of loky, ray"),
        ({"checkpoint": None}, "a folder that all nodes share: give checkpoint"),
        ({"us": 1.0}, "microseconds are those of this machine"),
        ({"env": gym.make("CartPole-v1")}, "cannot take this environment over: give its name"),
        ({"jobs": 0}, "jobs=0 must be a whole number of at least 1"),
    ],
)
def test_bad_input(changes, sentence, tmp_path):
    """Before Ray is asked for anything."""
    arguments = {"env": "CartPole-v1", "keep": 0.9, "backend": "ray", "checkpoint": tmp_path / "search", **SMALL, **changes}
    with pytest.raises(ValueError, match=sentence):
        fit(cartpole(), arguments.pop("env"), **arguments)
    assert not (tmp_path / "search").exists()


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray(tmp_path):
    with pytest.raises(ValueError, match=r"the backend ray needs ray: pip install sb3_sparse\[sweep\]"):
        fit(cartpole(), "CartPole-v1", keep=0.9, backend="ray", checkpoint=tmp_path, **SMALL | {"jobs": None})
