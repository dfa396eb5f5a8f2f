"""Results that a repository keeps: one file, and a report of it."""

import json
import socket
from pathlib import Path

import pytest

from sb3_sparse.cli import main
from sb3_sparse.sweeps import Folder, Stored, read_grid
from sb3_sparse.sweeps.importing import import_runs
from sb3_sparse.sweeps.kinds import Distill
from sb3_sparse.sweeps.origin import describe_origin
from sb3_sparse.sweeps.report import make_report
from sb3_sparse.sweeps.report.markdown import render_markdown
from sb3_sparse.sweeps.stored import store_results
from tests.sweep_results import all_cells, grid_of, publish


@pytest.fixture
def swept(tmp_path):
    """A grid, and a folder that lacks its last cell."""
    cells = all_cells(("CartPole-v1",), (0.0, 0.9))
    folder = Folder(tmp_path / "sweep")
    publish(folder, cells[:-1], **describe_origin(), imported=str(tmp_path))
    return grid_of(cells), folder


def lines_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_stored_file(swept, tmp_path):
    """A line for each cell, short, and without anything of this machine."""
    grid, folder = swept
    file, number = store_results(grid, folder, tmp_path)
    lines = lines_of(file)
    assert file.name == "small-full.jsonl" and number == len(lines) == 5
    assert [line["settings"] for line in lines] == [each.settings for each in grid.cells[:-1]]
    text = file.read_text()
    assert socket.gethostname() not in text and str(tmp_path) not in text and grid.cells[0].name not in text
    last = lines[-1]
    assert last["curve"] == {"steps": [500, 1000], "returns": [[0.5], [404.0]]}
    assert last["evaluations"]["8 bits"] == {"returns": [362.7, 443.3], "lengths": [100, 100], "nbytes": 1001}
    assert last["cpu_seconds"] == 1.0 and last["origin"]["versions"] == describe_origin()["versions"]


def test_the_report_of_stored_results(swept, tmp_path):
    """That of the folder, with what the cells have taken."""
    pytest.importorskip("matplotlib")
    grid, folder = swept
    store_results(grid, folder, tmp_path)
    stored = render_markdown(make_report(grid, Stored(grid, tmp_path)))
    assert (
        "5 are finished and 1 is missing. The finished ones have 5,000 steps or updates. They took 0.001 CPU hours." in stored
    )
    assert "## Missing cells\n\n| setting | seeds |\n| --- | --- |\n" in stored
    assert stored.replace(" They took 0.001 CPU hours.", "") == render_markdown(make_report(grid, folder))


def test_stored_results_of_several_folders(swept, tmp_path):
    """What another folder has is added, and what nobody has again stays."""
    grid, folder = swept
    other = Folder(tmp_path / "other")
    publish(other, grid.cells[-1:])
    assert [store_results(grid, each, tmp_path)[1] for each in (folder, other, Folder(tmp_path / "empty"))] == [5, 6, 6]
    assert len({json.dumps(line["settings"]) for line in lines_of(tmp_path / "small-full.jsonl")}) == 6


def test_results_of_another_recipe(swept, tmp_path, monkeypatch):
    """They are reported as such, and give way to those of today's recipe alone."""
    pytest.importorskip("matplotlib")
    grid, folder = swept
    file, _ = store_results(grid, folder, tmp_path)
    file.write_text(file.read_text().replace(grid.cells[0].content_hash, "0" * 16))
    source = Stored(grid, tmp_path)
    assert source.changed == {each.name for each in grid.cells[:-1]}
    assert "The recipe or agent of 5 of them is another one today" in make_report(grid, source).summary
    other = Folder(tmp_path / "other")
    publish(other, grid.cells[-1:])
    text = file.read_text()
    with pytest.raises(ValueError, match=f"or are of another recipe or agent: 5, the first of {grid.cells[0]}. Rename"):
        store_results(grid, other, tmp_path)
    assert file.read_text() == text
    publish(other, grid.cells[:-1])
    assert store_results(grid, other, tmp_path)[1] == 6


def test_results_that_are_not_of_the_grid_are_not_lost(swept, tmp_path, monkeypatch, capsys):
    """A grid of fewer seeds does not take the place of the whole one, nor another grid whose file has the same name."""
    grid, folder = swept
    file, _ = store_results(grid, folder, tmp_path)
    text = file.read_text()
    with pytest.raises(ValueError, match=f"not of this grid or .*: 3, the first of {grid.cells[0]}. Rename"):
        store_results(grid_of(grid.cells[3:]), folder, tmp_path)
    assert file.read_text() == text
    folder.take_name("smoke-smoke", "Another grid")
    with pytest.raises(SystemExit):
        main(["benchmark", "store", "smoke", "--size", "smoke", "--folder", str(folder.root), "--out", str(tmp_path)])
    assert "of another grid, 'Another grid'" in capsys.readouterr().err


