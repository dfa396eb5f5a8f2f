"""
Which saved run a callback continues.

A run is saved under a key that reads like the call that made its callback:

    GradualPruningCallback(network=['actor'], exclude=[], targets='mask', final_sparsity=0.9, start=0.2, ...)

The class, the network and the optional name identify the run. The other arguments are compared. If they are equal, the
callback goes on where the run stopped. An argument that the key does not have was added to the class later; the run
continues if it has its default value. If an argument has another value, the callback starts anew. A warning says so if the
saved run was stopped before its last moment, because then the change may be a mistake.
"""

import ast
import inspect
from collections.abc import Mapping
from typing import NamedTuple

Arguments = Mapping[str, object]


class Identity(NamedTuple):
    """
    :param callback: Class of the callback.
    :param scope: Printable arguments that tell runs apart: the network, and the name if there is one.
    :param arguments: The other printable arguments.
    """

    callback: type
    scope: Arguments
    arguments: Arguments

    @property
    def key(self) -> str:
        """The key under which a new run is saved."""
        printed = ", ".join(f"{name}={value!r}" for name, value in {**self.scope, **self.arguments}.items())
        return f"{self.callback.__name__}({printed})"


def find_run(identity: Identity, clocks: Mapping[str, Mapping[str, int]]) -> tuple[str, str | None]:
    """
    :param identity: Identity of a callback.
    :param clocks: The clocks of all saved runs, by key.
    :return: Key of the run that the callback continues, or of a new run; and, if there is an unfinished run with other
        arguments, the differences in words
    """
    if identity.key in clocks:
        return identity.key, None
    changes = None
    for key, clock in clocks.items():
        saved = _parse(key)
        if saved is None or saved[0] != identity.callback.__name__:
            continue
        scope = {name: value for name, value in saved[1].items() if name in ("network", "name")}
        if scope != _literal(identity.scope):
            continue
        differences = _compare(identity, {name: value for name, value in saved[1].items() if name not in scope})
        if not differences:
            return key, None
        if _is_unfinished(clock):
            changes = ", ".join(differences)
    return identity.key, changes


def _is_unfinished(clock: Mapping[str, int]) -> bool:
    """Whether a run has begun and not reached its last moment. A rewiring without an end has none that a change could move."""
    if "timestep" not in clock:
        return False  # The clock of another callback in the same list, which has just been made.
    last = max(clock.get(moment, 0) for moment in ("at", "start", "end", "stop"))
    return clock["timestep"] < last or clock.get("updates", 1) == 0


def _compare(identity: Identity, saved: Arguments) -> list[str]:
    """The arguments that differ, with both values."""
    defaults = _defaults(identity.callback)
    present = _literal(identity.arguments)
    differences = []
    for name in {**saved, **present}:
        now, then = (values[name] if name in values else defaults.get(name) for values in (present, saved))
        if now != then or type(now) is not type(then):
            differences.append(f"{name}={now!r} (saved: {then!r})")
    return differences


def _parse(key: str) -> tuple[str, dict[str, object]] | None:
    """Class and arguments of a key; None if it is not a key of this form."""
    try:
        call = ast.parse(key, mode="eval").body
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args:
            return call.func.id, {str(keyword.arg): _read(ast.unparse(keyword.value)) for keyword in call.keywords}
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    return None


def _defaults(callback: type) -> dict[str, object]:
    """Defaults of the constructor's arguments, those of base classes included: a subclass may pass them on as ``**kwargs``."""
    defaults: dict[str, object] = {}
    for kind in reversed(callback.__mro__):
        if "__init__" in vars(kind):
            parameters = inspect.signature(vars(kind)["__init__"]).parameters.values()
            defaults |= {p.name: p.default for p in parameters if p.default is not p.empty}
    return defaults


def _literal(arguments: Arguments) -> dict[str, object]:
    """The values as they would be read from a key."""
    return {name: _read(repr(value)) for name, value in arguments.items()}


def _read(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
