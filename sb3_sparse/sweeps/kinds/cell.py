"""What all kinds of cells share: settings that are read strictly, a name, and a price."""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

from sb3_sparse.sources import digest_sources
from sb3_sparse.version import __version__

#: Version of what the kinds share, evaluation.py and resumption.py. A change there that makes other results raises it.
SHARED = 1

#: The largest that numpy's generators take.
_LAST_SEED = 2**32 - 1

SelfCell = TypeVar("SelfCell", bound="Cell")


@dataclass(frozen=True, kw_only=True)
class Cell(ABC):
    """
    One run of a grid. A subclass is a frozen dataclass whose fields are the settings, strings, numbers, bools, and tuples of
    those, and is listed in :data:`sb3_sparse.sweeps.kinds.KINDS`.

    :param seed: Seed of everything that is drawn.
    """

    seed: int

    #: Its name in grids.
    kind: ClassVar[str]

    @classmethod
    def read(cls: type[SelfCell], settings: Mapping[str, object]) -> SelfCell:
        """
        :param settings: Values from a YAML file.
        :return: The cell
        :raises ValueError: if a setting is unknown, missing, or of the wrong type
        """
        known = {field.name: field for field in fields(cls)}
        for name in settings:
            if name not in known:
                raise ValueError(f"'{name}' is not a setting of kind {cls.kind}; it has: {', '.join(known)}")
        missing = [name for name, field in known.items() if _is_required(field) and name not in settings]
        if missing:
            raise ValueError(f"kind {cls.kind} needs {', '.join(missing)}: add it to fixed or axes")
        hints = get_type_hints(cls)
        cell = cls(**{name: _convert(name, value, hints[name]) for name, value in settings.items()})
        if cell.seed > _LAST_SEED:
            raise ValueError(f"seed must be at most {_LAST_SEED}, got {cell.seed}")
        return cell

    @abstractmethod
    def check(self) -> None:
        """
        Refuse what would fail later.

        :raises ValueError: if the settings do not fit each other, or name something that does not exist
        :raises OSError: if a file cannot be read
        """

    @abstractmethod
    def content(self) -> object:
        """
        :return: What the result depends on beside the settings, such as the content of the files that they name
        """

    @abstractmethod
    def make(self, folder: Path) -> dict[str, Any]:
        """
        Make the cell, in a process that does nothing else, and go on where one that died has stopped.

        :param folder: Its folder.
        :return: ``evaluations``, ``curve``, ``networks`` and ``steps`` of the result
        """

    @property
    def files(self) -> tuple[Path, ...]:
        """Files of the user that :meth:`content` reads; it says None for those that are not there."""
        return ()

    @property
    @abstractmethod
    def work(self) -> int:
        """How many steps or updates it takes."""

    @property
    @abstractmethod
    def rates(self) -> tuple[str, ...]:
        """What its speed depends on, the most important first."""

    @property
    @abstractmethod
    def usual(self) -> tuple[float, float]:
        """CPU seconds of its start and of a step or update, as far as they are known before any cell has been measured."""

    @cached_property
    def name(self) -> str:
        """
        The hash that its result is found by. The version of the package, the source of the kind's module and :data:`SHARED`
        stand for the code: a hash of all code would make every result void with each commit.
        """
        kinds = [cls for cls in type(self).__mro__ if issubclass(cls, Cell) and cls is not Cell]
        identity = {
            "kind": self.kind,
            "settings": {field.name: getattr(self, field.name) for field in fields(self) if not _is_default(self, field)},
            "content": self.content(),
            "version": __version__,
            "code": digest_sources(cls.__module__ for cls in kinds),
            # A later version than the first is a part of the name: results before there were versions keep theirs.
            **({"shared": SHARED} if SHARED > 1 else {}),
        }
        return _digest(identity)

    @cached_property
    def content_hash(self) -> str:
        """That of what the result depends on beside the settings: results with the same one may be taken over."""
        return _digest(self.content())

    @property
    def settings(self) -> dict[str, Any]:
        """All settings, as plain JSON."""
        settings: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return settings

    def __str__(self) -> str:
        chosen = {field.name: getattr(self, field.name) for field in fields(self) if not _is_default(self, field)}
        chosen["seed"] = chosen.pop("seed")
        return " ".join(f"{name}={_show(value)}" for name, value in chosen.items())


def check_bits(bits: tuple[int, ...]) -> None:
    """
    :param bits: Bits that agents are exported in.
    :raises ValueError: if they cannot be, or one is there twice
    """
    if not set(bits) <= {*range(2, 9), 32}:
        raise ValueError(f"bits are numbers from 2 to 8, or 32, got {list(bits)}")
    if len(set(bits)) < len(bits):
        raise ValueError(f"bits has a number twice, got {list(bits)}")


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _is_default(cell: Cell, field: Field[Any]) -> bool:
    return not _is_required(field) and getattr(cell, field.name) == field.default


def _show(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _convert(name: str, value: object, hint: Any) -> Any:
    """The value as the hint says; an int does for a float, and a whole float, as in ``!!float 1e6``, for an int."""
    options = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    for option in options:
        if option is NoneType and value is None:
            return None
        if get_origin(option) is tuple and isinstance(value, list):
            return tuple(_convert(name, part, get_args(option)[0]) for part in value)
        if option in (bool, str) and isinstance(value, option):
            return value
        if option in (int, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
            # An int may be too large for a float.
            with suppress(OverflowError):
                if option is float or float(value).is_integer():
                    return option(value)
    words = " or ".join(map(_describe, options))
    note = (
        "; YAML reads 1e6 as text: write 1000000"
        if isinstance(value, str) and re.fullmatch(r"[\d.]+[eE][+-]?\d+", value)
        else ""
    )
    raise ValueError(f"{name} has to be {words}, got {value!r:.80}{note}")


def _describe(option: Any) -> str:
    if get_origin(option) is tuple:
        return f"a list of {get_args(option)[0].__name__}"
    return "null" if option is NoneType else f"of type {option.__name__}"