def test_a_folder_without_results_is_not_imported(swept, tmp_path):
    grid, _ = swept
    (tmp_path / "notes").mkdir()
    for source, message in (
        ("notes", "notes holds neither results of a sweep nor runs of rl-zoo3"),
        ("n", "there is no folder .*/n"),
    ):
        with pytest.raises(ValueError, match=message):
            import_runs(grid, Folder(tmp_path / "new"), tmp_path / source)


def test_a_stored_file_that_does_not_fit(swept, tmp_path):
    grid, folder = swept
    with pytest.raises(ValueError, match=r"there is no .*small-full\.jsonl: sb3-sparse benchmark store"):
        Stored(grid, tmp_path)
    with pytest.raises(ValueError, match=r"no cell of small .* is finished"):
        store_results(grid, Folder(tmp_path / "empty"), tmp_path)
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
        store_results(grid, folder, tmp_path / "nowhere")
    file, _ = store_results(grid, folder, tmp_path)
    with pytest.raises(ValueError, match="a cell that is not in the grid: delete its line"):
        Stored(grid_of(grid.cells[1:]), tmp_path)
    whole = file.read_text()
    # As a merge of two machines' files may leave it.
    file.write_text(whole + whole.splitlines()[0] + "\n")
    with pytest.raises(ValueError, match="has two results of a cell: delete a line"):
        Stored(grid, tmp_path)
    file.write_text(whole + '{"kind": "zoo"}\n')
    with pytest.raises(ValueError, match=r"line 6 of .*small-full\.jsonl is not the result of a cell"):
        Stored(grid, tmp_path)


def test_a_path_of_this_machine_is_not_stored(tmp_path):
    agent = tmp_path / "agent.zip"
    agent.write_bytes(b"")
    each = Distill(agent=str(agent), env="CartPole-v1", seed=0)
    folder = Folder(tmp_path / "sweep")
    publish(folder, all_cells(("CartPole-v1",), (0.0,), (0,)))
    folder.publish(each.name, {**folder.read(all_cells(("CartPole-v1",), (0.0,), (0,))[0].name), "settings": each.settings})
    with pytest.raises(ValueError, match=r"agent is .*agent\.zip, a path of this machine"):
        store_results(grid_of([each]), folder, tmp_path)


def test_agents_need_not_be_there(tmp_path, monkeypatch):
    """A report of stored results is made where the agents are not."""
    monkeypatch.chdir(tmp_path)
    Path("agent.zip").write_bytes(b"")
    each = Distill(agent="agent.zip", env="CartPole-v1", seed=0)
    folder = Folder(tmp_path / "sweep")
    (other,) = all_cells(("CartPole-v1",), (0.0,), (0,))
    publish(folder, [other])
    result = folder.read(other.name)
    folder.publish(each.name, {**result, "kind": "distill", "settings": each.settings, "content": each.content_hash})
    store_results(grid_of([each]), folder, tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    from sb3_sparse.sweeps.kinds.agent_files import digest_agent

    digest_agent.cache_clear()
    same = Distill(agent="agent.zip", env="CartPole-v1", seed=0)
    source = Stored(grid_of([same]), tmp_path)
    assert source.read(same.name)["evaluations"]["agent"]["returns"] == [360.0, 440.0] and not source.changed
    with pytest.raises(ValueError, match=r"there is no agent agent\.zip"):
        same.check()


def test_the_commands(tmp_path, capsys):
    """A file is written, reported, and taken into another folder."""
    pytest.importorskip("matplotlib")
    grid, folder = read_grid("smoke", "smoke"), Folder(tmp_path / "sweep")
    publish(folder, grid.cells[:3], versions=describe_origin()["versions"])
    stored = tmp_path / "results"
    stored.mkdir()
    options = ["smoke", "--size", "smoke"]
    main(["benchmark", "store", *options, "--folder", str(folder.root), "--out", str(stored)])
    assert "3 of 4 cells are stored" in capsys.readouterr().out
    main(["benchmark", "report", *options, "--stored", str(stored), "--out", str(tmp_path / "report")])
    text = (tmp_path / "report" / "smoke-smoke.md").read_text()
    assert "of which 3 are finished and 1 is missing" in text
    main(["benchmark", "import", *options, str(stored), "--folder", str(tmp_path / "new")])
    assert "3 imported, 3 of 4 cells have a result" in capsys.readouterr().out
    assert Folder(tmp_path / "new").read(grid.cells[0].name)["evaluations"]["agent"]["returns"] == [360.0, 440.0]
