"""
Checks of recorded data: the spaces must be supported, and the arrays must fit them.

Each ``as_`` function checks the array of one block and returns it in the form in which it is stored: observations of uint8
boxes stay uint8, those of all other boxes become float32, and discrete values become int64. These checks run while data are
loaded; each algorithm checks for itself whether it can use their spaces.
"""

import warnings
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Array = NDArray[Any]
Leaf = spaces.Box | spaces.Discrete
#: Rounding can take an action this far out of its box, relative to the bound.
_ROUNDING = 1e-6


def observation_leaves(space: spaces.Space[Any]) -> dict[str, Leaf]:
    """
    :param space: An observation space.
    :return: The boxes and discrete spaces that it consists of, by key; any other space than a Dict has one key, ""
    :raises ValueError: if the space is not supported
    """
    leaves = dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}
    supported = {key: leaf for key, leaf in leaves.items() if isinstance(leaf, spaces.Box | spaces.Discrete)}
    if not leaves or len(supported) < len(leaves):
        what = next(
            (f"{leaf} (key '{key}')" if key else f"{leaf}" for key, leaf in leaves.items() if key not in supported), space
        )
        raise ValueError(
            f"observations of the space {what} are not supported: use Box, Discrete, or a Dict of these that is not nested "
            "(gymnasium.wrappers.FlattenObservation makes a Box of any space)"
        )
    return supported


def action_leaf(space: spaces.Space[Any]) -> Leaf:
    """
    :param space: An action space.
    :return: The same space
    :raises ValueError: if the space is not supported
    """
    if not isinstance(space, spaces.Box | spaces.Discrete):
        raise ValueError(f"actions of the space {space} are not supported: use Box or Discrete")
    return space


def space_structure(space: spaces.Space[Any]) -> object:
    """
    :param space: A space of observations.
    :return: What a policy depends on: the kind and the shape of the space, by key of a Dict. Bounds are left out, as they
        differ between versions of an environment
    """
    if isinstance(space, spaces.Dict):
        return {key: space_structure(part) for key, part in space.spaces.items()}
    return type(space), int(space.n) if isinstance(space, spaces.Discrete) else space.shape


def kept_type(space: Leaf) -> np.dtype[Any]:
    """
    :param space: Space of observations or actions.
    :return: The type in which they are stored
    """
    if isinstance(space, spaces.Discrete):
        return np.dtype(np.int64)
    return np.dtype(np.uint8 if space.dtype == np.uint8 else np.float32)


def kept_bytes(space: Leaf) -> int:
    """
    :param space: Space of observations.
    :return: Bytes of one stored observation
    """
    return prod(space.shape or ()) * kept_type(space).itemsize


def called(name: str, key: str) -> str:
    """
    :param name: Name of observations in errors.
    :param key: Key of a part of them, "" for all.
    :return: Name of this part in errors
    """
    return f"{name}['{key}']" if key else name


def split_observations(values: object, leaves: dict[str, Leaf], what: str) -> dict[str, Any]:
    """
    :param values: Observations, in a dict for a Dict space.
    :param leaves: The spaces by key; any other space than a Dict has one key, "".
    :param what: Name of the observations in errors.
    :return: Observations by key
    :raises ValueError: if the keys do not fit the space
    """
    if "" in leaves and len(leaves) == 1:
        if isinstance(values, Mapping):
            raise ValueError(
                f"{what} are a dict with the keys {sorted(values)}, and the observation space is not a Dict: give one array"
            )
        return {"": values}
    if not isinstance(values, Mapping) or set(values) != set(leaves):
        keys = sorted(values) if isinstance(values, Mapping) else f"a {type(values).__name__}"
        raise ValueError(f"{what} must be a dict with the keys {sorted(leaves)} of the observation space, got {keys}")
    return {key: values[key] for key in leaves}


def as_kept(values: Array, space: Leaf, *, what: str, start: int = 0) -> Array:
    """
    :param values: Observations or actions ``[n, *shape]``, in the environment's units.
    :param space: Their space.
    :param what: Their name in errors.
    :param start: Index of the first one, for errors.
    :return: The same values in the form in which they are stored, ``[n, *shape]``
    :raises ValueError: if shape, type or values do not fit the space
    """
    count = values.shape[0]
    if isinstance(space, spaces.Discrete):
        return _as_discrete(values, space, what=what, start=start)
    if values.shape[1:] != space.shape:
        raise ValueError(f"{what} have the shape {list(space.shape)} in the space {space}, got {list(values.shape[1:])}")
    if space.dtype == np.uint8 and values.dtype != np.uint8:
        raise ValueError(f"{what} are uint8 in the space {space}, got {values.dtype}: convert them with .astype(np.uint8)")
    kept = as_float(values, what=what, start=start) if kept_type(space) == np.float32 else values
    return np.ascontiguousarray(kept).reshape(count, *space.shape)


