"""The kinds of cells: one file each."""

from importlib import import_module

from sb3_sparse.sweeps.kinds.cell import Cell
from sb3_sparse.sweeps.kinds.distill import Distill
from sb3_sparse.sweeps.kinds.finetune import FineTune
from sb3_sparse.sweeps.kinds.zoo import Zoo

#: The kinds by their names in grids.
KINDS: dict[str, type[Cell]] = {kind.kind: kind for kind in (Zoo, FineTune, Distill)}

__all__ = ["KINDS", "Cell", "Distill", "FineTune", "Zoo", "find_kind"]


def find_kind(name: object) -> type[Cell]:
    """
    :param name: Name of a kind, or of a class of your own with its module, ``package.module.Class``, whose ``kind`` is that
        name.
    :return: The kind
    :raises ValueError: if there is none
    """
    if not isinstance(name, str) or (name not in KINDS and "." not in name):
        raise ValueError(f"kind has to be one of {', '.join(KINDS)}, or a class of your own with its module, got {name!r}")
    if name in KINDS:
        return KINDS[name]
    module, _, cls = name.rpartition(".")
    try:
        found = getattr(import_module(module), cls)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"the kind {name} cannot be imported: {error}") from error
    if not isinstance(found, type) or not issubclass(found, Cell) or found.kind != name:
        raise ValueError(f"the kind {name} is not a subclass of sb3_sparse.sweeps.Cell whose `kind` is '{name}'")
    return found
