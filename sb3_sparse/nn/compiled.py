"""
Compiled modules. ``torch.compile`` wraps a module in another one, which holds it as the child ``_orig_mod``, so names of
modules and tensors change. Code that walks through modules or reads their names does so with these functions, to which a
compiled policy looks like the policy itself.
"""

from collections.abc import Iterator
from typing import Any, TypeVar

from torch import nn

AnyModule = TypeVar("AnyModule", bound=nn.Module)

_WRAPPED = "_orig_mod"


def original(module: AnyModule) -> AnyModule:
    """
    :param module: A module, compiled or not.
    :return: The module that was compiled, or the module itself
    """
    found: Any = module
    # The modules of a torch.jit.ScriptModule are no dict.
    while isinstance(found._modules, dict) and (wrapped := found._modules.get(_WRAPPED)) is not None:
        found = wrapped
    return found  # type: ignore[no-any-return]


def plain_name(name: str) -> str:
    """
    >>> plain_name("actor._orig_mod.mu.weight")
    'actor.mu.weight'

    :param name: Full name of a module or a tensor of a policy, compiled or not.
    :return: Its name in the policy that is not compiled
    """
    return ".".join(part for part in name.split(".") if part != _WRAPPED)


def named_children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """
    :param module: A module, compiled or not.
    :return: Its children by name, without what wraps them
    """
    return ((name, original(child)) for name, child in original(module).named_children())


def named_modules(module: nn.Module, prefix: str = "", *, remove_duplicate: bool = True) -> Iterator[tuple[str, nn.Module]]:
    """
    :param module: Root of the search, compiled or not.
    :param prefix: Name of the root, to begin the names with.
    :param remove_duplicate: Whether a module that has several names comes once.
    :return: All modules by full name, without those that wrap others
    """
    for name, part in module.named_modules(prefix=prefix, remove_duplicate=remove_duplicate):
        if original(part) is part:
            yield plain_name(name), part
