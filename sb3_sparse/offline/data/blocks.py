"""
From transitions in any order to the arrays of a dataset.

A source returns raw transitions in blocks, so that there is never a second copy of all data. It is read twice. The first pass
checks everything, and finds where one transition ends at the observation at which the next one begins, bit for bit. The second
pass writes. Where the two observations differ, the next observation gets its own row, so the order loses nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from sb3_sparse.offline.data import checks
from sb3_sparse.offline.data.checks import Array, Leaf
from sb3_sparse.offline.data.storage import Arrays, allocate

#: Bytes of observations that are read at a time.
_BLOCK_BYTES = 2**21


class Block(NamedTuple):
    """Successive raw transitions; observations by key, arrays ``[n, ...]``."""

    observations: dict[str, Array]
    actions: Array
    rewards: Array
    next_observations: dict[str, Array]
    terminations: Array
    truncations: Array


@dataclass(frozen=True)
class Source:
    """
    Transitions that can be read in blocks.

    :param count: Number of transitions.
    :param read: ``read(start, stop)`` returns the transitions with these indices.
    :param leaves: Spaces of the observations by key.
    :param action_space: Space of the actions.
    :param ends: Where episodes end without a flag, as the index after their last transition.
    """

    count: int
    read: Callable[[int, int], Block]
    leaves: dict[str, Leaf]
    action_space: Leaf
    ends: tuple[int, ...] = ()


def array_source(
    *,
    observations: object,
    actions: ArrayLike,
    rewards: ArrayLike,
    next_observations: object,
    terminations: ArrayLike,
    truncations: ArrayLike | None,
    observation_space: spaces.Space[object],
    action_space: spaces.Space[object],
) -> Source:
    """
    :param observations: ``[n, *shape]``, in a dict for a Dict space, as are next observations.
    :param actions: ``[n, *shape]``.
    :param rewards: ``[n]`` or ``[n, 1]``, as are all flags.
    :param next_observations: ``[n, *shape]``.
    :param terminations: Whether the next state is terminal.
    :param truncations: Whether the episode was truncated there; None if no episode was.
    :param observation_space: Space of the observations.
    :param action_space: Space of the actions.
    :return: These arrays as a source
    :raises ValueError: if the space is not supported, or arrays are missing, empty, or of different lengths
    """
    leaves, action = checks.observation_leaves(observation_space), checks.action_leaf(action_space)
    before = checks.split_observations(observations, leaves, "observations")
    after = checks.split_observations(next_observations, leaves, "next_observations")
    columns = {checks.called("observations", key): np.asarray(values) for key, values in before.items()}
    columns |= {checks.called("next_observations", key): np.asarray(values) for key, values in after.items()}
    columns |= {"actions": np.asarray(actions), "rewards": np.asarray(rewards), "terminations": np.asarray(terminations)}
    lengths = {name: len(column) if column.ndim else 0 for name, column in columns.items()}
    count = lengths["actions"]
    columns["truncations"] = np.zeros(count, dtype=bool) if truncations is None else np.asarray(truncations)
    lengths["truncations"] = len(columns["truncations"]) if columns["truncations"].ndim else 0
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the arrays must have one entry per transition, so all the same length; got {lengths}")

    def read(start: int, stop: int) -> Block:
        return Block(
            observations={key: columns[checks.called("observations", key)][start:stop] for key in leaves},
            actions=columns["actions"][start:stop],
            rewards=columns["rewards"][start:stop],
            next_observations={key: columns[checks.called("next_observations", key)][start:stop] for key in leaves},
            terminations=columns["terminations"][start:stop],
            truncations=columns["truncations"][start:stop],
        )

    return Source(count, read, leaves, action)


def write(source: Source, *, memmap: str | Path | None) -> Arrays:
    """
    :param source: The transitions.
    :param memmap: Folder for the arrays, None for memory.
    :return: The arrays of a dataset
    :raises ValueError: if there are no transitions, or one does not fit the spaces
    """
    if source.count == 0:
        raise ValueError("the dataset is empty: it needs at least one transition")
    shared = np.zeros(source.count, dtype=bool)
    ends = [np.array([*source.ends, source.count])]
    last: dict[str, Array] | None = None
    outside = 0
    for start, stop, block in _blocks(source):
        checks.as_float(checks.as_column(block.rewards, what="rewards"), what="rewards", start=start)
        actions = checks.as_actions(block.actions, source.action_space, what="actions", start=start)
        outside += checks.count_outside(actions, source.action_space)
        flags = checks.as_flags(block.terminations, what="terminations") | checks.as_flags(
            block.truncations, what="truncations"
        )
        ends.append(start + 1 + np.flatnonzero(flags))
        before, after = _kept(block, source, start)
        if last is not None:
            shared[start - 1] = _equal(last, {key: values[:1] for key, values in before.items()})[0]
        shared[start : stop - 1] = _equal(
            {key: values[:-1] for key, values in after.items()}, {key: values[1:] for key, values in before.items()}
        )
        last = {key: values[-1:].copy() for key, values in after.items()}
    checks.warn_outside(outside, source.count, source.action_space)
    rows = 2 * source.count - int(shared.sum())
    arrays = allocate(source.count, rows, leaves=source.leaves, action_space=source.action_space, memmap=memmap)
    arrays.ends = np.unique(np.concatenate(ends)).astype(np.int64)
    # The next transition begins one row later, or two if this one does not end where it begins.
    arrays.index[0] = 0
    np.cumsum(2 - shared[:-1].view(np.int8), dtype=arrays.index.dtype, out=arrays.index[1:])
    _fill(arrays, source, shared)
    return arrays


def _fill(arrays: Arrays, source: Source, shared: NDArray[np.bool_]) -> None:
    for start, stop, block in _blocks(source):
        before, after = _kept(block, source, start)
        index, alone = arrays.index[start:stop], ~shared[start:stop]
        for key, target in arrays.observations.items():
            target[index] = before[key]
            target[index[alone] + 1] = after[key][alone]
        arrays.actions[start:stop] = checks.as_actions(block.actions, source.action_space, what="actions", start=start)
        arrays.rewards[start:stop, 0] = block.rewards.reshape(-1)
        arrays.terminations[start:stop, 0] = block.terminations.reshape(-1)


def _blocks(source: Source) -> Iterator[tuple[int, int, Block]]:
    width = sum(checks.kept_bytes(leaf) for leaf in source.leaves.values())
    size = max(1, _BLOCK_BYTES // max(1, width))
    for start in range(0, source.count, size):
        stop = min(start + size, source.count)
        yield start, stop, source.read(start, stop)


def _kept(block: Block, source: Source, start: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Observations and next observations of a block in the form in which they are stored, by key."""

    def keep(values: Mapping[str, Array], name: str) -> dict[str, Array]:
        return {
            key: checks.as_kept(values[key], leaf, what=checks.called(name, key), start=start)
            for key, leaf in source.leaves.items()
        }

    return keep(block.observations, "observations"), keep(block.next_observations, "next_observations")


def _equal(left: dict[str, Array], right: dict[str, Array]) -> NDArray[np.bool_]:
    """Whether rows are equal, bit for bit (0.0 and -0.0 are not)."""
    equal: NDArray[np.bool_] = np.concatenate([_bits(left[key]) == _bits(right[key]) for key in left], axis=1)
    return np.asarray(equal.all(axis=1))


def _bits(values: Array) -> Array:
    return np.ascontiguousarray(values).reshape(len(values), prod(values.shape[1:])).view(f"u{values.itemsize}")
