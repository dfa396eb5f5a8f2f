"""The benchmarks say what they measured: nothing half done is taken for a result."""

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def twins(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield pytest.importorskip("twins")
    for name in ("twins", "report"):
        sys.modules.pop(name, None)


def test_an_interrupted_run_is_not_finished(twins, tmp_path):
    """rl-zoo3 saves an agent when it is interrupted; only our own mark, of the same command and code, counts."""
    run = twins.Run("sac", "Pendulum-v1", "gmp", 0.9, 1, 1000, tmp_path)
    run.folder.mkdir(parents=True)
    run.zip.write_text("an agent that was interrupted")
    assert not run.is_finished()
    run.mark.write_text("another command\n")
    assert not run.is_finished()
    run.mark.write_text(run.maker())
    assert run.is_finished()


def test_recipe_defaults(twins):
    assert twins.recipe_defaults("sac", "gmp", "Pendulum-v1") == ("actor", 0.9, 12_000)


def test_bootstrap_of_equal_samples(twins):
    difference, (low, high) = twins.bootstrap(np.arange(5.0), np.arange(5.0))
    assert difference == 0.0 and low < 0 < high
    assert twins.bootstrap(np.zeros(3), np.ones(3)) == (1.0, [1.0, 1.0])
