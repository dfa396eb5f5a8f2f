"""The benchmarks say what they measured: nothing half done is taken for a result."""

import json
import re
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from tests.sweep_results import result_of

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def inference(benchmark_of):
    return benchmark_of("speed.inference")


@pytest.fixture
def ask(benchmark_of, monkeypatch, tmp_path):
    """Asks a question with the arguments of a command line; also what was measured with, and what was stored."""
    question = benchmark_of("shared.question")

    def call(measure, *arguments, options=(), **kwargs):
        monkeypatch.setattr("sys.argv", ["question", *arguments, "--json", str(tmp_path / "result.json")])
        seen = []
        question.ask(lambda args: measure(seen.append(args) or args), *options, show=lambda result: [], **kwargs)
        return seen[0], json.loads((tmp_path / "result.json").read_text())

    return call


def test_rooms_stay_small():
    """As those of the package; and the list of the questions is complete."""
    files = {path: path.read_text() for path in BENCHMARKS.rglob("*.py")}
    assert {path.name: text.count("\n") for path, text in files.items() if text.count("\n") > 260} == {}
    rooms = [path.parent for path in files if path.name != "__init__.py"]
    assert max(map(rooms.count, rooms)) <= 12
    questions = {path.name for path, text in files.items() if "\n    ask(" in text}
    listed = re.findall(r"^\| .*?\| (`\w+\.py`.*?) \|", (BENCHMARKS / "README.md").read_text(), flags=re.MULTILINE)
    assert questions == set(re.findall(r"`(\w+\.py)`", " ".join(listed))) and len(questions) > 10


def test_options_have_quick_values(benchmark_of, ask):
    """Unless they are given; a result says where it was measured."""
    option = benchmark_of("shared.question").option
    options = (option("--rounds", 60, "", quick=3), option("--keep", False, ""), option("agents", [], "", nargs="*"))
    expected = {
        (): (60, False, []),
        ("--quick",): (3, False, []),
        ("--quick", "--rounds", "5", "--keep", "a"): (5, True, ["a"]),
    }
    for arguments, values in expected.items():
        args, stored = ask(lambda args: {"ratios": {"a": args.rounds}}, *arguments, options=options)
        assert (args.rounds, args.keep, args.agents) == values
        assert stored["ratios"] == {"a": values[0]} and {"versions", "machine"} < stored.keys()


def test_what_is_there_is_stored(ask, tmp_path):
    """A measurement that fails in the middle leaves what it had found; a wrong argument is one sentence and no result."""

    def measure(args):
        yield {"ratios": {"a": 1.0}}
        raise ValueError("there is no b")

    with pytest.raises(SystemExit):
        ask(measure)
    assert json.loads((tmp_path / "result.json").read_text())["ratios"] == {"a": 1.0}


def test_figures_have_names(benchmark_of, tmp_path):
    question = benchmark_of("shared.question")
    question.save(question.Figure(), tmp_path / "one.png")
    question.save({"3": question.Figure(), "4": question.Figure()}, tmp_path / "many")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many_3.png", "many_4.png", "one.png"]


#: The stored results of each question whose script is there.
STORED = {
    "speed.overhead": ("overhead", "overhead_gpu"),
    "speed.throughput": ("throughput",),
    "speed.rivals": ("rivals",),
    "speed.offline_speed": ("offline_speed",),
    "speed.atari_speed": ("atari_speed",),
    "speed.replay": ("replay",),
    "speed.inference": ("inference",),
    "size.ablation": ("ablation",),
    "size.offline_memory": ("offline_memory",),
    "size.bits": ("bits",),
    "deployment.returns": ("returns",),
    "deployment.collection": ("collection",),
    "deployment.recurrent": ("recurrent",),
    "deployment.mcu": ("mcu", "mcu_sac_halfcheetah"),
}


@pytest.mark.parametrize("name", STORED)
def test_stored_results_are_shown(benchmark_of, name):
    """Tables have rows, and figures something in every panel, from what is stored and nothing else."""
    benchmark, question = benchmark_of(name), benchmark_of("shared.question")
    for file in STORED[name]:
        result = json.loads((BENCHMARKS / "results" / f"{file}.json").read_text())
        blocks = list(benchmark.show(result))
        tables = [block for block in blocks if isinstance(block, question.Table)]
        assert all(table.row_count for table in tables) and (tables or name == "deployment.collection")
        figures = benchmark.draw(result) if hasattr(benchmark, "draw") else {}
        for figure in [figures] if isinstance(figures, question.Figure) else figures.values():
            assert all(axes.has_data() for axes in figure.axes if axes.axison)


