"""The grids of ``benchmarks/grids``; ``make benchmark-smoke`` runs them."""

import pytest
import yaml

from sb3_sparse.sweeps import Folder, read_grid
from sb3_sparse.sweeps.grid import GRIDS
from sb3_sparse.sweeps.report.published import read_published
from sb3_sparse.sweeps.report.study import Study


def test_every_grid_can_run(tmp_path):
    """All sizes are read and checked, the smallest is small, and the report finds its control and its paper."""
    pytest.importorskip("mujoco")
    for file in sorted(GRIDS.glob("*.yml")):
        sizes = yaml.safe_load(file.read_text())["sizes"]
        assert "smoke" in sizes, file
        for size in ("full", *sizes):
            grid = read_grid(file.stem, size)
            study = Study(grid, Folder(tmp_path))
            assert all(study.control(group) for group in study.groups), (file, size)
            assert "published" not in grid.report or read_published(grid.report["published"])
            assert size != "smoke" or len(grid.cells) <= 8, file
