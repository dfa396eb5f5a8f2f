"""Sweeps: a grid is read strictly, and its cells are finished whatever dies on the way."""

import os
import platform
import random
import resource
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from threading import Thread
from unittest.mock import Mock

import pytest
import yaml

from sb3_sparse.cli import main
from sb3_sparse.sweeps import Folder, origin, read_grid
from sb3_sparse.sweeps.prices import Prices, affordable
from sb3_sparse.sweeps.rows import write_rows
from sb3_sparse.version import __version__
from tests.counting import Counting
from tests.house import ROOT

pytest.importorskip("joblib")

COUNTING = {
    "title": "Sums",
    "kind": "tests.counting.Counting",
    "fixed": {"numbers": 4},
    "axes": {"seed": [0, 1, 2], "scale": [1.0, 2.0]},
}
#: What a cell has the same however often it died.
SAME = ("name", "kind", "settings", "evaluations", "curve", "networks", "steps")


def write_grid(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "grid.yml"
    file.write_text(yaml.safe_dump({**COUNTING, **changes}))
    return file


def start(grid, folder, *options, limit=None):
    """The command in a process group of its own."""
    command = [sys.executable, "-c", "from sb3_sparse.cli import main; main()", "benchmark", "run", str(grid)]
    limits = None if limit is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return subprocess.Popen(
        [*command, "--folder", str(folder), *options],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=limits,
    )


def results_of(grid, folder):
    """By name; None for a cell that is missing."""
    results = {cell.name: Folder(folder).read(cell.name) for cell in read_grid(str(grid)).cells}
    return {name: result and {key: result[key] for key in SAME} for name, result in results.items()}


def audit(folder):
    file = folder / "audit.txt"
    return file.read_text().splitlines() if file.exists() else []


def wait_for(condition, process=None, seconds=60):
    """Until the condition holds, the process has ended, or it takes too long."""
    deadline = time.monotonic() + seconds
    while not condition() and (process is None or process.poll() is None) and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The results of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    grid = write_grid(folder)
    out, err = (process := start(grid, folder / "sweep", "--jobs", "2")).communicate()
    assert process.returncode == 0, err
    assert audit(folder / "sweep").count("begin") == 0 and len(audit(folder / "sweep")) == 12
    assert "grid-full.csv" in out
    return results_of(grid, folder / "sweep")


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_killed_runner(kills, undisturbed, tmp_path):
    """``kill -9`` at random moments: the results are those of an undisturbed run, and none that was there was made again."""
    grid, sweep = write_grid(tmp_path, fixed={"numbers": 4, "pause": 0.02}), tmp_path / "sweep"
    draw, begun = random.Random(kills), {}
    for _ in range(kills):
        process = start(grid, sweep, "--jobs", "2")
        moment = len(audit(sweep)) + draw.randint(1, 3)
        wait_for(lambda moment=moment: len(audit(sweep)) >= moment, process)
        time.sleep(draw.random() / 10)
        process.kill()
        process.communicate()
        wait_for(lambda: not list(running_cells(sweep)))
        for name in Folder(sweep).finished():
            begun.setdefault(name, audit(sweep).count(f"begin {name}"))
    process = start(grid, sweep, "--jobs", "2")
    _, err = process.communicate()
    assert process.returncode == 0, err
    found = results_of(grid, sweep)
    values = [[result["evaluations"] for result in results.values()] for results in (found, undisturbed)]
    assert values[0] == values[1]
    # One that was killed between its last line and its result is not finished.
    assert {name: audit(sweep).count(f"begin {name}") for name in begun} == begun
    assert not list(sweep.rglob("*.part"))


def test_a_killed_worker(tmp_path):
    """A worker is the parent of a cell's process; when one is lost, new ones go on."""
    grid, sweep = write_grid(tmp_path, fixed={"numbers": 10, "pause": 0.05}), tmp_path / "sweep"
    process = start(grid, sweep, "--jobs", "2")
    wait_for(lambda: len(audit(sweep)) >= 3, process)
    workers = {parent for parent in map(parent_of, running_cells(sweep)) if parent not in (process.pid, None)}
    assert workers
    os.kill(min(workers), signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert all(results_of(grid, sweep).values())


def running_cells(sweep):
    """Processes whose command line names the folder of a sweep, and which are those of cells."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"sb3_sparse.sweeps.process" in command and str(sweep).encode() in command:
            yield int(path.name)


def parent_of(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def test_nothing_outlives_a_killed_runner(tmp_path):
    grid, sweep = write_grid(tmp_path, fixed={"numbers": 1000, "pause": 0.05}), tmp_path / "sweep"
    process = start(grid, sweep, "--jobs", "2")
    wait_for(lambda: len(audit(sweep)) >= 2, process)
    process.kill()
    process.communicate()
    wait_for(lambda: not list(running_cells(sweep)))
    assert not list(running_cells(sweep))


def test_an_idle_worker_ends_with_its_runner():
    """One that waits for work holds the runner's output, and whoever reads that would wait with it."""
    worker = "import os, time; from sb3_sparse.parent import end_with; end_with(os.getppid())"
    worker += "; print(1, flush=True); time.sleep(60)"
    runner = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {worker!r}]).wait()"
    process = subprocess.Popen([sys.executable, "-c", runner], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None and process.stdout.read(1) == b"1"
    process.kill()
    process.communicate(timeout=20)


def test_a_dying_cell(tmp_path, capfd):
    """One that always dies is reported, with its log, and the others are finished; one that dies twice is finished."""
    axes = {"case": [{"deaths": 9, "seed": 0}, {"deaths": 2, "seed": 1}, {"deaths": 0, "seed": 2}]}
    grid, sweep = write_grid(tmp_path, axes=axes), tmp_path / "sweep"
    _, err = (process := start(grid, sweep, "--jobs", "1")).communicate()
    assert process.returncode == 1
    assert "failed: deaths=9 seed=0: its process died 3 times, the last time killed by signal 9" in err.replace(
        "numbers=4 ", ""
    )
    assert "about to die" in err
    found = list(results_of(grid, sweep).values())
    assert found[0] is None
    assert [result["settings"]["seed"] for result in found[1:]] == [1, 2]
    assert sum(line.startswith("begin") for line in audit(sweep)) == 3 + 3 + 1


def test_no_room(tmp_path):
    """One sentence, and nothing half-written; then the same command goes on."""
    grid, sweep = write_grid(tmp_path), tmp_path / "sweep"
    _, err = (process := start(grid, sweep, "--jobs", "2", limit=300)).communicate()
    assert process.returncode == 1
    (sentence,) = [line for line in err.splitlines() if "no room" in line]
    assert sentence.startswith(f"there is no room left in {sweep}")
    assert "Traceback" not in err
    assert not list((sweep / "results").glob("*"))
    _, err = (process := start(grid, sweep, "--jobs", "2")).communicate()
    assert process.returncode == 0, err
    assert all(results_of(grid, sweep).values())


def test_two_runners_share_a_folder(undisturbed, tmp_path):
    grid, sweep = write_grid(tmp_path, fixed={"numbers": 4, "pause": 0.1}), tmp_path / "sweep"
    both = [start(grid, sweep, "--jobs", "1") for _ in range(2)]
    for process in both:
        _, err = process.communicate()
        assert process.returncode == 0, err
    assert sorted(line.split()[0] for line in audit(sweep)) == ["begin"] * 6 + ["end"] * 6
    assert all(results_of(grid, sweep).values())


def test_shards_are_the_whole(undisturbed, tmp_path):
    grid, sweep = write_grid(tmp_path), tmp_path / "sweep"
    for part in ("1/2", "2/2"):
        main(["benchmark", "run", str(grid), "--folder", str(sweep), "--jobs", "1", "--shard", part])
        assert sum(result is not None for result in results_of(grid, sweep).values()) == 3 * int(part[0])
    assert results_of(grid, sweep) == undisturbed
    rows = (sweep / "grid-full.csv").read_text().splitlines()
    assert rows[0].startswith("name,seed,scale,form,phase,steps,episode,return,length,")
    assert len(rows) == 7


def test_a_budget(tmp_path, capsys):
    """The first cells that fit: at the usual speed one takes three seconds."""
    grid, sweep = write_grid(tmp_path), tmp_path / "sweep"
    main(["benchmark", "run", str(grid), "--folder", str(sweep), "--jobs", "1", "--budget", "4s"])
    assert "5 cells did not fit into the budget" in capsys.readouterr().err
    assert [result is not None for result in results_of(grid, sweep).values()] == [True] + [False] * 5


def test_results_of_another_version(undisturbed, tmp_path, monkeypatch, capsys):
    """A new version has other names; what has the same settings can be taken over."""
    grid, sweep = write_grid(tmp_path, axes={"seed": [0]}), tmp_path / "sweep"
    main(["benchmark", "run", str(grid), "--folder", str(sweep), "--jobs", "1"])
    monkeypatch.setattr("sb3_sparse.sweeps.kinds.cell.__version__", "9.9")
    assert list(results_of(grid, sweep).values()) == [None]
    write_grid(tmp_path, axes={"seed": [0, 1]})
    main(["benchmark", "run", str(grid), "--folder", str(sweep), "--dry-run"])
    assert "results of another version that are here: 1. If nothing" in capsys.readouterr().err
    main(["benchmark", "import", str(grid), str(sweep), "--folder", str(tmp_path / "new")])
    assert "1 imported, 1 of 2 cells have a result" in capsys.readouterr().out
    first, second = results_of(grid, tmp_path / "new").values()
    assert (first["evaluations"], second) == (next(iter(undisturbed.values()))["evaluations"], None)
    # The same settings with another recipe or agent are another cell.
    monkeypatch.setattr(Counting, "content", lambda self: "another recipe")
    main(["benchmark", "import", str(grid), str(sweep), "--folder", str(tmp_path / "other")])
    assert "0 imported, 0 of 2 cells have a result" in capsys.readouterr().out


def test_runners_write_the_table_one_after_the_other(tmp_path):
    """Two that end with the same cell: the second reads after the first has written."""
    grid, folder = read_grid(str(write_grid(tmp_path))), Folder(tmp_path / "sweep")
    with folder.alone():
        other = Thread(target=write_rows, args=(grid, folder))
        other.start()
        other.join(0.3)
        assert other.is_alive() and not list(folder.root.glob("*.csv*"))
    other.join(10)
    assert not other.is_alive() and (folder.root / "grid-full.csv").is_file()


def test_another_grid_with_the_same_file_name(tmp_path, capsys):
    """It does not get the table of the first."""
    grid, sweep = write_grid(tmp_path / "a", axes={"seed": [0]}), tmp_path / "sweep"
    main(["benchmark", "run", str(grid), "--folder", str(sweep), "--jobs", "1"])
    command = ["benchmark", "import", str(grid), str(sweep), "--folder", str(sweep)]
    other = write_grid(tmp_path / "b", title="Other sums", axes={"seed": [0]})
    with pytest.raises(SystemExit):
        main([*command[:2], str(other), *command[3:]])
    assert "has the table grid-full.csv of another grid, 'Sums'" in capsys.readouterr().err
    main(command)


def test_looking_at_a_checkout_writes_nothing_there(tmp_path):
    """With a file that looks changed and is not, ``git status`` writes the index anew by default."""
    file = tmp_path / "file"
    file.write_text("same")
    for arguments in (["init", "-q"], ["add", "file"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    os.utime(file, (0, 0))
    before = (tmp_path / ".git/index").read_bytes()
    assert origin._git(tmp_path, "status", "--porcelain") == "A  file"
    assert (tmp_path / ".git/index").read_bytes() == before
    subprocess.run(["git", "-C", str(tmp_path), "status"], check=True, capture_output=True)
    assert (tmp_path / ".git/index").read_bytes() != before


def test_the_version_is_that_of_the_code(monkeypatch):
    """Also where the package is not installed, or another checkout is."""
    monkeypatch.setattr("sb3_sparse.sweeps.origin.version", Mock(side_effect=PackageNotFoundError))
    assert origin.describe_origin()["versions"] == {"python": platform.python_version(), "sb3_sparse": __version__}


@pytest.mark.slow
def test_ray_with_a_lost_node(tmp_path):
    """Two machines with one core each, of which one is lost in the middle."""
    pytest.importorskip("ray")
    script = Path(__file__).with_name("ray_cluster.py")
    grid = write_grid(tmp_path, fixed={"numbers": 10, "pause": 0.1}, axes={"seed": list(range(12))})
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, str(script), str(grid), str(tmp_path / "sweep")]
    # Not a pipe, whose end would be that of the last process of Ray.
    with open(tmp_path / "output.txt", "w") as output:
        done = subprocess.run(command, env=environment, cwd=ROOT, stdout=output, stderr=output, check=False)
    assert done.returncode == 0, (tmp_path / "output.txt").read_text()
    main(["benchmark", "run", str(grid), "--folder", str(tmp_path / "local"), "--jobs", "1"])
    assert results_of(grid, tmp_path / "sweep") == results_of(grid, tmp_path / "local")
    ends = [line for line in audit(tmp_path / "sweep") if line.startswith("end")]
    # The lost cell may have ended already, and not have published its result.
    assert len(set(ends)) == 12 and len(ends) <= 13


def test_the_order_of_cells(tmp_path):
    """All seeds of one setting before the next, although the seed is the first axis."""
    cells = read_grid(str(write_grid(tmp_path))).cells
    assert [(cell.scale, cell.seed) for cell in cells] == [(scale, seed) for scale in (1.0, 2.0) for seed in (0, 1, 2)]


def test_sizes_and_axes_of_several_settings(tmp_path):
    axes = {"task": [{"numbers": 3, "scale": 2}, {"numbers": 5}], "seed": [0, 1]}
    grid = write_grid(tmp_path, axes=axes, sizes={"smoke": {"fixed": {"pause": 1}, "axes": {"seed": [7]}}})
    assert [(cell.numbers, cell.scale, cell.seed) for cell in read_grid(str(grid)).cells] == [
        *((3, 2.0, 0), (3, 2.0, 1)),
        *((5, 1.0, 0), (5, 1.0, 1)),
    ]
    assert [(cell.numbers, cell.pause, cell.seed) for cell in read_grid(str(grid), "smoke").cells] == [(3, 1, 7), (5, 1, 7)]


ZOO = {"title": "PPO", "kind": "zoo", "fixed": {"algo": "ppo", "env": "CartPole-v1", "recipe": "gmp"}, "axes": {"seed": [0]}}


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"kinds": "zoo"}, "'kinds' is not a part of a grid"),
        ({"kind": "zo"}, "kind has to be one of zoo, finetune, distill"),
        ({"axes": {"seed": [0], "kind": ["zo"]}}, "kind has to be one of zoo"),
        ({"axes": {"seed": [0], "kind": ["distill"]}}, "'recipe' is not a setting of kind distill"),
        ({"kind": "tests.counting.Nothing"}, "cannot be imported"),
        ({"kind": "tests.house.ROOT"}, "is not a subclass"),
        ({"title": None}, "title has to be a sentence"),
        ({"axes": {"seed": 3}}, "the axis 'seed' has to be a list with something in it, got 3"),
        ({"axes": {"seed": []}}, "has to be a list with something in it"),
        ({"axes": {"seed": [0, 0]}}, "two cells are the same"),
        ({"axes": {"seed": [0], "a": [{"steps": 1}], "b": [{"steps": 2}]}}, "the axes a and b both set 'steps'"),
        ({"axes": {"seed": [0], "colour": [1]}}, "'colour' is not a setting of kind zoo"),
        ({"axes": {"steps": [100]}}, "kind zoo needs seed"),
        ({"axes": {"seed": ["1e3"]}}, "seed has to be of type int, got '1e3'; YAML reads 1e6 as text"),
        ({"axes": {"seed": ["1.5E+6"]}}, "seed has to be of type int, got '1.5E+6'; YAML reads 1e6 as text"),
        ({"axes": {"seed": [0], "steps": [float("inf")]}}, "steps has to be of type int or null, got inf"),
        ({"axes": {"seed": ["90%"]}}, "seed has to be of type int, got '90%'"),
        ({"axes": {"seed": [1.5]}}, "seed has to be of type int, got 1.5"),
        ({"axes": {"seed": [True]}}, "seed has to be of type int, got True"),
        ({"axes": {"seed": [-1]}}, "seed must be at least 0"),
        ({"axes": {"seed": [2**32]}}, "seed must be at most 4294967295"),
        ({"axes": {"seed": [10**400]}}, "seed has to be of type int, got 1000000000000000"),
        ({"axes": {"seed": [0], "hyperparams": [["foo"]]}}, "--hyperparams takes name:value, got 'foo'"),
        ({"kind": ".a.b"}, "the kind .a.b cannot be imported"),
        ({"report": {"contol": {}}}, "'contol' is not a part of report"),
        ({"report": {"control": [0]}}, "report: control has to be a mapping of settings"),
        ({"report": {"published": "nothing"}}, "report: there is no 'nothing' in published.yml"),
        (
            {"report": {"lowest": {"CartPole-v1": float("nan")}}},
            "report: lowest has to be a mapping of environments to returns",
        ),
        ({"report": {"lowest": {"CartPole-v1": "low"}}}, "report: lowest has to be a mapping of environments to returns"),
        ({"axes": {"seed": [0], "recipe": ["gpm"]}}, "there is no recipe 'gpm' for algorithm 'ppo'"),
        ({"axes": {"seed": [0], "env": ["CartPole-v7"]}}, "CartPole-v7"),
        ({"axes": {"seed": [0], "sparsity": [1.0]}}, "sparsity"),
        ({"axes": {"seed": [0], "bits": [[9]]}}, "bits are numbers from 2 to 8"),
        ({"axes": {"seed": [0], "bits": [[8, 4, 8]]}}, "bits has a number twice, got [8, 4, 8]"),
        ({"axes": {"seed": [0], "dataset": ["a/b-v0"]}}, "--dataset is for the offline algorithms"),
        ({"sizes": {"smoke": {"cells": 3}}}, "'cells' is not a part of size smoke"),
        ({"sizes": {"smoke": {"axes": {"sed": [0]}}}}, "size smoke changes the axis 'sed', which is not one of seed"),
    ],
)
def test_a_wrong_grid(changes, sentence, tmp_path, capsys):
    grid = write_grid(tmp_path, **{**ZOO, **changes})
    size = "smoke" if "sizes" in changes else "full"
    with pytest.raises(SystemExit):
        main(["benchmark", "run", str(grid), "--dry-run", "--size", size, "--folder", str(tmp_path)])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence in error and ("YAML" in error) == ("YAML" in sentence)
    assert not (tmp_path / "cells").exists()