def as_actions(values: Array, space: Leaf, *, what: str, start: int = 0) -> Array:
    """
    :param values: Actions, ``[n, *shape]``; ``[n]`` or ``[n, 1]`` of a discrete space.
    :param space: Their space.
    :param what: Their name in errors.
    :param start: Index of the first one, for errors.
    :return: The actions in the form in which they are stored, float32 ``[n, *shape]`` or int64 ``[n, 1]``
    :raises ValueError: if shape, type or values do not fit the space
    """
    kept = as_kept(values, space, what=what, start=start)
    return kept.reshape(-1, 1) if isinstance(space, spaces.Discrete) else kept.astype(np.float32, copy=False)


def as_float(values: Array, *, what: str, start: int = 0) -> NDArray[np.float32]:
    """
    :param values: Numbers of any type ``[n, ...]``.
    :param what: Their name in errors.
    :param start: Index of the first one, for errors.
    :return: The numbers as float32
    :raises ValueError: if one is NaN, infinite or too large for float32, or the type is not numeric
    """
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{what} must be numbers, got the type {values.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        kept = values.astype(np.float32, copy=False)
    # A sum needs no temporary array. Finite numbers may overflow it too, so a sum that is not finite leads to a closer look.
    with np.errstate(all="ignore"):
        suspicious = not np.isfinite(kept.sum(dtype=np.float32))
    if suspicious:
        finite = np.isfinite(kept).reshape(len(kept), -1).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"{what} hold NaN, infinity or a number beyond float32, first at index {start + int(finite.argmin())}: "
                "remove these transitions, or mend the code that recorded them"
            )
    return kept


def as_flags(values: Array, *, what: str) -> NDArray[np.bool_]:
    """
    :param values: Flags, ``[n]`` or ``[n, 1]``, as booleans or as numbers 0 and 1.
    :param what: Their name in errors.
    :return: The flags ``[n]``
    :raises ValueError: if a value is neither
    """
    flags = as_column(values, what=what)
    if flags.dtype.kind not in "fiub" or not ((flags == 0) | (flags == 1)).all():
        raise ValueError(f"{what} must be booleans, or numbers 0 and 1")
    return flags.astype(np.bool_, copy=False)


def as_column(values: Array, *, what: str) -> Array:
    """
    :param values: One number per transition, ``[n]`` or ``[n, 1]``.
    :param what: Their name in errors.
    :return: The numbers ``[n]``
    :raises ValueError: on any other shape
    """
    if values.ndim != 1 and values.shape[1:] != (1,):
        raise ValueError(f"{what} must have the shape [n] or [n, 1], got {list(values.shape)}")
    return values.reshape(-1)


def count_outside(actions: Array, space: Leaf) -> int:
    """
    :param actions: Actions in the form in which they are stored, ``[n, *shape]``.
    :param space: Their space.
    :return: How many of them lie outside of a Box by more than rounding
    """
    if isinstance(space, spaces.Discrete):
        return 0
    low = space.low - _ROUNDING * np.maximum(1.0, np.abs(space.low))
    high = space.high + _ROUNDING * np.maximum(1.0, np.abs(space.high))
    outside = (actions < low) | (actions > high)
    return int(outside.reshape(len(actions), -1).any(axis=1).sum())


def warn_outside(outside: int, count: int, space: Leaf) -> None:
    """
    Warn of actions outside of their space, which an environment clips or refuses.

    :param outside: How many lie outside of their space.
    :param count: How many there are.
    :param space: Their space.
    """
    if outside:
        warnings.warn(
            f"{outside} of {count} actions lie outside of their space {space}: they are used as they are. Clip them if the "
            "environment clipped them too, or check their units",
            stacklevel=4,
        )


def _as_discrete(values: Array, space: spaces.Discrete, *, what: str, start: int) -> NDArray[np.int64]:
    column = as_column(values, what=what)
    if column.dtype.kind not in "iu":
        raise ValueError(f"{what} are integers in the space {space}, got {column.dtype}: convert them with .astype(int)")
    kept = column.astype(np.int64, copy=False)
    inside = (kept >= space.start) & (kept < space.start + space.n)
    if not inside.all():
        first = int(inside.argmin())
        raise ValueError(f"{what} hold {kept[first]} at index {start + first}, which is not in the space {space}")
    return kept
