"""The README and the documentation do what they say: blocks run, commands and links exist, generated pages are up to date."""

import doctest
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from sb3_sparse.sweeps.grid import GRIDS
from sb3_sparse.sweeps.report.statistics import Estimate
from sb3_sparse.zoo import RECIPES, find_recipe

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TOP = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
PAGES = [*TOP, *sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)]
BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{index}")
    for page in PAGES
    for index, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE))
]


@pytest.fixture
def generate(monkeypatch):
    """The script that writes what is generated."""
    monkeypatch.syspath_prepend(str(DOCS))
    import generate

    yield generate
    for name in [name for name in sys.modules if name == "generate" or name.split(".")[0] == "generator"]:
        del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_run(block, tmp_path, monkeypatch, capsys):
    """As written, but for the number of steps."""
    monkeypatch.chdir(tmp_path)
    shorter = re.sub(r"\b(\d+)_000\b", lambda match: str(min(220, int(match.group(1)) * 30)), block)
    exec(compile(shorter, "block", "exec"), {"__name__": "__main__"})


def test_readme_opens_with_the_two_commands():
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert [line.split("#")[0].strip() for line in blocks[0].splitlines()] == ["make demo", "make test"]
    assert len(text.splitlines()) <= 130


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_recipes_that_are_named_exist(page):
    for algo, recipe in re.findall(r"--algo (\w+) .*?--recipe (\w+)", page.read_text()):
        find_recipe(algo, recipe)
    for path in re.findall(r"hyperparams/(\w+\.yml)", page.read_text()):
        assert (RECIPES / path).is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_grids_and_benchmarks_that_are_named_exist(page):
    """Results pages name scripts that are gone as well, after the commit that has them."""
    text = page.read_text()
    for name, size in re.findall(r"sb3-sparse benchmark \w+ ([a-z]\w*)(?: --size (\w+))?", text):
        sizes = yaml.safe_load((GRIDS / f"{name}.yml").read_text())["sizes"]
        assert not size or size in sizes, (name, size)
    paths = {module.replace(".", "/") + ".py" for module in re.findall(r"python -m (benchmarks(?:\.\w+)+)", text)}
    if page.parent.name != "results":
        paths.update(re.findall(r"(?<![\w/])benchmarks/\w[\w/]*\.py", text))
    assert {path for path in paths if not (ROOT / path).is_file()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """Every relative link names a file, and its anchor, if it has one, a heading of that file."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.is_file(), target
        assert not anchor or anchor in _anchors(file), target


def test_the_design_page_names_every_room():
    """The layout in the guide has all rooms of the package, and the folders that it names exist."""
    layout = (DOCS / "guide" / "design.md").read_text().split("\n\n")[1]
    rooms = []
    for indent, name in re.findall(r"^    ( +)(\w+)/ ", layout, flags=re.MULTILINE):
        above = rooms[-1].split("/")[: len(indent) // 2 - 1] if rooms else []
        rooms.append("/".join([*above, name]))
        assert (ROOT / "sb3_sparse" / rooms[-1] / "__init__.py").is_file(), rooms[-1]
    package = ROOT / "sb3_sparse"
    assert set(rooms) == {str(path.parent.relative_to(package)) for path in package.rglob("*/__init__.py")}


def _anchors(page):
    """What GitHub and MyST call the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_what_is_generated_is_up_to_date(generate):
    """Pages equal what `python docs/generate.py` writes from the stored results and the code's tables of names."""
    written = {path: path.read_text() for path in generate.generate()}
    stale = [str(path.relative_to(ROOT)) for path, text in generate.generate().items() if written[path] != text]
    assert not stale, "run `python docs/generate.py`"
    assert {path for path in written if path.parent.name == "results"} == set((DOCS / "results").glob("*.md"))


def test_every_stored_result_has_a_page(generate):
    named = {name for module in generate.NAMES for name in generate.import_module(f"generator.pages.{module}").page().files}
    assert named == {path.stem for path in (ROOT / "benchmarks" / "results").glob("*.json")}


def test_the_page_of_a_grid(generate, tmp_path, monkeypatch):
    """It has the numbers of the grid's report, what is missing, what it cost, and its figures."""
    pytest.importorskip("matplotlib")
    from generator import grids

    from sb3_sparse.sweeps import Folder, Stored, read_grid
    from sb3_sparse.sweeps.report import write_report
    from sb3_sparse.sweeps.stored import store_results
    from tests.sweep_results import publish

    monkeypatch.setattr(grids, "RESULTS", tmp_path)
    grid, folder = read_grid("smoke", "smoke"), Folder(tmp_path / "sweep")
    publish(folder, grid.cells[:3])
    store_results(grid, folder, tmp_path)
    assert grids.grids() == ["smoke-smoke"] and grids.page_name("grid-full") == "grid"
    page, report = grids.render("smoke-smoke"), write_report(grid, Stored(grid, tmp_path), tmp_path / "report")[1].read_text()
    assert page.startswith(f"# {grid.title}\n\n<!-- Written by docs/generate.py.")
    assert "sb3-sparse benchmark store smoke --size smoke" in page
    rows = [line for line in report.splitlines() if line.startswith("|") or "CPU hours" in line]
    assert len(rows) > 20 and set(rows) <= set(page.splitlines())
    drawn = [f"smoke-smoke-{kind}.png" for kind in ("returns", "curves")]
    assert list(grids.draw("smoke-smoke")) == drawn and not list(grids.draw("smoke-smoke"))
    assert re.findall(r"\]\(\.\./\.\./benchmarks/results/(.*?png)\)", page) == drawn
    monkeypatch.setattr(generate.headline, "headline", lambda folder: "")
    monkeypatch.setattr(generate.small, "small", lambda folder: "")
    index = generate._index({})
    assert f"| [{grid.title}](smoke-smoke.md) | 1 task, 2 seeds, 4 cells (size smoke), of which 3 are finished" in index


def test_results_that_contradict_a_sentence_stop_the_script(generate, monkeypatch):
    from generator.pages import limits

    comparison = limits.comparison

    def changed(name, *form, **settings):
        found = comparison(name, *form, **settings)
        return replace(found, score=Estimate(0.9, None)) if name == "distilled_agents-full" else found

    monkeypatch.setattr(limits, "comparison", changed)
    with pytest.raises(ValueError, match="no longer support this sentence"):
        limits.page()


@pytest.mark.parametrize(
    ("interval", "relative", "verdict"),
    [
        ((-9.0, -1.0), -0.9, "not confirmed"),
        ((-9.0, 1.0), -0.1, "confirmed"),
        ((-9.0, 1.0), -0.9, "not decided"),
        (None, None, "not tested"),
    ],
)
def test_verdicts_on_the_papers_claims(generate, monkeypatch, interval, relative, verdict):
    """A claim has the verdict of the agents with its settings and sparsity, and no other agents count."""
    from generator.pages import claims

    from sb3_sparse.sweeps.report.comparison import Comparison
    from sb3_sparse.sweeps.report.study import Group

    def found(form, sparsity, interval):
        settings = {"env": "Hopper-v4", "recipe": "gmp_qat"}
        group = Group("Hopper-v4", "", form, sparsity, settings, planned=2, results=({"steps": 1_200_000},) * 2)
        return Comparison(group, None, Estimate(-4.0, interval), relative=relative)

    measured = [found("8 bits", 0.99, interval), found("agent", 0.99, (1.0, 2.0)), found("8 bits", 0.95, (-3.0, -2.0))]
    monkeypatch.setattr(claims.grids, "grids", lambda: ["figure-full"])
    monkeypatch.setattr(claims.grids, "comparisons", lambda stored: measured)
    monkeypatch.setattr(claims.grids, "repeats", lambda stored: "compression_figure_4")
    rows = list(claims._rows("compression_figure_4"))
    assert {row[1]: row[-1] for row in rows} == dict.fromkeys((row[1] for row in rows), "not tested") | {"Hopper-v4": verdict}
    [hopper] = [row for row in rows if row[1] == "Hopper-v4"]
    assert hopper[5:7] == (("", "") if interval is None else ("1,200,000", "2"))


@pytest.mark.parametrize(
    ("steps", "verdict"), [((300_000,), "not tested at its length"), ((300_000, 1_200_000), "not confirmed")]
)
def test_a_claim_is_tested_by_the_longest_runs(generate, monkeypatch, steps, verdict):
    """It has one row, and runs that are shorter than the paper's do not judge it."""
    from generator.pages import claims

    from sb3_sparse.sweeps.report.comparison import Comparison
    from sb3_sparse.sweeps.report.study import Group

    settings = {"env": "Hopper-v4", "recipe": "gmp_qat"}
    measured = {}
    for number in steps:
        group = Group("Hopper-v4", "", "8 bits", 0.99, settings, planned=2, results=({"steps": number},) * 2)
        measured[f"{number}-full"] = [Comparison(group, None, Estimate(-4.0, (-9.0, -1.0)), relative=-0.9)]
    monkeypatch.setattr(claims.grids, "grids", lambda: list(measured))
    monkeypatch.setattr(claims.grids, "comparisons", measured.get)
    monkeypatch.setattr(claims.grids, "repeats", lambda stored: "compression_figure_4")
    rows = [row for row in claims._rows("compression_figure_4") if row[1] == "Hopper-v4"]
    assert [(row[5], row[-1]) for row in rows] == [(f"{max(steps):,}", verdict)]


def test_the_smallest_agent_keeps_its_return(generate, monkeypatch):
    """No loss, no mean far below, no interval that excludes little, no published agent, no subset; of others the smallest."""
    from generator.pages import smallest

    from sb3_sparse.sweeps.report.comparison import Comparison
    from sb3_sparse.sweeps.report.study import Group

    def found(sparsity, nbytes, difference, half, dense=1000.0, published=False, env="Hopper-v4", seeds=2, left=20):
        settings = {"kind": "zoo", "env": env, "algo": "sac", "recipe": "gmp", "sparsity": sparsity, "seed": seeds}
        networks = {"actor": {"nonzero": left, "total": 100}}
        results = ({"evaluations": {"8 bits": {"nbytes": nbytes}}, "cpu_seconds": 60.0, "networks": networks},) * seeds
        group = Group(env, "", "8 bits", sparsity, settings, planned=seeds, results=results)
        interval = (difference - half, difference + half)
        mean = Estimate(dense + difference, None)
        relative = (difference - half) / abs(dense)
        return Comparison(group, mean, Estimate(difference, interval), relative=relative, published=published)

    measured = [
        found(0.5, 5000, 10.0, 30.0),
        found(0.9, 3000, -40.0, 50.0),
        found(0.94, 2500, -10.0, 30.0),
        found(0.95, 2000, -60.0, 70.0),
        found(0.0, 100, 0.0, 10.0),
        found(None, 200, 0.0, 10.0, left=100),
        found(None, 400, 0.0, 10.0, env="Walker2d-v4"),
        found(0.96, 1900, -20.0, 500.0),
        found(0.97, 1800, 10.0, 30.0, published=True),
        found(0.98, 1000, -50.0, 10.0),
        found(0.9, 700, -6.0, 10.0, -150.0, env="Pendulum-v1"),
        found(0.95, 600, -10.0, 15.0, -150.0, env="Pendulum-v1"),
    ]
    more = [found(0.94, 2500, -90.0, 10.0, seeds=3)]
    monkeypatch.setattr(smallest.grids, "grids", lambda: ["one-full", "two-full"])
    monkeypatch.setattr(smallest.grids, "comparisons", {"one-full": measured, "two-full": more}.get)
    chosen = {each.task: (each.nbytes, each.dense, each.best.group.sparsity) for each in smallest.smallest()}
    assert chosen == {
        "Hopper-v4, SAC": (3000, 1000.0, 0.9),
        "Pendulum-v1, SAC": (700, -150.0, 0.9),
        "Walker2d-v4, SAC": (400, 1000.0, None),
    }


def test_dense_agents_are_those_of_the_control(generate, monkeypatch):
    from generator import grids

    settings = {"env": "HalfCheetah-v4", "recipe": "gmp_both", "sparsity": 0.0, "precision": "float32"}
    found = grids.comparison("sac_from_scratch-full", **settings).group
    results = tuple({"evaluations": {"agent": {"returns": [value, value]}}} for value in (900.0, 1100.0))
    control = replace(found, results=results)
    monkeypatch.setattr(grids, "_study", lambda _: SimpleNamespace(groups=(found,), control=lambda _: control))
    assert grids.dense_agents("HalfCheetah-v4") == [900.0, 1100.0]


def test_a_new_score_gets_a_row_by_itself(generate, monkeypatch):
    from generator import names

    def luck(weights):
        """A guess, ``|w|`` at best. It needs no data."""

    monkeypatch.setitem(names.FAMILIES, "saliencies", {"luck": luck})
    assert names.names("saliencies").splitlines()[-1] == r"| `luck` | A guess, `\|w\|` at best. |"


def test_examples_of_the_generator(generate):
    from generator import markdown, names

    for module in (markdown, names):
        result = doctest.testmod(module)
        assert result.attempted > 0 and result.failed == 0
