"""The report of a grid: what it says, and whether its pages work."""

import configparser
import json
import re
import shutil
import subprocess
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from random import Random

import numpy as np
import pytest
import yaml

from sb3_sparse.cli import main
from sb3_sparse.sweeps import Folder, read_grid
from sb3_sparse.sweeps.kinds import Distill, FineTune
from sb3_sparse.sweeps.report import write_report
from sb3_sparse.sweeps.report.blocks import Table
from sb3_sparse.sweeps.report.comparison import aggregate, compare, judge, judged
from sb3_sparse.sweeps.report.content import verdicts
from sb3_sparse.sweeps.report.figures import draw_curves
from sb3_sparse.sweeps.report.provenance import methods, missing
from sb3_sparse.sweeps.report.published import PUBLISHED, read_published
from sb3_sparse.sweeps.report.statistics import Estimate, estimate_iqm
from sb3_sparse.sweeps.report.study import Study
from sb3_sparse.sweeps.report.writing import check_report
from sb3_sparse.sweeps.rows import write_rows
from tests.browser import browse
from tests.counting import Counting
from tests.house import ROOT
from tests.sweep_results import FACTORS, LEVELS, SEEDS, TASKS, all_cells, cell, grid_of, publish, result_of

REPORT = ROOT / "sb3_sparse/sweeps/report"


def study_of(tmp_path, cells, finished=None, **report):
    folder = Folder(tmp_path)
    publish(folder, cells if finished is None else finished)
    return Study(grid_of(cells, **report), folder)


