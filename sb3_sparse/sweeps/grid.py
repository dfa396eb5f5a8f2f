"""A grid: a YAML file, read strictly, and the cells that it stands for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from sb3_sparse.sweeps.kinds import Cell, find_kind

#: Where grids are found by their names, in a checkout.
GRIDS = Path(__file__).parents[2] / "benchmarks" / "grids"
#: The size that is the grid itself.
FULL = "full"
_KEYS = ("title", "kind", "fixed", "axes", "sizes", "report")


@dataclass(frozen=True)
class Grid:
    """
    :param name: Name of its file.
    :param title: What is measured.
    :param size: Which of its sizes.
    :param cells: The cells, all seeds of one setting before the next.
    :param axes: The axes of this size, in the order of the file.
    :param report: What the file says for the report.
    :param envs: Environments of all sizes.
    """

    name: str
    title: str
    size: str
    cells: tuple[Cell, ...]
    axes: Mapping[str, list[Any]] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    envs: frozenset[str] = frozenset()


def read_grid(name: str, size: str = FULL, *, check: bool = True) -> Grid:
    """
    :param name: Name of a grid in ``benchmarks/grids/``, or the path of a file.
    :param size: One of its sizes.
    :param check: Whether environments, agents and data that the cells name have to be there. A report of stored results needs
        none of them.
    :return: The grid
    :raises ValueError: if there is no such grid or size, or the file holds anything that would fail later
    """
    file = _find(name)
    try:
        return _read(file, size, check)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _find(name: str) -> Path:
    if name.endswith((".yml", ".yaml")):
        if not Path(name).is_file():
            raise ValueError(f"there is no grid {name}")
        return Path(name)
    file = GRIDS / f"{name}.yml"
    if not file.is_file():
        names = ", ".join(sorted(path.stem for path in GRIDS.glob("*.yml")))
        known = f"the grids are: {names}" if names else "grids are found by name in a checkout alone: give the path of a file"
        raise ValueError(f"there is no grid '{name}'; {known}")
    return file


def _read(file: Path, size: str, check: bool) -> Grid:
    content = _load(file)
    _check_keys("a grid", content, _KEYS)
    title = content.get("title")
    if not isinstance(title, str) or not title:
        raise ValueError("title has to be a sentence that says what is measured")
    fixed, axes = _mapping("fixed", content), _axes(content)
    sizes = _mapping("sizes", content)
    for other, changes in sizes.items():
        _check_keys(f"size {other}", changes, ("fixed", "axes"))
        if unknown := _axes(changes).keys() - axes.keys():
            raise ValueError(f"size {other} changes the axis '{min(unknown)}', which is not one of {', '.join(axes)}")
    if size != FULL:
        if size not in sizes:
            raise ValueError(f"there is no size '{size}'; it has: {', '.join([FULL, *sizes])}")
        fixed, axes = {**fixed, **_mapping("fixed", sizes[size])}, {**axes, **_axes(sizes[size])}
    cells = tuple(_cells(content.get("kind"), fixed, axes))
    seen: set[Cell] = set()
    for cell in cells:
        if check:
            cell.check()
        if cell in seen:
            raise ValueError(f"two cells are the same: {cell}")
        seen.add(cell)
    return Grid(file.stem, title, size, cells, axes, _mapping("report", content), frozenset(_envs(content, False)))


def _load(file: Path) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            # As it is written: merge keys are not resolved yet, and may be overridden.
            node = super().compose_mapping_node(anchor)
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                    raise ValueError(f"line {key.start_mark.line + 1}: '{key.value}' stands twice in one mapping")
                seen.add((key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None)
            return node

    try:
        return yaml.load(file.read_text(), Loader)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except yaml.YAMLError as error:
        raise ValueError(f"it is not YAML: {' '.join(str(error).split())}") from error


def _cells(kind: object, fixed: Mapping[str, Any], axes: Mapping[str, list[Any]]) -> Iterator[Cell]:
    """All seeds of one setting before the next, so that those that are finished say something."""
    names = sorted(axes, key=lambda name: name == "seed")
    for values in product(*(axes[name] for name in names)):
        settings = {"kind": kind, **fixed}
        origins = dict.fromkeys(fixed, "fixed")
        for name, value in zip(names, values, strict=True):
            chosen = value if isinstance(value, dict) else {name: value}
            for setting in chosen:
                if origins.get(setting, "fixed") != "fixed":
                    raise ValueError(f"the axes {origins[setting]} and {name} both set '{setting}'")
                origins[setting] = name
            settings |= chosen
        yield find_kind(settings.pop("kind")).read(settings)


def _axes(content: Mapping[str, Any]) -> dict[str, list[Any]]:
    axes = _mapping("axes", content)
    for name, values in axes.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"the axis '{name}' has to be a list with something in it, got {values!r}")
    return axes


def _mapping(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    value = content.get(name, {})
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{name} has to be a mapping of names, got {value!r}")
    return value


def _envs(part: object, named: bool) -> Iterator[str]:
    """Every text that an entry `env` has, in whatever it is."""
    if isinstance(part, dict):
        for name, value in part.items():
            yield from _envs(value, name == "env")
    elif isinstance(part, list):
        for value in part:
            yield from _envs(value, named)
    elif named and isinstance(part, str):
        yield part


def _check_keys(what: str, content: object, known: tuple[str, ...]) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{what} has to be a mapping with {', '.join(known)}, got {content!r:.80}")
    for key in content:
        if key not in known:
            raise ValueError(f"'{key}' is not a part of {what}, which has: {', '.join(known)}")
