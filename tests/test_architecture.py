"""The house: imports run downward only and in no circle, rooms and families of classes stay small, the wheel is complete."""

import configparser
import inspect
import sys
from importlib import import_module

import pytest

from tests.house import PACKAGE, ROOT, describe, folders, import_graph, imports, module_name, rooms

#: What each room may import of this package. A name that is missing here is a room without a place in the house.
ALLOWED = {
    "sparsity": set(),
    "nn": set(),
    "cost": {"nn", "offline", "sparsity", "table"},
    "policies": {"nn", "sparsity"},
    "state": {"nn"},
    "callbacks": {"nn", "sparsity", "state"},
    "offline": {"nn", "sparsity"},
    "pixels": set(),
    "runtime": set(),
    "engine": {"nn", "offline", "runtime"},
    "export": {"nn", "policies", "runtime", "state", "table", "version"},
    "agents": {"cost", "export", "nn", "offline", "pixels", "runtime", "state", "table", "zoo"},
    "distillation": {
        "agents",
        "callbacks",
        "cores",
        "engine",
        "export",
        "lock",
        "nn",
        "offline",
        "parent",
        "runtime",
        "sources",
        "sparsity",
        "state",
        "table",
        "version",
        "zoo",
    },
    "zoo": {"offline", "pixels", "sparsity"},
    "sweeps": {
        "agents",
        "cores",
        "cost",
        "distillation",
        "export",
        "lock",
        "offline",
        "parent",
        "sources",
        "sparsity",
        "table",
        "version",
        "zoo",
    },
    "cli": {"agents", "cores", "distillation", "pixels", "runtime", "sweeps", "zoo"},
    "cores": set(),
    "lock": set(),
    "parent": set(),
    "sources": set(),
    "table": set(),
    "version": set(),
    "__init__": {"callbacks", "cost", "distillation", "engine", "export", "state", "version"},
}
#: The ground floor imports one package and the standard library alone.
GROUND_FLOOR = {"sparsity": "torch", "nn": "torch", "runtime": "numpy"}


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


@pytest.mark.parametrize("folder", folders())
def test_no_circles(folder):
    """Neither between the rooms of a folder nor between its modules; a failure names the circle, and -s prints the graph."""
    graph = rooms(import_graph(), folder)
    lines = describe(graph)
    print(f"{folder}\n{lines}")
    assert len(lines.splitlines()) == len(graph) > 0


def test_the_graph_finds_circles_and_arrows_up():
    """Two rooms whose modules have no circle can have one; a module that asks its own folder has one."""
    graph = {"p.__init__": {"p.a.x"}, "p.a.x": {"p.b.y"}, "p.a.z": set(), "p.b.y": {"p.a.z"}}
    assert rooms(graph, "p") == {"__init__": {"a"}, "a": {"b"}, "b": {"a"}}
    for circular in (rooms(graph, "p"), rooms({"p.__init__": {"p.a"}, "p.a": {"p.__init__"}}, "p")):
        with pytest.raises(ValueError, match="nodes are in a cycle"):
            describe(circular)
    assert describe(rooms(graph, "p.a")) == "  x: \n  z: "


@pytest.mark.parametrize("folder", folders())
def test_a_folder_has_twelve_modules_at_most(folder):
    modules = {path.stem for path in (ROOT / folder.replace(".", "/")).glob("*.py")} - {"__init__"}
    assert len(modules) <= 12


def depth(cls):
    """How many classes of ours lie between a class and a base that is not ours, itself included."""
    ours = [base for base in cls.__bases__ if base.__module__.split(".")[0] == "sb3_sparse"]
    return 1 + max(map(depth, ours), default=0)


def classes():
    """All classes that the package defines."""
    for module in map(import_module, sorted(name.removesuffix(".__init__") for name in import_graph())):
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if cls.__module__ == module.__name__:
                yield cls


def test_no_class_is_more_than_three_below_its_base():
    """What does more is an object that a class has: a reader of four classes of one object looks in four places."""
    deep = {cls.__name__: [base.__name__ for base in cls.__mro__[1:]] for cls in classes() if depth(cls) > 3}
    assert not deep


def test_no_file_is_long():
    """
    A coarse bound. A file of more lines has more than one idea in it; whether a shorter one has a single idea is for its
    reader to say, and most have 60 to 150 lines.
    """
    lengths = {module_name(path): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: lines for name, lines in lengths.items() if lines > 260} == {}
