"""The grids of ``benchmarks/grids``; ``make benchmark-smoke`` runs them."""

import re
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from sb3_sparse.engine.callback import PRECISIONS
from sb3_sparse.sweeps import Folder, read_grid
from sb3_sparse.sweeps.grid import GRIDS
from sb3_sparse.sweeps.kinds import Zoo
from sb3_sparse.sweeps.report.published import read_published
from sb3_sparse.sweeps.report.study import Study
from tests.house import ROOT

FILES = sorted(GRIDS.glob("*.yml"))


def agents(part):
    """The zips that a grid names."""
    if isinstance(part, dict):
        if isinstance(part.get("agent"), str):
            yield Path(part["agent"])
        yield from agents(list(part.values()))
    elif isinstance(part, list):
        for each in part:
            yield from agents(each)


@pytest.fixture
def grids(tmp_path, monkeypatch):
    """Files of all agents that the grids name, which the package does not have."""
    for package in ("mujoco", "ale_py", "minatar"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    for zip in {zip for file in FILES for zip in agents(yaml.safe_load(file.read_text()))}:
        zip.parent.mkdir(parents=True, exist_ok=True)
        with ZipFile(zip, "w") as file:
            file.writestr("data", "{}")
    # They hold no agent, and a training that begins with one looks into it.
    monkeypatch.setattr("sb3_sparse.sweeps.kinds.finetune._check_start", lambda *_: None)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_grid_can_run(grids, file, tmp_path):
    """All sizes are read and checked, the smallest is small, and the report finds its control and its paper."""
    sizes = yaml.safe_load(file.read_text())["sizes"]
    assert "smoke" in sizes
    for size in ("full", *sizes):
        grid = read_grid(file.stem, size)
        study = Study(grid, Folder(tmp_path))
        assert all(study.control(group) for group in study.groups), size
        assert "published" not in grid.report or read_published(grid.report["published"])
        assert size != "smoke" or len(grid.cells) <= 8


def test_every_claim_has_a_cell(grids, tmp_path):
    """The numbers of the papers stand next to ours: none is for a setting that the full grid lacks."""
    for file in FILES:
        study = Study(read_grid(file.stem), Folder(tmp_path))
        if name := study.grid.report.get("published"):
            published = read_published(name)
            claimed = [
                claim for group in study.groups if (claim := published.claim(group)) and claim["sparsity"] == group.sparsity
            ]
            returned = [value for group in study.groups if (value := published.published_return(group))]
            assert all(claim in claimed for claim in published.claims), file
            assert all(value in returned for value in published.returns), file


def test_the_guide_counts_the_cells():
    """Its table has all grids, and the number of cells of each."""
    counted = {}
    for first, numbers, each in re.findall(
        r"^\| (`.*?) \| .* \| (\d+(?:, \d+)*)( each)? \|$", (ROOT / "docs/guide/sweeps.md").read_text(), re.MULTILINE
    ):
        names, counts = re.findall(r"`(\w+)`", first), [int(number) for number in numbers.split(", ")]
        counted |= dict(zip(names, counts * len(names) if each else counts, strict=True))
    assert counted == {file.stem: len(read_grid(file.stem, check=False).cells) for file in FILES}


@pytest.mark.parametrize("precision", [*PRECISIONS, "float16"])
def test_cells_have_the_precisions_of_the_engine(precision):
    """The module of the kind names them itself: to import the engine there would rename every cell with it."""
    cell = Zoo(algo="ppo", env="CartPole-v1", recipe="gmp", engine=True, precision=precision, seed=0)
    if precision in PRECISIONS:
        cell.check()
    else:
        with pytest.raises(ValueError, match="precision is float32 or bf16"):
            cell.check()