def test_a_size_that_is_not_run_and_a_key_that_stands_twice(tmp_path):
    grid = write_grid(tmp_path, **{**ZOO, "sizes": {"smoke": {"axes": {"sed": [0]}}}})
    with pytest.raises(ValueError, match="size smoke changes the axis 'sed', which is not one of seed"):
        read_grid(str(grid))
    grid.write_text("title: a\naxes:\n  seed: [0]\n  seed: [1]\n")
    with pytest.raises(ValueError, match="line 4: 'seed' stands twice in one mapping"):
        read_grid(str(grid))


def test_merge_keys_may_be_overridden(tmp_path):
    """Also those of a mapping that merges another one itself."""
    text = write_grid(tmp_path, **{**ZOO, "axes": {"seed": [0]}}).read_text()
    merged = "report:\n  control: &a {sparsity: 0.5}\n  lowest: {CartPole-v1: 0}\n"
    chain = "sizes:\n  one: {fixed: &b {<<: *a, sparsity: 0.6}}\n  two: {fixed: {<<: *b, sparsity: 0.7}}\n"
    file = tmp_path / "merged.yml"
    file.write_text(text + merged + chain)
    assert [read_grid(str(file), size).cells[0].settings["sparsity"] for size in ("one", "two")] == [0.6, 0.7]


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["nothing"], "there is no grid 'nothing'; the grids are: "),
        (["nothing.yml"], "there is no grid nothing.yml"),
        (["smoke", "--size", "tiny"], "there is no size 'tiny'; it has: full"),
        (["smoke", "--shard", "3/2"], "'3/2' is not a part such as 2/5"),
        (["smoke", "--budget", "soon"], "'soon' is not a time such as 6h"),
        (["smoke", "--jobs", "0"], "--jobs must be at least 1"),
    ],
)
def test_a_wrong_option(options, sentence, capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["benchmark", "run", *options, "--folder", str(tmp_path)])
    assert sentence in capsys.readouterr().err


