"""The suite itself: no test is empty, and what is skipped is named."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests import conftest, skipped
from tests.algorithms import CASES
from tests.conftest import REPRESENTED

TESTS = Path(__file__).parent


def test_four_algorithms_stand_for_the_others():
    assert set(CASES) - REPRESENTED == {"sac", "td3", "dqn", "ppo"} and set(CASES) > REPRESENTED


def is_empty(function):
    """Whether nothing happens in it, but for a docstring."""
    return all(
        isinstance(x, ast.Pass) or (isinstance(x, ast.Expr) and isinstance(x.value, ast.Constant)) for x in function.body
    )


def test_no_test_is_empty():
    functions = {
        f"{path.name}::{node.name}": node
        for path in TESTS.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert len(functions) > 500
    assert not [name for name, node in functions.items() if is_empty(node)]


@pytest.mark.parametrize("processes", ["0", "1"])
def test_what_is_skipped_is_counted_and_named(processes, tmp_path):
    assert conftest.pytest_terminal_summary is skipped.pytest_terminal_summary
    (tmp_path / "conftest.py").write_text((TESTS / "skipped.py").read_text())
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('x', [1, 2, 3])\n"
        "def test_third(x):\n"
        "    if x != 3: pytest.skip('only the third')\n"
        "@pytest.mark.skipif(True, reason='never')\n"
        "def test_never(): pass\n"
    )
    (tmp_path / "test_file.py").write_text("import pytest\npytest.importorskip('no_such_package')\n")
    command = [sys.executable, "-m", "pytest", "-q", "-n", processes, "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    start = lines.index("4 skipped")
    assert lines[start + 1].startswith("  could not import 'no_such_package': ") and lines[start + 1].endswith(
        "test_file.py (1)"
    )
    assert lines[start + 2 : start + 4] == [
        "  never: test_some.py::test_never (1)",
        "  only the third: test_some.py::test_third (2)",
    ]
