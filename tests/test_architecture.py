"""The house: imports run downward only, and the wheel holds every package."""

import ast
import configparser
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sb3_sparse"

#: What each room may import of this package. A name that is missing here is a room without a place in the house.
ALLOWED = {
    "sparsity": set(),
    "nn": set(),
    "cost": {"nn"},
    "policies": {"nn", "sparsity"},
    "state": {"nn"},
    "callbacks": {"nn", "sparsity", "state"},
    "offline": {"nn", "sparsity"},
    "pixels": set(),
    "runtime": set(),
    "export": {"nn", "policies", "runtime", "state"},
    "agents": {"export", "offline", "pixels", "runtime", "state"},
    "zoo": {"offline", "pixels"},
    "cli": {"agents", "cost", "export", "sparsity", "zoo"},
    "__init__": {"callbacks", "cost", "export", "state"},
}
#: The ground floor imports one package and the standard library alone.
GROUND_FLOOR = {"sparsity": "torch", "nn": "torch", "runtime": "numpy"}


def imports(path):
    """Dotted names that a file imports, those for type checkers included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward(path):
    here = room(path)
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "sb3_sparse":
            assert rest[0] == here or rest[0] in ALLOWED[here], f"{here} must not import {name}"
        elif here in GROUND_FLOOR:
            assert top == GROUND_FLOOR[here] or top in sys.stdlib_module_names, f"{here} must not import {name}"


def test_setup_cfg_lists_every_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")}
    assert listed == found | {"sb3_sparse.hyperparams"}


def test_setup_cfg_ships_the_kernels():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = config["options.package_data"]["sb3_sparse.runtime.backends"].split()
    backends = PACKAGE / "runtime/backends"
    shipped = {path for pattern in patterns for path in backends.glob(pattern)}
    assert shipped == {path for path in (backends / "c").iterdir() if path.is_file()}


def test_files_hold_one_idea():
    long = {path.name: count for path in PACKAGE.rglob("*.py") if (count := len(path.read_text().splitlines())) > 260}
    assert not long