def test_a_name_is_of_settings_and_recipe(tmp_path, monkeypatch):
    """The same in any process and for any way to write a value; another one for another value, recipe or version."""
    from sb3_sparse.sweeps.kinds import zoo as kind
    from sb3_sparse.zoo import recipes

    def name(**changes):
        fixed = {**ZOO["fixed"], "sparsity": 0.5, **changes}
        return read_grid(str(write_grid(tmp_path, **{**ZOO, "fixed": fixed}))).cells[0].name

    first = name()
    code = f"from sb3_sparse.sweeps import read_grid; print(read_grid({str(tmp_path / 'grid.yml')!r}).cells[0].name)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert output.strip() == first == name(episodes=20) == name(steps=None)
    assert name(sparsity=0) == name(sparsity=0.0) != first
    assert name(steps=1000) == name(steps=1000.0) != first
    monkeypatch.setattr(recipes, "RECIPES", tmp_path)
    text = (ROOT / "hyperparams/ppo_gmp.yml").read_text()
    try:
        for content, same in ((f"# a comment\n{text}", True), (text.replace("gamma: 0.98", "gamma: 0.97"), False)):
            (tmp_path / "ppo_gmp.yml").write_text(content)
            kind._hyperparams.cache_clear()
            assert (name() == first) is same
    finally:
        kind._hyperparams.cache_clear()
    monkeypatch.undo()
    for part, version in (("__version__", "9.9"), ("SHARED", 2)):
        with monkeypatch.context() as changed:
            changed.setattr(f"sb3_sparse.sweeps.kinds.cell.{part}", version)
            assert name() != first
    assert name() == first


