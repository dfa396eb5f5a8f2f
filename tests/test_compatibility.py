"""
What earlier versions have saved still works: checkpoints resume to the same end, exported files act the same, bit for bit on
the machine that has made them. tests/data/make.py says how they were made.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.data.exports import EXPORTS, HEADER, export, exported_actions, header_actions, normalized
from tests.data.facts import actions, facts, machine, numbers
from tests.data.runs import RUNS, restored, resume

DATA = Path(__file__).parent / "data"
VERSIONS = ("efa5a1a",)
pytestmark = pytest.mark.parametrize("version", VERSIONS)


@cache
def expected(version):
    return json.loads((DATA / version / "expected.json").read_text())


def arrays(version, name):
    with np.load(DATA / version / f"{name}.npz") as stored:
        return dict(stored)


def expect_same(version, ours, theirs, rtol, atol):
    """The same arrays: to the bit on the machine that has made theirs, else to float rounding."""
    assert ours.keys() == theirs.keys()
    if machine() == expected(version)["machine"]:
        rtol = atol = 0.0
    for key, value in theirs.items():
        assert ours[key].dtype == value.dtype, key
        np.testing.assert_allclose(ours[key], value, rtol, atol, err_msg=key)


@pytest.mark.parametrize("name", RUNS)
def test_a_checkpoint_is_what_was_saved(version, name):
    """Loaded and restored, it has the same masks and bits, and acts the same."""
    model = restored(RUNS[name], DATA / version / name)
    assert facts(model) == expected(version)["saved"][name]
    stored = {"actions": arrays(version, name)["saved_actions"]}
    expect_same(version, {"actions": actions(model)}, stored, 1e-5, 1e-6)


@pytest.mark.parametrize("name", RUNS)
def test_a_checkpoint_resumes(version, name):
    """Resumed, it comes to the end that it came to then: clocks, masks, history, and all weights."""
    model = resume(RUNS[name], DATA / version / name)
    assert facts(model) == expected(version)["resumed"][name]
    stored = arrays(version, name)
    del stored["saved_actions"]
    # Rounding has grown for dozens of updates.
    expect_same(version, numbers(model), stored, 1e-4, 1e-5)


def space_of(name):
    source = EXPORTS[name].source
    if isinstance(source, str):
        return restored(RUNS[source], DATA / VERSIONS[0] / source).observation_space
    return source().observation_space


@pytest.mark.parametrize("name", EXPORTS)
def test_an_exported_file_acts_as_it_did(version, name):
    """In every backend that both machines have."""
    stored, ours = arrays(version, name), exported_actions(DATA / version / f"{name}.sb3s", space_of(name))
    assert "numpy" in ours
    common = ours.keys() & stored.keys()
    expect_same(version, {key: ours[key] for key in common}, {key: stored[key] for key in common}, 1e-5, 1e-5)


def test_a_header_acts_as_it_did(version):
    """Its integer arithmetic to the bit, on any machine."""
    stored, ours = arrays(version, HEADER), header_actions(DATA / version / f"{HEADER}.h", normalized().observation_space)
    if not ours:
        pytest.skip("there is no C compiler (gcc)")
    assert ours.keys() == {"C, float", "C, integer"}
    expect_same(version, ours, {key: stored[key] for key in ours}, 1e-5, 1e-5)


@pytest.mark.parametrize("name", EXPORTS)
def test_a_checkpoint_is_exported_as_it_was(version, name, tmp_path):
    """Today's export of yesterday's checkpoint: the same bytes, and C code that computes the same."""
    if machine() != expected(version)["machine"]:
        pytest.skip("the last bits of a grid depend on the machine")
    expect_same(version, export(name, DATA / version, tmp_path), arrays(version, name), 0.0, 0.0)
    assert (tmp_path / f"{name}.sb3s").read_bytes() == (DATA / version / f"{name}.sb3s").read_bytes()
