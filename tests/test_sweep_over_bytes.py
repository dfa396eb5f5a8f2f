"""The report of a grid that compares sizes of files: the smallest that keep a score, and the front."""

import pytest

from sb3_sparse.sweeps import Folder
from sb3_sparse.sweeps.report import write_report
from sb3_sparse.sweeps.report.over_bytes import draw_files, find_files, find_front, make_tables
from sb3_sparse.sweeps.report.published import read_published
from sb3_sparse.sweeps.report.study import Study
from tests.sweep_results import all_cells, grid_of, publish, result_of

#: A dense file that is the largest, one that keeps half of the return in the fewest bytes, and one of too many bytes for it.
BYTES = {0.0: 2000, 0.5: 900, 0.9: 400, 0.99: 100}
PUBLISHED = [(19_328, 0.95), (62_496, 1.0)]


@pytest.fixture
def folder(tmp_path):
    """Results whose files have so many bytes."""
    folder = Folder(tmp_path)
    for cell in all_cells():
        result = result_of(cell)
        result["evaluations"]["8 bits"]["nbytes"] = BYTES[cell.sparsity] + 3 * cell.seed
        folder.publish(cell.name, result)
    return folder


def texts(table):
    return [[entry.text for entry in row] for row in table.rows]


def test_the_smallest_files(folder):
    """Scores are over the dense agent as it was trained; a file that is larger and no better is not on the front."""
    study = Study(grid_of(all_cells()), folder)
    files = find_files(study, "HalfCheetah-v4")
    assert [(file.group.sparsity, file.nbytes) for file in files] == [(0.99, 103), (0.9, 403), (0.5, 903), (0.0, 2003)]
    # In 8 bits each return is one smaller.
    assert [file.score for file in files] == pytest.approx([factor - 1 / 3030 for factor in (0.5, 1.0, 1.2, 1.0)])
    assert [file.group.sparsity for file in find_front(files)] == [0.99, 0.9, 0.5]
    smallest, front = map(texts, make_tables(study))
    assert [row for row in smallest if row[0] == "HalfCheetah-v4"] == [
        ["HalfCheetah-v4", score, "403 (8 bits, 90 %)", "2,003 (8 bits, 0 %)"] for score in ("0.8", "0.9", "0.95", "0.98")
    ]
    assert ["HalfCheetah-v4", "103", "0.500", "8 bits, 99 %"] in front and len(front) == 6


def test_nothing_keeps_a_score(tmp_path):
    """An agent without a sparsity of the grid, as one before its distillation, is not a file that the grid makes."""
    task = ("CartPole-v1",)
    cells = [*all_cells(task, (0.0,), bits=()), *all_cells(task, (0.99, None))]
    folder = Folder(tmp_path)
    publish(folder, cells)
    smallest, front = map(texts, make_tables(Study(grid_of(cells), folder)))
    assert [row[2:] for row in smallest] == [["none", "none"]] * 4
    assert front == [["CartPole-v1", "1,001", "0.498", "8 bits, 99 %"]]


def test_published_networks_take_the_bytes_that_are_reported():
    """Packed weights alone, as the two papers' raw results give them."""
    published = read_published("return_over_bytes")
    assert published.published_files("Hopper-v3") == [(176, 1.0)]
    assert published.published_files("HalfCheetah-v4") == PUBLISHED
    assert published.published_files("Ant-v4") == []


def test_the_report(folder, tmp_path):
    """It has neither verdicts nor returns over sparsity, and its figure the files and the published networks."""
    pytest.importorskip("matplotlib")
    grid = grid_of(all_cells(), over="bytes", published="return_over_bytes")
    text = write_report(grid, folder, tmp_path / "report")[1].read_text()
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## Score over bytes", "## Learning curves", "## All settings", "## How it was made"]
    assert (tmp_path / "report" / "small-full-bytes.png").is_file() and "the best of about 50 cells" in text
    figure = draw_files(Study(grid, folder), read_published("return_over_bytes"))
    points = [tuple(line.get_xydata()[0]) for line in figure.axes[1].lines if len(line.get_xydata()) == 1]
    assert {nbytes for nbytes, _ in points} == {103, 403, 903, 2003, 19_328, 62_496} and set(PUBLISHED) <= set(points)


def test_a_figure_of_more_forms_than_markers(tmp_path):
    """All bits that weights may have are told apart, and nothing fails where there are more forms."""
    pytest.importorskip("matplotlib")
    for bits in ((8, 7, 6, 5, 4, 3, 2), (*range(2, 13),)):
        cells = all_cells(("CartPole-v1",), (0.0, 0.9), (0,), bits=bits)
        folder = Folder(tmp_path / str(len(bits)))
        publish(folder, cells)
        lines = draw_files(Study(grid_of(cells), folder), None).axes[0].lines
        markers = {line.get_label(): line.get_marker() for line in lines if line.get_label().endswith(" bits")}
        assert list(markers) == [f"{each} bits" for each in bits]
        assert len(set(markers.values())) == min(len(bits), 10)