def publish_price(folder, cell, seconds, settings=None):
    settings = cell.settings if settings is None else settings
    made = {"evaluations": {}, "curve": {"steps": [], "returns": []}, "networks": {}, "steps": 1, "origin": {}}
    folder.publish(cell.name, {"kind": cell.kind, "settings": settings, "cpu_seconds": seconds, **made})


def test_prices(tmp_path, capsys):
    """By the usual speeds at first, and by finished cells as soon as there are some."""
    cells = read_grid(str(write_grid(tmp_path))).cells
    folder = Folder(tmp_path)
    price = Prices(folder).of(cells[0])
    assert (price.seconds, price.measured) == (3.0, False)
    for cell, seconds in zip(cells, (5.0, 9.0), strict=False):
        publish_price(folder, cell, seconds)
    # The start is a second: 4 and 8 seconds for 4 numbers each. The usual half a second counts as a tenth of the 8.
    longer = read_grid(str(write_grid(tmp_path, fixed={"numbers": 8}))).cells
    price = Prices(folder).of(longer[0])
    assert (price.seconds, price.measured) == (pytest.approx(1.0 + (12.0 + 0.5 * 0.8) / 8.8 * 8), True)
    # Those with another scale know it less: their speed is corrected by nothing.
    assert Prices(folder).of(longer[3]).seconds == pytest.approx(price.seconds)
    # What 1,000 times as much will take, 8 numbers hardly say.
    longest = read_grid(str(write_grid(tmp_path, fixed={"numbers": 8000}))).cells
    price = Prices(folder).of(longest[0])
    assert (price.seconds, price.measured) == (pytest.approx(1.0 + (12.0 + 0.5 * 800) / 808 * 8000), False)
    each = Prices(folder).of(cells[2]).seconds
    assert affordable(cells[2:], Prices(folder), 2.1 * each, jobs=2) == list(cells[2:6])
    assert affordable(cells[2:], Prices(folder), 1.9 * each, jobs=2) == list(cells[2:4])
    main(["benchmark", "run", str(write_grid(tmp_path)), "--folder", str(tmp_path), "--dry-run"])
    assert "finished cells" in capsys.readouterr().out