def line_of(study, task, label="as trained"):
    return [compare(study, group) for group in study.select(task=task, label=label)]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The report of a grid that lacks one cell, and all cells of one sparsity on one task."""
    pytest.importorskip("matplotlib")
    folder = Folder(tmp_path_factory.mktemp("sweep"))
    cells = all_cells(recipe="gmp_qat")
    publish(folder, [each for each in cells if not is_missing(each)])
    return write_report(grid_of(cells, published="compression_figure_4"), folder, folder.root / "report")


def is_missing(each):
    return (each.env, each.sparsity) == ("HalfCheetah-v4", 0.99) or (each.env, each.sparsity, each.seed) == (
        "CartPole-v1",
        0.5,
        2,
    )


# What it says


def test_comparison_with_the_dense_control(tmp_path):
    stats = pytest.importorskip("scipy.stats")
    study = study_of(tmp_path, all_cells())
    dense, _, _, sparse = line_of(study, "CartPole-v1")
    means = np.array([400.0, 404.0, 408.0])
    assert dense.mean.value == pytest.approx(404.0) and dense.difference is None
    assert sparse.mean.value == pytest.approx(202.0) and sparse.difference.value == pytest.approx(-202.0)
    welch = stats.ttest_ind(means / 2, means, equal_var=False).confidence_interval()
    assert sparse.difference.interval == pytest.approx((welch.low, welch.high), abs=1e-3)
    assert sparse.relative == pytest.approx(welch.low / 404.0, abs=1e-5)
    assert sparse.improvement.value == 0.0 and sparse.loses
    assert dense.score is None and sparse.score.value == pytest.approx(0.5)
    # A share of a loss is one of what lies above the lowest return, and of a control that is not there nothing is.
    for lowest, relative in ((4.0, pytest.approx(welch.low / 400.0, abs=1e-5)), (500.0, None)):
        assert line_of(study_of(tmp_path, all_cells(), lowest={"CartPole-v1": lowest}), "CartPole-v1")[3].relative == relative
    # In 8 bits each return is one smaller. The control is the dense agent as it was trained.
    exported = line_of(study, "CartPole-v1", "8 bits")[0]
    assert exported.difference.value == pytest.approx(-1.0)


def test_verdict_is_the_largest_sparsity_without_loss(tmp_path):
    study = study_of(tmp_path, all_cells())
    verdict = judge(line_of(study, "CartPole-v1"))
    assert verdict.best.group.sparsity == 0.9 and verdict.note == ""


@pytest.mark.parametrize(
    ("sparsities", "factors", "best", "note"),
    [
        ((0.0, 0.5, 0.9), {0.5: 0.1, 0.9: 1.0}, 0.9, "a loss at 50 %"),
        ((0.0, 0.5, 0.9), {0.5: 0.1, 0.9: 0.1}, None, "a loss at every sparsity that was measured"),
        ((0.5, 0.9), {}, None, "not measured: it takes a control and two seeds of each"),
        ((0.0,), {}, None, "no sparsities"),
    ],
)
def test_verdict_says_what_limits_it(tmp_path, monkeypatch, sparsities, factors, best, note):
    for sparsity, factor in factors.items():
        monkeypatch.setitem(FACTORS, sparsity, factor)
    verdict = judge(line_of(study_of(tmp_path, all_cells(sparsities=sparsities)), "CartPole-v1"))
    assert (verdict.best and verdict.best.group.sparsity, verdict.note) == (best, note)


def test_a_verdict_at_a_ceiling_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.sweep_results.returns_of", lambda settings, form: [500.0, 500.0])
    verdict = judge(line_of(study_of(tmp_path, all_cells()), "CartPole-v1"))
    assert verdict.best.group.sparsity == 0.99
    assert (
        verdict.note
        == "all returns are those of the control: the agents act alike, or a ceiling of the task hides differences"
    )


def test_a_verdict_of_a_wide_interval_does_not_decide(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.sweep_results.returns_of", lambda settings, form: [100.0 + 100.0 * settings["seed"]] * 2)
    study = study_of(tmp_path, all_cells())
    line = line_of(study, "CartPole-v1")
    verdict = judge(line)
    assert verdict.best is None and verdict.note == "the intervals are wide"
    assert verdicts(study, {("CartPole-v1", "as trained"): line}, None).blocks[0].rows[0][2].text == "not decided"
    lost = replace(line[2], difference=Estimate(-2.0, (-3.0, -1.0)), relative=-0.9)
    verdict = judge([*line[:2], lost, line[3]])
    assert verdict.best is None and verdict.note == "a loss at 90 %; the intervals of 50 %, 99 % are wide"
    # One that decides counts, although a larger one is open.
    line[1] = replace(line[1], difference=Estimate(0.0, (-1.0, 1.0)), relative=-0.01)
    verdict = judge(line)
    assert verdict.best is line[1] and verdict.note == "90 %, 99 % not decided"


def test_sparsities_of_recipes_have_verdicts(tmp_path, monkeypatch):
    """One that the grid does not set is judged by itself, but for that of a control."""
    monkeypatch.setitem(FACTORS, None, 0.1)
    cells = all_cells(("CartPole-v1",), (None, 0.0, 0.5, 0.99))
    study = study_of(tmp_path / "a", cells)
    parts = judged(study, line_of(study, "CartPole-v1"))
    assert [[each.group.sparsity for each in part] for part in parts] == [[0.5, 0.99], [None]]
    assert [judge(part).best and judge(part).best.group.sparsity for part in parts] == [0.5, None]
    assert judge(parts[1]).note == "a loss at every sparsity that was measured"
    lines = {("CartPole-v1", "as trained"): line_of(study, "CartPole-v1")}
    (table,) = (block for block in verdicts(study, lines, None).blocks if isinstance(block, Table))
    assert [row[1].text for row in table.rows] == ["as trained", "as trained, the recipe's sparsity"]
    # The control has another recipe, or is the agent itself.
    cells = all_cells(("CartPole-v1",), (None,), recipe="gmp_qat") + all_cells(("CartPole-v1",), (None,), recipe="gmp")
    study = study_of(tmp_path / "b", cells, control={"recipe": "gmp_qat"})
    found = {label: judged(study, line_of(study, "CartPole-v1", label)) for label in study.labels}
    assert [label for label, parts in found.items() if parts] == ["gmp, as trained", "gmp, 8 bits"]


def test_missing_cells_that_died(tmp_path):
    """Each has a row of its own, with its log; the other seeds of a setting share one."""
    cells, folder = all_cells(("CartPole-v1",), (0.0, 0.9)), Folder(tmp_path)
    publish(folder, cells[:3])
    folder.cell_folder(cells[4].name).mkdir(parents=True)
    folder.add_death(cells[4].name, "killed by signal 9\nits log")
    (table,) = missing(Study(grid_of(cells), folder)).blocks
    setting = str(cells[3]).removesuffix(" seed=0")
    assert [[entry.text for entry in row] for row in table.rows] == [
        [setting, "0, 2", "0", ""],
        [setting, "1", "1, the last time killed by signal 9", f"{cells[4].name}/log.txt"],
    ]


def test_verdict_names_what_is_missing(tmp_path):
    cells = all_cells()
    study = study_of(tmp_path, cells, [each for each in cells if each.sparsity != 0.9])
    verdict = judge(line_of(study, "CartPole-v1"))
    assert verdict.best.group.sparsity == 0.5 and verdict.note == "90 % not measured"


def test_results_that_are_no_numbers_are_refused(tmp_path):
    """Neither a verdict nor an interval is made of NaN, wherever it stands."""
    cells = all_cells(("CartPole-v1",), (0.0, 0.9))
    folder = Folder(tmp_path)
    publish(folder, cells)
    file, whole = folder.result_file(cells[4].name), folder.read(cells[4].name)
    for part, sentence in (
        ({"evaluations": {"agent": {"returns": [1.0, float("nan")]}}}, "returns of agent are not finite"),
        ({"curve": {"steps": [1], "returns": [[float("-inf")]]}}, "returns of the curve are not finite"),
        ({"evaluations": {"agent": {"returns": []}}}, "there are no returns of agent"),
        ({"evaluations": {"agent": {}}}, "its evaluations or its curve are not those of a cell"),
    ):
        file.write_text(json.dumps({**whole, **part}))
        with pytest.raises(ValueError, match=f"{file.name} is damaged .{sentence}.*: delete it, and its cell runs again"):
            Study(grid_of(cells), folder)
        with pytest.raises(ValueError, match=sentence):
            folder.publish(cells[4].name, {**whole, **part})
    file.write_text("{}")
    with pytest.raises(ValueError, match=r"is damaged .it lacks kind, settings, "):
        Study(grid_of(cells), folder)


def test_a_line_without_a_control_has_no_verdict(tmp_path):
    """Dense agents of other steps are the control only of a grid that says so."""
    sparse = all_cells(("CartPole-v1",), (0.9,), steps=2000)
    cells = all_cells(("CartPole-v1",), (0.0, 0.9)) + sparse
    verdicts = {}
    for name, report in (("default", {}), ("named", {"control": {"sparsity": 0.0}})):
        study = study_of(tmp_path / name, cells, **report)
        assert study.labels == tuple(f"steps {steps}, {form}" for steps in (1000, 2000) for form in ("as trained", "8 bits"))
        lines = [line_of(study, "CartPole-v1", f"steps {steps}, as trained") for steps in (1000, 2000)]
        verdicts[name] = [judge(line).best and judge(line).best.group.sparsity for line in lines]
    assert verdicts == {"default": [0.9, None], "named": [0.9, 0.9]}


def test_one_seed_has_no_verdict(tmp_path):
    verdict = judge(line_of(study_of(tmp_path, all_cells(seeds=(0,))), "CartPole-v1"))
    assert verdict.best is None and "two seeds" in verdict.note


def test_one_training_counts_once(tmp_path):
    """Cells that differ in bits alone are the same agents, and as two they would make every interval too narrow."""
    cells = [cell("CartPole-v1", 0.9, seed, bits=bits) for bits in ((8,), (4,)) for seed in SEEDS]
    with pytest.raises(ValueError, match="several cells differ in bits alone, such as algo=ppo"):
        check_report(grid_of(cells), Folder(tmp_path))


def test_scores_are_shares_of_the_dense_control(tmp_path):
    study = study_of(tmp_path, all_cells(), lowest={"CartPole-v1": 4.0})
    found = {each.group.sparsity: each for each in aggregate(study, "as trained")}
    # 0.5 times (1, 1.01, 1.02) over the mean 1.01; on CartPole less 4 on both sides. The middle four of six.
    cartpole = (np.array([200.0, 202.0, 204.0]) - 4.0) / 400.0
    scores = np.sort(np.concatenate([cartpole, 0.5 * np.array([1.0, 1.01, 1.02]) / 1.01]))
    assert found[0.99].iqm.value == pytest.approx(scores[1:-1].mean())
    assert found[0.99].tasks == 2 and found[0.99].improvement.value == 0.0
    assert found[0.0].improvement is None and found[0.5].improvement.value == 1.0
    # The seeds of the controls are resampled as well, but for controls themselves.
    sparse = [group for group in study.select(label="as trained") if group.sparsity == 0.99]
    strata, controls = list(map(study.score, sparse)), list(map(study.control, sparse))
    dense = [study.score(group, of=control) for group, control in zip(sparse, controls, strict=True)]
    assert found[0.99].iqm == estimate_iqm(strata, dense) != estimate_iqm(strata)
    assert found[0.0].iqm == estimate_iqm(list(map(study.score, controls)))


def test_a_line_that_is_the_control_of_one_task_alone(tmp_path):
    """Its scores over all tasks hold a control and another group."""
    cells = [cell(env, 0.0, seed, engine=engine) for env in TASKS for engine in (False, True) for seed in range(3)]
    chosen = [{"of": {"env": TASKS[0]}, "engine": True}, {"engine": False}]
    study = study_of(tmp_path, cells, control=chosen)
    for label in study.labels:
        (found,) = aggregate(study, label)
        assert (found.tasks, found.seeds) == (2, 6) and found.iqm.interval is not None


def test_a_task_without_positive_returns_has_no_score(tmp_path, monkeypatch):
    monkeypatch.setitem(LEVELS, "CartPole-v1", -100.0)
    # An interquartile mean takes four scores.
    assert aggregate(study_of(tmp_path, all_cells()), "as trained") == []
    found = aggregate(study_of(tmp_path, all_cells(seeds=range(4))), "as trained")
    assert [(each.tasks, each.seeds, each.planned) for each in found] == [(1, 4, 8)] * 4
    study = study_of(tmp_path, all_cells(), lowest={"CartPole-v1": -1000.0})
    assert [each.tasks for each in aggregate(study, "as trained")] == [2, 2, 2, 2]


def test_settings_that_follow_from_the_task_make_no_lines(tmp_path):
    cells = [
        cell(env, sparsity, 0, steps=steps, engine=engine)
        for env, steps in zip(TASKS, (1000, 2000), strict=True)
        for sparsity in (0.0, 0.9)
        for engine in (False, True)
    ]
    assert study_of(tmp_path, cells).labels == (
        "no engine, as trained",
        "no engine, 8 bits",
        "engine, as trained",
        "engine, 8 bits",
    )


def test_control_of_the_grid(tmp_path):
    """A dense recipe without a sparsity is the control of all others; by default it is sparsity 0 of the same line."""
    cells = all_cells(("CartPole-v1",), (0.0, 0.9)) + all_cells(("CartPole-v1",), (None,), engine=True)
    study = study_of(tmp_path, cells, control={"sparsity": None, "engine": True})
    assert {study.control(group).settings["engine"] for group in study.groups} == {True}
    study = study_of(tmp_path, cells)
    found = {
        (control and control.sparsity, group.settings["engine"])
        for group in study.groups
        for control in [study.control(group)]
    }
    assert found == {(0.0, False), (None, True)}
    with pytest.raises(ValueError, match="fits 2 settings of CartPole-v1: name more"):
        study_of(tmp_path, cells, control={"engine": False})


def test_lines_may_have_controls_of_their_own(tmp_path):
    """The first entry that fits a group names its control."""
    cells = [
        *all_cells(("CartPole-v1",), (0.0, 0.9)),
        *all_cells(("CartPole-v1",), (0.9,), recipe="gmp_qat"),
        *all_cells(("CartPole-v1",), (None,), recipe="qat"),
    ]
    own = {"of": {"recipe": "gmp"}, "recipe": "gmp", "sparsity": 0.0}
    study = study_of(tmp_path, cells, control=[own, {"recipe": "qat"}])
    found = {
        (group.settings["recipe"], group.sparsity): (control.settings["recipe"], control.sparsity)
        for group in study.groups
        for control in [study.control(group)]
    }
    assert found == {
        ("gmp", 0.0): ("gmp", 0.0),
        ("gmp", 0.9): ("gmp", 0.0),
        ("gmp_qat", 0.9): ("qat", None),
        ("qat", None): ("qat", None),
    }
    lines = {
        line[0].group.settings["recipe"]: judged(study, line)
        for line in map(partial(line_of, study, "CartPole-v1"), study.labels)
    }
    assert {recipe: [len(part) for part in parts] for recipe, parts in lines.items()} == {
        "gmp": [1],
        "gmp_qat": [1],
        "qat": [],
    }
    study = study_of(tmp_path, cells, control=[own])
    assert {study.control(group) for group in study.groups if group.settings["recipe"] != "gmp"} == {None}


def test_imported_results_are_named(tmp_path):
    cells = all_cells(("CartPole-v1",), (0.0, 0.9))
    study = study_of(tmp_path, cells, cells[:4])
    publish(Folder(tmp_path), cells[4:], commit=None, imported="elsewhere")
    before, after = (
        {row[0].text: row[1].text for row in methods(each).blocks[1].rows}
        for each in (study, Study(study.grid, Folder(tmp_path)))
    )
    assert (
        after["imported"] == "2 of 6 results, from runs of rl-zoo3 or another version of the code"
        and after["commit"] == "0123456789ab; unknown"
    )
    assert "imported" not in before and before["commit"] == "0123456789ab"


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ({"controls": {}}, "'controls' is not a part of report"),
        ({"control": {"sparse": 0.0}}, "control has to be a mapping of settings"),
        ({"control": {"recipe": "dens"}}, "control {'recipe': 'dens'} fits no cell"),
        ({"control": [{"of": {"recipe": "dens"}, "sparsity": 0.0}]}, "control {'recipe': 'dens'} fits no cell"),
        ({"control": [{"of": "gmp", "sparsity": 0.0}]}, "control has to be a mapping of settings"),
        ({"lowest": -100}, "lowest has to be a mapping"),
        ({"over": "kilobytes"}, "over has to be one of sparsity, bytes"),
        ({"lowest": {"Cartpole-v1": 0}}, "lowest names Cartpole-v1, and the grid has CartPole-v1, HalfCheetah-v4"),
        ({"note": 4}, "note has to be text, got 4"),
        ({"published": "figure_4"}, "there is no 'figure_4' in published.yml, which has: compression_figure_4"),
    ],
)
def test_a_wrong_entry_is_refused(tmp_path, report, message):
    pytest.importorskip("matplotlib")
    folder, cells = Folder(tmp_path), all_cells()
    publish(folder, cells)
    with pytest.raises(ValueError, match=message):
        write_report(grid_of(cells, **report), folder, tmp_path)


def test_nothing_finished_is_refused(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=r"no cell of small \(size full\) is finished"):
        write_report(grid_of(all_cells()), Folder(tmp_path), tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_the_same_results_have_the_same_report(pages, tmp_path):
    """However long they took, and whenever: a sweep that was interrupted has the report of one that was not."""
    folder, cells = Folder(tmp_path), all_cells(recipe="gmp_qat")
    publish(folder, [each for each in reversed(cells) if not is_missing(each)], time="2027-01-01T00:00:00+00:00")
    others = write_report(grid_of(cells, published="compression_figure_4"), folder, tmp_path / "report")
    for page in (*pages, *pages[0].parent.glob("*.svg"), *pages[0].parent.glob("*.png")):
        assert (others[0].parent / page.name).read_bytes() == page.read_bytes(), page.name
    assert len(list(pages[0].parent.iterdir())) == 2 + 3 * 2


def test_markdown(pages):
    text = pages[1].read_text()
    assert "| report published | compression_figure_4 |" in text
    assert text.startswith(
        "# Return & <sparsity>\n\n2 tasks, 3 seeds, 24 cells (size full), of which 20 are finished and 4 are missing."
        " The finished ones have 20,000 steps or updates.\n"
    )
    # 90 % of 3,000 times (1, 1.01, 1.02), as the control: no difference. The claim is that of the paper.
    row = next(line for line in text.splitlines() if line.startswith("| HalfCheetah-v4 | 8 bits | 90 % |"))
    assert re.match(r"\| HalfCheetah-v4 \| 8 bits \| 90 % \| 2\.\d % \| 3,029 \[2,954, 3,104\] \| \N{MINUS SIGN}1\.0 \[", row)
    assert row.endswith("| 3 | 99 % not measured | 80 % (HalfCheetah-v4) |")
    assert "| HalfCheetah-v4 | as trained | 99 % | 0 of 3 | missing | missing | missing | missing | missing |" in text
    assert "| CartPole-v1 | 8 bits | 90 % | 3 | 403.0 [393.1, 412.9] |" in text
    assert "| 0.33 | actor 10 % | 1,001 | 0.017 |" in text
    # Over both tasks; three scores of one task are too few. Seeds of a setting that are missing stand in one row.
    assert re.search(r"^\| as trained \| 50 % \| 2 of 2 \| 5 of 6 \| 1\.\d+ \[", text, re.MULTILINE)
    assert not re.search(r"^\| as trained \| 99 % \| 1 of 2 ", text, re.MULTILINE)
    missing = text[text.index("## Missing cells") :].split("\n\n")[1].splitlines()[2:]
    assert [line.rsplit(" | ", 1)[1] for line in missing] == ["2 |", "0, 1, 2 |"]
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (pages[1].parent / picture).read_bytes().startswith(b"\x89PNG")


def test_the_command_on_the_grid_of_the_guide(tmp_path, capsys):
    """The guide's grid is one, and its paper's entry exists. Half of its cells are missing here, and there is one seed."""
    pytest.importorskip("mujoco")
    file = tmp_path / "guide.yml"
    file.write_text(re.search(r"```yaml\n(title:.*?)```", (ROOT / "docs/guide/sweeps.md").read_text(), re.DOTALL)[1])
    grid, folder = read_grid(str(file), "smoke"), Folder(tmp_path / "sweeps")
    command = ["benchmark", "report", str(file), "--size", "smoke", "--folder", str(folder.root)]
    with pytest.raises(SystemExit):
        main(command)
    assert "no cell of guide (size smoke) is finished" in capsys.readouterr().err
    publish(folder, [each for each in grid.cells if each.sparsity < 0.85])
    main(command)
    pages = [folder.root / "report" / f"guide-smoke{ending}" for ending in (".html", ".md")]
    assert str(pages[0]) in capsys.readouterr().out
    text = pages[1].read_text()
    assert "1 task, 1 seed, 4 cells (size smoke), of which 2 are finished and 2 are missing." in text
    rows = [line for line in text.splitlines() if line.startswith("| HalfCheetah-v4 | 8 bits |")]
    note = "not measured: it takes a control and two seeds of each"
    assert rows[0] == f"| HalfCheetah-v4 | 8 bits | not measured |  |  |  |  | {note} | 80 % (HalfCheetah-v4) |"
    main([*command, "--out", str(tmp_path / "elsewhere")])
    assert (tmp_path / "elsewhere" / "guide-smoke.html").read_bytes() == pages[0].read_bytes()


def test_cells_of_another_kind(tmp_path):
    """They may have neither an environment nor a sparsity: their returns are shown all the same."""
    pytest.importorskip("matplotlib")
    folder = Folder(tmp_path)
    cells = [Counting(seed=seed, scale=scale) for scale in (1.0, 2.0) for seed in SEEDS]
    for each in cells:
        (folder.cell_folder(each.name)).mkdir(parents=True)
        origin = result_of(cell("CartPole-v1", 0.0, 0))["origin"]
        made = each.make(folder.cell_folder(each.name))
        identity = {"name": each.name, "kind": each.kind, "settings": each.settings, "cpu_seconds": 1.0, "origin": origin}
        folder.publish(each.name, {**identity, **made})
    text = write_report(grid_of(cells), folder, tmp_path / "report")[1].read_text()
    sums = [sum(Random(f"{seed} {count}").random() for count in range(5)) for seed in SEEDS]
    assert f"|  | scale 2.0, as trained | the recipe's | 3 | {2 * np.mean(sums):.2f} [" in text


def test_ways_to_make_agents_sparse(tmp_path):
    """Cells of two kinds: the agents are the tasks, the kinds are the lines, and the agent itself is the control of both."""
    pytest.importorskip("matplotlib")
    cells = []
    for name in ("sac-HalfCheetah-v4", "tqc-HalfCheetah-v4"):
        agent = {"agent": f"experts/{name}.zip", "algo": name[:3], "env": "HalfCheetah-v4", "bits": (8,)}
        for seed in SEEDS:
            cells += [Distill(**agent, sparsity=sparsity, seed=seed) for sparsity in (None, 0.9)]
            cells.append(FineTune(**agent, recipe="gmp", steps=1000, sparsity=0.9, seed=seed))
    grid, folder = grid_of(cells, control={"sparsity": None}), Folder(tmp_path)
    publish(folder, cells, versions={"sb3_sparse": "0.1.0"})
    study = Study(grid, folder)
    assert study.tasks == ("experts/sac-HalfCheetah-v4", "experts/tqc-HalfCheetah-v4")
    assert study.labels == tuple(f"{way}, {form}" for way in ("distill", "finetune") for form in ("as trained", "8 bits"))
    assert {
        (control.task, control.sparsity, control.form) for group in study.groups for control in [study.control(group)]
    } == {(task, None, "agent") for task in study.tasks}
    assert all(study.control(group).task == group.task for group in study.groups)
    text = write_report(grid, folder, tmp_path / "report")[1].read_text()
    assert "| experts/tqc-HalfCheetah-v4 | distill, as trained | the agent itself | 3 |" in text
    assert "| kind | distill, finetune |" in text and "| steps, finetune | 1000 |" in text
    assert "| env | HalfCheetah-v4 |" in text
    rows = write_rows(grid, folder).read_text().splitlines()
    assert rows[0].startswith("name,kind,seed,agent,algo,sparsity,setting_steps,") and len(rows) == 1 + 8 * len(cells)


def drawn(figure):
    """Titles of the panels, and for each line its label and its last value."""
    return {
        axis.get_title(): {line.get_label(): round(float(line.get_ydata()[-1]), 1) for line in axis.lines}
        for axis in figure.axes
    }


def test_curves_of_lines_or_of_sparsities(tmp_path):
    """Where each line has one sparsity a panel compares lines; otherwise it compares sparsities, with the dense control."""
    pytest.importorskip("matplotlib")
    cells = all_cells(("CartPole-v1",), (0.0,)) + all_cells(("CartPole-v1",), (0.9,), engine=True)
    study = study_of(tmp_path / "a", cells)
    assert drawn(draw_curves(study)) == {"CartPole-v1": {"no engine": 404.0, "engine": 404.0}}
    cells += all_cells(("CartPole-v1",), (0.99,), engine=True)
    study = study_of(tmp_path / "b", cells, control={"sparsity": 0.0, "engine": False})
    curves = {"90 % sparse": 404.0, "99 % sparse": 202.0, "dense control": 404.0}
    assert drawn(draw_curves(study)) == {"CartPole-v1, engine": curves}
    study = study_of(tmp_path / "c", cells)
    for group in study.groups:
        for result in group.results:
            result["curve"].update(steps=[], returns=[])
    assert draw_curves(study) is None


# The papers' numbers


def test_published_numbers():
    content = yaml.safe_load(PUBLISHED.read_text())
    for name in content["results"]:
        entry = read_published(name)
        assert entry.paper and entry.place and entry.source
        for claim in entry.claims:
            assert 0.0 < claim["sparsity"] < 1.0 and claim["env"]
        for value in entry.returns:
            assert {"env", "mean", "sd"} <= value.keys()
    assert content["results"].keys() >= {"compression_figure_4", "ds_td3_returns", "offline_table_1"}


def test_claims_are_found_by_task_form_and_settings(tmp_path):
    """The paper's 8 bits are learnt: agents that are rounded after their training have no claim."""
    tasks, recipes = ("HalfCheetah-v4", "Hopper-v5"), ("gmp", "gmp_qat")
    cells = [cell(env, 0.9, 0, algo="sac", recipe=recipe) for env in tasks for recipe in recipes]
    study = study_of(tmp_path, cells, finished=[])
    figure = read_published("compression_figure_4")
    claims = {(group.task, group.label): figure.claim(group) for group in study.groups}
    assert claims.pop(("HalfCheetah-v4", "gmp_qat, 8 bits"))["sparsity"] == 0.8
    assert claims.pop(("Hopper-v5", "gmp_qat, 8 bits"))["sparsity"] == 0.99
    assert len(claims) == 6
    assert set(claims.values()) == {None}
    returns = read_published("ds_td3_returns")
    assert returns.published_return(study.groups[0]) is None