def test_ratios_are_taken_within_a_round(benchmark_of):
    """A machine that is twice as slow in every other round changes no ratio, and every contestant has its turns."""
    turns = benchmark_of("shared.turns")
    speeds, calls = {"base": 6.0, "twice": 3.0}, []

    def contestant(name):
        def take_turn():
            calls.append(name)
            # The round that this turn is in.
            return speeds[name] * (1 + (len(calls) - 1) // 2 % 2)

        return take_turn

    rng = np.random.default_rng(0)
    times = turns.take_turns({name: contestant(name) for name in speeds}, 8, rng, "")
    assert sorted(calls) == ["base"] * 8 + ["twice"] * 8 and times["base"].tolist() == [6.0, 12.0] * 4
    found = turns.summarize({"twice": times["base"] / times["twice"]}, rng)
    assert found == {"ratios": {"twice": 2.0}, "intervals": {"twice": [2.0, 2.0]}}


def test_costs_of_ds_td3(benchmark_of):
    """The published table, from masks alone."""
    pytest.importorskip("mujoco")
    costs = benchmark_of("size.costs")
    found = costs.measure(Namespace(steps=1_000_000))
    for recipe, connections in costs.PUBLISHED["connections"].items():
        assert found["costs"][recipe]["connections"] == connections
        assert found["ratios"][f"{recipe}/training_flops"] == pytest.approx(
            costs.PUBLISHED["relative_flops"][recipe], abs=0.005
        )
    assert found["costs"]["dense"]["training_flops"] == pytest.approx(1.07e14, rel=0.005)
    assert (
        found["ratios"]["set/training_flops"]
        < found["ratios"]["rigl/training_flops"]
        < 1.01 * found["ratios"]["set/training_flops"]
    )


def test_sparse_contestants_act_like_their_model(inference):
    """Every row of a table is measured, or skipped with a reason; the one that is compared with is the stock model."""
    rng = np.random.default_rng(0)
    model, observations = inference.load_actor(None, rng)
    rows = inference.make_rows(model, observations, (0.95,))
    assert rows.predicts["sb3"] == model.predict
    whos = ("onnx_float32", "onnx_int8", "litert_float32", "litert_int8", "numpy", "ctypes", "portable")
    whos += ("compiled", "avx2", "vbmi")
    expected = {"sb3", "0/torch"} | {f"95/{who}" for who in whos}
    assert set(rows.predicts) | set(rows.skipped) == expected and not set(rows.predicts) & set(rows.skipped)
    assert "95/numpy" in rows.predicts and all(rows.skipped.values())
    assert rows.networks["95"]["sparsity"] == pytest.approx(0.95, abs=1e-4) and max(rows.errors.values()) < 0.05
    times = inference.time_calls(rows, rounds=2, calls=3, rng=rng)
    assert all(values.shape == (2, 3) and (values > 0).all() for values in times.values())
    assert set(inference.speedups(times)) == set(rows.predicts) - {"sb3"}


def test_speedups_are_taken_within_a_round(inference):
    times = {
        "sb3": np.array([[10.0, 10.0, 99.0], [20.0, 20.0, 20.0]]),
        "95/numpy": np.array([[1.0, 1.0, 1.0], [4.0, 4.0, 4.0]]),
    }
    assert inference.speedups(times)["95/numpy"].tolist() == [10.0, 5.0]


def test_a_contestant_that_acts_differently_is_no_result(inference):
    observations = np.random.default_rng(0).normal(size=(32, 3))
    rows = inference.Rows(observations)
    with pytest.raises(RuntimeError, match="acts differently"):
        rows.add("95/wrong", lambda: lambda observation, deterministic: (observation[::-1], None), observations)

    def missing():
        raise ImportError("not installed")

    rows.add("95/missing", missing, observations)
    assert rows.skipped == {"95/missing": "not installed"} and not rows.predicts


def test_late_ticks_are_all_counted(benchmark_of):
    """A call that takes long is late itself, and so is every tick that ends before it does."""

    def slow(observation, deterministic):
        time.sleep(0.025)

    count_late = benchmark_of("speed.busy_loop").count_late
    assert count_late(slow, np.zeros((1, 2)), ticks=10, period=10_000_000) == 10
    assert count_late(lambda observation, deterministic: None, np.zeros((1, 2)), ticks=5, period=100_000_000) == 0


def test_a_trained_agent_is_chosen_for_each_task(benchmark_of, tmp_path):
    """The smallest of those that return as much as two dense ones, or as the published one; else that which returns most."""
    from sb3_sparse.sweeps import Folder, read_grid
    from sb3_sparse.sweeps.report.published import read_published
    from sb3_sparse.sweeps.report.study import Study

    trained, folder = benchmark_of("size.trained"), Folder(tmp_path)
    grid = read_grid("sac_from_scratch")
    returns = {
        ("Hopper-v4", 0.98, 0): (3000.0, 1000),
        ("Hopper-v4", 0.98, 1): (2000.0, 900),
        ("Hopper-v4", None, 0): (3300.0, 5000),
        ("Hopper-v4", 0.0, 0): (3600.0, 500),
        ("Walker2d-v4", None, 0): (100.0, 5000),
        ("Walker2d-v4", 0.98, 0): (90.0, 1000),
        ("HalfCheetah-v4", 0.0, 0): (800.0, 500),
        ("HalfCheetah-v4", 0.0, 1): (1000.0, 500),
        ("HalfCheetah-v4", None, 0): (950.0, 5000),
        ("HalfCheetah-v4", 0.98, 0): (920.0, 1000),
        ("HalfCheetah-v4", 0.98, 2): (880.0, 900),
    }
    for cell in grid.cells:
        mean, nbytes = returns.get((cell.env, cell.sparsity, cell.seed), (None, None))
        if mean is not None and cell.recipe == "gmp_both":
            forms = {"agent": {"returns": [mean]}, "8 bits": {"returns": [mean], "nbytes": nbytes}}
            folder.publish(cell.name, {**result_of(cell), "evaluations": forms})
    chosen = list(trained.choose(Study(grid, folder), read_published("rl_zoo3_sac")))
    assert [(cell.env, cell.sparsity, cell.seed) for cell, _ in chosen] == [
        ("HalfCheetah-v4", 0.98, 0),
        ("Hopper-v4", 0.98, 0),
        ("Walker2d-v4", None, 0),
    ]
    run = trained.find_run(chosen[1][0], [tmp_path])
    assert run == folder.cell_folder(chosen[1][0].name) / "run/sac/Hopper-v4_1"
    with pytest.raises(ValueError, match=r"there is no finished training of .*HalfCheetah-v4"):
        trained.find_run(grid.cells[1], [tmp_path])


def test_an_agent_is_never_made_denser(benchmark_of, inference):
    """A trained agent is measured from its own sparsity on; what it has lost stays lost."""
    model, observations = inference.load_actor(None, np.random.default_rng(0))
    sparse_twin = benchmark_of("speed.contestants.twins").sparse_twin
    rows = inference.make_rows(sparse_twin(model, 0.9), observations, (0.8, 0.9))
    assert rows.skipped["80"] == "the agent is 90.0% sparse already"
    assert rows.networks["90"]["sparsity"] == pytest.approx(0.9, abs=1e-4) and "80/numpy" not in rows.predicts


@pytest.mark.slow
def test_returns_of_an_export(benchmark_of, tmp_path):
    """An export of float weights plays the same episodes; ratios come with their intervals."""
    returns = benchmark_of("deployment.returns")
    found = returns.play(returns.train(tmp_path, 150), episodes=2, seed=0)
    assert set(found["returns"]) == {"SB3 model", *returns.FORMS}
    np.testing.assert_allclose(found["returns"]["float"], found["returns"]["SB3 model"], rtol=1e-3)
    share, (low, high) = returns.ratio(np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.random.default_rng(0))
    assert share == low == high == 1


def test_students_that_are_there_are_read(benchmark_of, tmp_path, monkeypatch):
    """A result that is there is not made again; a student that fails is an error."""
    students, agents = benchmark_of("size.students"), benchmark_of("size.agents")
    assert agents.split("64x32-95") == ([64, 32], 0.95)
    (tmp_path / "sac-Hopper-v4.zip").touch()
    agent = str(tmp_path / "sac-Hopper-v4.zip")
    there, missing = (agents.Small(agent=agent, shape="8x8-0", bits=8, seed=seed, episodes=2) for seed in (0, 1))
    result = {"kind": there.kind, "settings": there.settings, "cpu_seconds": 1.0, "origin": {}, "model": 1}
    students.Folder(tmp_path / "made").publish(there.name, result)
    assert students.make_students([there], tmp_path / "made") == {"sac-Hopper-v4": [(there, result)]}
    monkeypatch.setattr(students, "run", lambda cells, root, jobs: students.Folder(root).add_death(missing.name, "no reason"))
    (tmp_path / "made" / "cells" / missing.name).mkdir(parents=True)
    with pytest.raises(RuntimeError, match="seed=1 failed: no reason"):
        students.make_students([there, missing], tmp_path / "made")
    with pytest.raises(ValueError, match="there is no agent"):
        students.make_students([agents.Small(agent="none.zip", shape="8x8-0", bits=8, seed=0, episodes=1)], tmp_path)


def test_ratios_of_students(benchmark_of):
    """The mean of all seeds over the teacher's; a student that always plays alike has an interval of one point."""
    ratio = benchmark_of("size.students").ratio
    assert ratio(np.full(4, 2.0), np.full((3, 4), 1.0), np.random.default_rng(0)) == (0.5, [0.5, 0.5])
    share, (low, high) = ratio(np.array([1.0, 3.0]), np.array([[1.0, 1.0], [3.0, 3.0]]), np.random.default_rng(0))
    assert share == 1.0 and low < 1.0 < high