def test_a_damaged_result_is_named(tmp_path, capsys):
    grid = write_grid(tmp_path)
    name = read_grid(str(grid)).cells[0].name
    file = Folder(tmp_path).result_file(name)
    file.parent.mkdir()
    file.write_text("{")
    with pytest.raises(ValueError, match=f"{file} is damaged .*: delete it, and its cell runs again"):
        results_of(grid, tmp_path)
    # It is not a finished cell, and those of other grids do not matter.
    file.write_text("{}")
    with pytest.raises(SystemExit):
        main(["benchmark", "run", str(grid), "--folder", str(tmp_path), "--dry-run"])
    assert f"{file} is damaged (it lacks kind, " in capsys.readouterr().err
    assert not Prices(Folder(tmp_path)).known


def test_a_grid_that_is_nested_too_deep(tmp_path):
    grid = tmp_path / "grid.yml"
    grid.write_text("[" * 2000 + "]" * 2000)
    with pytest.raises(ValueError, match=r"grid\.yml: it is nested too deep"):
        read_grid(str(grid))


def test_what_fits_into_a_budget(tmp_path, capsys):
    """What fits is said before it runs, and that nothing does. A cell takes 3 seconds by the usual speeds."""
    command = ["benchmark", "run", str(write_grid(tmp_path)), "--folder", str(tmp_path), "--jobs", "1", "--budget"]
    main([*command, "7s", "--dry-run"])
    assert "2 of the 6 cells that are left fit into the budget, the last of them " in capsys.readouterr().out
    main([*command, "2s", "--dry-run"])
    assert "0 of the 6 cells that are left fit into the budget\n" in capsys.readouterr().out
    main([*command, "2s"])
    error = capsys.readouterr().err
    assert "the first cell alone costs more than the budget, about 3 s: " in error and "goes on" not in error
    assert not Folder(tmp_path).finished()


def test_results_that_say_nothing_of_prices(tmp_path):
    """Of a recipe that is gone, and of a time that is no number."""
    cells = read_grid(str(write_grid(tmp_path, **ZOO))).cells
    folder = Folder(tmp_path)
    usual = Prices(folder).of(cells[0])
    publish_price(folder, cells[0], 5.0, settings={**cells[0].settings, "recipe": "gone"})
    assert Prices(folder).of(cells[0]) == usual
    publish_price(folder, cells[0], 1.0)
    file = folder.result_file(cells[0].name)
    file.write_text(file.read_text().replace('"cpu_seconds": 1.0', '"cpu_seconds": NaN'))
    assert Prices(folder).of(cells[0]) == usual