@pytest.mark.parametrize("dense_seeds", [0, 1, 2])
def test_a_published_return_stands_in_for_a_missing_control(tmp_path, dense_seeds):
    stats = pytest.importorskip("scipy.stats")
    kinds = {"algo": "sac", "recipe": "gmp_both"}
    cells = all_cells(("HalfCheetah-v4",), (0.0, 0.9), **kinds)
    folder = Folder(tmp_path)
    publish(folder, [each for each in cells if each.sparsity or each.seed < dense_seeds])
    study, published = Study(grid_of(cells), folder), read_published("rl_zoo3_sac")
    sparse = compare(study, study.select(label="as trained")[1], published)
    means = np.array([3000.0, 3030.0, 3060.0])
    if dense_seeds == 2:
        # Its own control goes before.
        assert not sparse.published and sparse.difference.value == pytest.approx(15.0)
        return
    assert sparse.published and sparse.loses is None and sparse.improvement is None
    assert sparse.difference.value == pytest.approx(3030.0 - 9535.451)
    # Student's test of samples of one variance, the second of which is one number.
    half = stats.t.ppf(0.975, 2) * means.std(ddof=1) * np.sqrt(1 / 3 + 1)
    assert sparse.difference.interval == pytest.approx((3030.0 - 9535.451 - half, 3030.0 - 9535.451 + half), abs=1e-2)
    assert sparse.relative == pytest.approx((3030.0 - 9535.451 - half) / 9535.451, abs=1e-5)
    assert judge([sparse]).note == "not judged: one published agent is no control"
    text = write_report(grid_of(cells, published="rl_zoo3_sac"), folder, tmp_path / "report")[1].read_text()
    assert "(published)" in text and "One agent, trained elsewhere, is no control" in text and "the paper's claim" not in text


