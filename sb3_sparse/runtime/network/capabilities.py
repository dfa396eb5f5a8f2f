"""
Each backend declares what it computes, and refuses everything else.

A backend that ignores a field of a record would answer without an error, and wrongly. So everything that reads a network (a
backend, the file format, an exporter, a pass) declares in a :class:`Capabilities` the fields of every record, the activations
and the heads that it takes into account, and calls :func:`require_known` before it begins. A field that is added to a record
is refused by all of them, by name, until each declares it.
"""

from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import MISSING, fields, is_dataclass
from itertools import chain
from typing import Any

from sb3_sparse.runtime.network.records import Activation, Head, Layer, Network


class Capabilities:
    """
    Everything that one reader of networks takes into account.

    :param name: Its name in errors, such as "the numpy backend".
    :param instead: The remedy in errors, such as "use backend='numpy'".
    :param records: Names of the fields of each record, separated by spaces. A field that does not change an action, such as
        :attr:`Network.ranges`, can be declared by everyone.
    :param activations: Names of activations.
    :param heads: Kinds of heads.
    :param first: Those of the fields of a layer that are supported in the first layer only.
    """

    def __init__(
        self,
        name: str,
        *,
        instead: str,
        records: Mapping[type, str],
        activations: Iterable[str],
        heads: Iterable[str],
        first: str = "",
    ) -> None:
        self.name = name
        self.instead = instead
        self.records = {record: frozenset(names.split()) for record, names in records.items()}
        self.first = frozenset(first.split())
        self.activations = frozenset(activations)
        self.heads = frozenset(heads)

    def renamed(self, name: str, instead: str) -> "Capabilities":
        """
        :param name: Another name in errors.
        :param instead: Another remedy.
        :return: The same capabilities of another reader
        """
        other = copy(self)
        other.name, other.instead = name, instead
        return other


def require_known(network: Network, backend: Capabilities) -> None:
    """
    Refuse a network with anything in it that a backend does not declare. A field that holds its default is not in use, so a
    backend need not know it.

    :param network: A network.
    :param backend: The declaration of a backend.
    :raises ValueError: if there is something else; the sentence names the backend, the field or the activation, its layer, and
        what to do instead
    """
    sentence = unknown(network, backend)
    if sentence is not None:
        raise ValueError(sentence)


def unknown(network: Network, backend: Capabilities) -> str | None:
    """
    :param network: A network.
    :param backend: The declaration of a backend.
    :return: A sentence about the first thing in the network that the backend does not declare; None if it declares everything
    """
    for what in chain(_unknown(network, "the network", backend), _not_first(network, backend)):
        return f"{what}, which {backend.name} does not support: {backend.instead}"
    return None


def _unknown(record: Any, where: str, backend: Capabilities) -> Iterator[str]:
    # A subclass may compute something else, so it is another kind.
    known = backend.records.get(type(record))
    if known is None:
        yield f"{where} is of type {type(record).__name__}"
        return
    if isinstance(record, Activation) and record.name not in backend.activations:
        yield f"{where} is '{record.name}'"
    if isinstance(record, Head) and record.kind not in backend.heads:
        yield f"{where} is '{record.kind}'"
    for name, default in record_fields(type(record)).items():
        value = getattr(record, name)
        if name not in known and not _is_default(value, default):
            yield f"{where} has {name}={_brief(value)}"
        else:
            for part, keys in _records(value):
                numbered = f"layer {keys[0]}" if name == "layers" and keys else f"{name}{list(keys)}"
                # A network in a network has layers of its own.
                numbered += "" if name == "layers" and where == "the network" else f" of {where}"
                yield from _unknown(part, numbered if keys else f"the {name} of {where}", backend)


def _records(value: Any, *keys: object) -> Iterator[tuple[Any, tuple[object, ...]]]:
    """The records in a field, however deep they lie in tuples, lists and dicts, with the keys that lead to each."""
    if is_record(value):
        yield value, keys
    elif isinstance(value, tuple | list | Mapping):
        for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _records(part, *keys, key)


def _not_first(network: Network, backend: Capabilities) -> Iterator[str]:
    for index, layer in enumerate(network.layers[1:], 1):
        for name in sorted(backend.first):
            if not _is_default(value := getattr(layer, name), record_fields(Layer)[name]):
                yield f"layer {index} has {name}={_brief(value)}"


def is_record(value: object) -> bool:
    """
    :param value: Anything.
    :return: Whether it is a record: a dataclass or a named tuple
    """
    return is_dataclass(value) or (isinstance(value, tuple) and hasattr(value, "_fields"))


def record_fields(record: type) -> dict[str, Any]:
    """
    :param record: Class of a record.
    :return: The default of each field by name; ``dataclasses.MISSING`` where there is none
    """
    if not is_dataclass(record):
        named: Any = record
        return {name: named._field_defaults.get(name, MISSING) for name in named._fields}
    defaults: dict[str, Any] = {}
    for field in fields(record):
        factory: Any = field.default_factory
        defaults[field.name] = field.default if factory is MISSING else factory()
    return defaults


def _is_default(value: Any, default: Any) -> bool:
    # Arrays have no single truth value, and none is a default.
    return value is default or (type(value) is type(default) and not hasattr(value, "dtype") and bool(value == default))


def _brief(value: Any) -> str:
    # In single quotes at most, because sentences end up in C strings.
    text = repr(value).replace('"', "'")
    return text if len(text) <= 40 and not hasattr(value, "dtype") and not is_record(value) else f"{type(value).__name__}(...)"
