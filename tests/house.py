"""
The import graph of the package, read from its source: ``python -m tests.house`` prints it room by room, from the ground up.
"""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sb3_sparse"

Graph = dict[str, set[str]]


def imports(path: Path) -> Iterator[str]:
    """
    :param path: A Python file.
    :return: Dotted names that it imports, inside functions and for type checkers included
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_name(path: Path) -> str:
    """
    :param path: A file of the package.
    :return: Its dotted name; that of a folder ends in ``__init__``, a module like any other
    """
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@cache
def import_graph() -> Graph:
    """
    :return: By module of the package: the modules of the package that it imports
    """
    paths = {module_name(path): path for path in PACKAGE.rglob("*.py")}

    def find(name: str) -> str:
        # What is imported is a module, or something that a module or a folder holds.
        holder = name.rpartition(".")[0]
        return next(known for known in (name, f"{name}.__init__", holder, f"{holder}.__init__") if known in paths)

    return {
        module: {find(name) for name in imports(path) if name.split(".")[0] == "sb3_sparse"} - {module}
        for module, path in paths.items()
    }


def rooms(graph: Graph, folder: str) -> Graph:
    """
    :param graph: The import graph of modules.
    :param folder: Dotted name of a folder.
    :return: The import graph of what is directly in it, modules and folders
    """
    found: Graph = {}
    for module, imported in graph.items():
        if module.startswith(f"{folder}."):
            here = module.removeprefix(f"{folder}.").split(".")[0]
            inside = (name.removeprefix(f"{folder}.").split(".")[0] for name in imported if name.startswith(f"{folder}."))
            found.setdefault(here, set()).update(set(inside) - {here})
    return found


def folders() -> list[str]:
    """
    :return: Dotted names of all folders of the package
    """
    return sorted(module_name(path).removesuffix(".__init__") for path in PACKAGE.rglob("__init__.py"))


def describe(graph: Graph) -> str:
    """
    :param graph: An import graph without a circle.
    :return: A line per node, in an order in which each imports from lines above it only
    :raises CycleError: if there is a circle; its second argument is the circle
    """
    return "\n".join(f"  {name}: {', '.join(sorted(graph[name]))}" for name in TopologicalSorter(graph).static_order())


if __name__ == "__main__":
    for name in folders():
        print(f"{name}\n{describe(rooms(import_graph(), name))}")
