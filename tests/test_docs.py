"""The README and the documentation do what they say: their Python blocks run, their commands exist."""

import re
from pathlib import Path

import pytest

from sb3_sparse.callbacks import GradualPruningCallback, OneShotPruningCallback
from sb3_sparse.sparsity import DISTRIBUTIONS, SALIENCIES, SCHEDULES
from sb3_sparse.zoo import RECIPES, find_recipe

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{index}")
    for page in PAGES
    for index, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE))
]


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_run(block, tmp_path, monkeypatch, capsys):
    """As written, but for the number of steps."""
    monkeypatch.chdir(tmp_path)
    shorter = re.sub(r"\b(\d+)_000\b", lambda match: str(min(300, int(match.group(1)) * 30)), block)
    exec(compile(shorter, "block", "exec"), {"__name__": "__main__"})


def test_readme_opens_with_the_two_commands():
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    assert [line.split("#")[0].strip() for line in blocks[0].splitlines()] == ["make demo", "make test"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_recipes_that_are_named_exist(page):
    for algo, recipe in re.findall(r"--algo (\w+) .*?--recipe (\w+)", page.read_text()):
        find_recipe(algo, recipe)
    for path in re.findall(r"hyperparams/(\w+\.yml)", page.read_text()):
        assert (RECIPES / path).is_file()


def test_every_family_is_documented():
    """The tables of names in docstrings and docs follow the tables of the code."""
    page = (ROOT / "docs" / "guide" / "methods.md").read_text()
    for name in (*SCHEDULES, *SALIENCIES, *DISTRIBUTIONS):
        assert f"`{name}`" in page
    for callback in (OneShotPruningCallback, GradualPruningCallback):
        assert all(f'"{name}"' in callback.__doc__ for name in (*SALIENCIES, *DISTRIBUTIONS))