def test_published_returns_are_those_of_the_agent_at_the_recipes_sparsity(tmp_path):
    cells = [cell("Hopper-v4", sparsity, 0, algo="td3", recipe="set") for sparsity in (None, 0.9)]
    returns = read_published("ds_td3_returns")
    found = {(group.sparsity, group.form): returns.published_return(group) for group in study_of(tmp_path, cells).groups}
    assert found.pop((None, "agent"))["mean"] == 3587
    assert len(found) == 3 and set(found.values()) == {None}


# The page


class Checker(HTMLParser):
    """Elements that are closed in their order, names that are there once, and whatever the page would load."""

    VOID = ("meta", "link", "br", "img", "hr")

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.loads, self.used, self.tables, self.elements = [], [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            elif name in ("src", "href", "xlink:href"):
                (self.used if value.startswith("#") else self.loads).append(value.lstrip("#"))
            self.used += re.findall(r"url\(#(.*?)\)", value or "")
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append(0)
        elif tag in ("td", "th"):
            self.tables[-1][-1] += 1

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_nothing_else(pages):
    text = pages[0].read_text()
    checker = Checker()
    checker.feed(text)
    assert checker.open == [] and checker.loads == ["data:,"]
    assert len(checker.ids) == len(set(checker.ids)) and set(checker.used) <= set(checker.ids)
    assert checker.elements.count("svg") == 3 and len(checker.tables) == 5
    for table in checker.tables:
        assert len(set(table)) == 1 and len(table) > 1, "rows of different lengths"
    assert "<h1>Return &amp; &lt;sparsity&gt;</h1>" in text and "@import" not in text
    assert '<td class="missing">missing</td>' in text and '<td class="short" data-value="0.99">99 %</td>' in text


def test_style_and_script_are_in_the_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = config["options.package_data"]["sb3_sparse.sweeps.report"].split()
    shipped = {path for pattern in patterns for path in REPORT.glob(pattern)}
    assert shipped == {path for path in REPORT.iterdir() if path.is_file() and path.suffix != ".py"}


def test_sorting():
    """Numbers as numbers, words as words, missing ones last either way, equal ones in their order."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    program = """
    const { readValue, sortRows } = require(process.argv[1]);
    const read = (row, column) => readValue(row[column]);
    const rows = [["10", "b"], [undefined, "c"], ["9", "a"], ["-1e-3", "d"], ["10", "a"], ["word", "e"]];
    console.log(JSON.stringify([1, -1].map((direction) => sortRows(rows, 0, direction, read).map((row) => row[1]))));
    console.log(JSON.stringify(sortRows(rows, 1, 1, read).map((row) => row[1])));
    """
    done = subprocess.run([node, "-e", program, str(REPORT / "sort.js")], capture_output=True, text=True, check=True)
    numbers, words = map(json.loads, done.stdout.splitlines())
    assert numbers == [["d", "a", "b", "a", "e", "c"], ["e", "b", "a", "a", "d", "c"]]
    assert words == ["a", "a", "b", "c", "d", "e"]


def test_in_a_browser(pages, tmp_path):
    script = """
    const table = document.querySelectorAll("table")[0];
    const column = () => [...table.tBodies[0].rows].map((row) => row.cells[3].dataset.value ?? "none");
    const button = table.tHead.rows[0].cells[3].querySelector("button");
    const found = { before: column() };
    button.click(); found.up = column(); button.click(); found.down = column();
    found.mark = table.tHead.rows[0].cells[3].getAttribute("aria-sort");
    found.figures = [...document.querySelectorAll("svg")].map((svg) => svg.getBoundingClientRect().width);
    found.lines = [...document.querySelectorAll("svg")].map((svg) => svg.querySelectorAll("path").length);
    document.body.dataset.found = JSON.stringify(found);
    """
    document, log = browse(pages[0], script, tmp_path)
    assert "CONSOLE" not in log
    found = json.loads(re.search(r'data-found="(.*?)"', document)[1].replace("&quot;", '"'))
    up = [float(value) for value in found["up"] if value != "none"]
    assert len(found["before"]) == 4 and sorted(found["before"]) == sorted(found["up"])
    assert up == sorted(up) and found["up"] != found["before"]
    assert [float(value) for value in found["down"]] == sorted(up, reverse=True) and found["mark"] == "descending"
    assert min(found["figures"]) > 300 and min(found["lines"]) > 20


def test_a_browser_reports_errors(pages, tmp_path):
    """The check above would see one."""
    _, log = browse(pages[0], "document.nothing.here = 1", tmp_path)
    assert "CONSOLE" in log and "here" in log
