"""
Datasets of Minari: found or downloaded, checked, and read episode by episode into arrays that are allocated once.

An episode of ``T`` transitions has ``T + 1`` observations: action ``t`` was taken at observation ``t`` and led to
observation ``t + 1``. The arrays of a dataset have the same layout. Infos are not read.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from sb3_sparse.offline.data import checks
from sb3_sparse.offline.data.checks import Leaf
from sb3_sparse.offline.data.library import explained, find, package
from sb3_sparse.offline.data.storage import Arrays, allocate

_MAIN_FILE = "main_data.hdf5"
#: Bytes of observations that are read at a time.
_BLOCK_BYTES = 2**21
#: Size of HDF5's metadata cache, in bytes.
_CACHE_BYTES = 2**20


class _Episode(NamedTuple):
    """Raw data of an episode: arrays, or HDF5 datasets that become arrays when they are sliced."""

    number: int
    observations: dict[str, Any]
    actions: Any
    rewards: Any
    terminations: Any
    truncations: Any


def load_minari(
    dataset_id: str,
    *,
    download: bool,
    max_transitions: int | None,
    memmap: str | Path | None,
    progress_bar: bool | None,
) -> tuple[Arrays, spaces.Space[object], spaces.Space[object]]:
    """
    :param dataset_id: Id of the dataset, with its version.
    :param download: Download it if it is missing or incomplete.
    :param max_transitions: Read only so many, from the first one on; None for all.
    :param memmap: Folder for the arrays; None for memory.
    :param progress_bar: Whether to show a progress bar; None shows it in a terminal.
    :return: The arrays, the observation space and the action space
    :raises FileNotFoundError: if there is no such dataset and ``download`` is False
    :raises ConnectionError: if it cannot be downloaded
    :raises ImportError: if a package is missing
    :raises ValueError: if the dataset is damaged, empty or not supported
    """
    if max_transitions is not None and max_transitions < 1:
        raise ValueError(f"max_transitions must be at least 1, got {max_transitions}")
    tqdm = package("tqdm")
    folder = find(dataset_id, download=download)
    with explained(dataset_id, folder):
        dataset = package("minari").load_dataset(dataset_id)
        count = int(dataset.total_steps)
    leaves = checks.observation_leaves(dataset.observation_space)
    action_space = checks.action_leaf(dataset.action_space)
    if count == 0:
        raise ValueError(f"'{dataset_id}' is empty: a dataset needs at least one transition")
    wanted = count if max_transitions is None else min(count, max_transitions)
    # An episode takes one row more than it has transitions, and each episode that is read has at least one transition.
    rows = wanted + min(int(dataset.total_episodes), wanted)
    arrays = allocate(wanted, rows, leaves=leaves, action_space=action_space, memmap=memmap)
    bar = tqdm.tqdm(
        total=wanted,
        desc=dataset_id,
        unit=" transitions",
        unit_scale=True,
        disable=None if progress_bar is None else not progress_bar,
    )
    writer = _Writer(arrays, leaves, action_space, name=dataset_id)
    with bar, explained(dataset_id, folder):
        for episode in _episodes(dataset, leaves):
            bar.update(writer.add(episode, cut=wanted < count))
            if writer.count == wanted < count:
                break
    checks.warn_outside(writer.close(), wanted, action_space)
    return arrays, dataset.observation_space, dataset.action_space


class _Writer:
    """Writes one episode after the other into arrays that have room for all."""

    def __init__(self, arrays: Arrays, leaves: dict[str, Leaf], action_space: Leaf, *, name: str) -> None:
        self.count = 0
        self._rows = 0
        self._ends: list[int] = []
        self._outside = 0
        self._arrays = arrays
        self._leaves = leaves
        self._action_space = action_space
        self._name = name
        width = sum(array[:1].nbytes for array in arrays.observations.values())
        self._block = max(1, _BLOCK_BYTES // max(1, width))

    def add(self, episode: _Episode, *, cut: bool) -> int:
        """
        :param episode: An episode.
        :param cut: Leave out the transitions that the arrays have no room for.
        :return: The number of transitions that were written
        :raises ValueError: if it does not fit the spaces, or its parts differ in length
        """
        what = f"episode {episode.number} of '{self._name}'"
        steps = _check_lengths(episode, what)
        room = len(self._arrays.index) - self.count
        if steps > room:
            if not cut:
                raise ValueError(f"'{self._name}' holds more transitions than its metadata.json says: download it again")
            steps = room
        if steps == 0:
            return 0
        for start in range(0, steps, self._block):
            self._write(episode, start, min(start + self._block, steps), what)
        # One observation more than transitions: the one after the last action.
        for start in range(0, steps + 1, self._block):
            self._write_observations(episode, start, min(start + self._block, steps + 1), what)
        first = self.count
        self._arrays.index[first : first + steps] = np.arange(self._rows, self._rows + steps)
        self.count += steps
        self._rows += steps + 1
        self._ends.append(self.count)
        return steps

    def close(self) -> int:
        """
        :return: How many actions lie outside of their space
        :raises ValueError: if there were fewer transitions than the metadata promised
        """
        if self.count < (count := len(self._arrays.index)):
            raise ValueError(
                f"'{self._name}' holds {self.count} transitions, but {count} or more by its metadata.json: download it again"
            )
        self._arrays.ends = np.array(self._ends, dtype=np.int64)
        self._arrays.trim(self._rows)
        return self._outside

    def _write(self, episode: _Episode, start: int, stop: int, what: str) -> None:
        arrays, source, target = self._arrays, slice(start, stop), slice(self.count + start, self.count + stop)
        actions = checks.as_actions(
            np.asarray(episode.actions[source]), self._action_space, what=f"actions of {what}", start=start
        )
        rewards = checks.as_column(np.asarray(episode.rewards[source]), what=f"rewards of {what}")
        terminations = np.asarray(episode.terminations[source])
        arrays.actions[target] = actions
        arrays.rewards[target, 0] = checks.as_float(rewards, what=f"rewards of {what}", start=start)
        arrays.terminations[target, 0] = checks.as_flags(terminations, what=f"terminations of {what}")
        self._outside += checks.count_outside(actions, self._action_space)

    def _write_observations(self, episode: _Episode, start: int, stop: int, what: str) -> None:
        for key, leaf in self._leaves.items():
            values = np.asarray(episode.observations[key][start:stop])
            called = f"{checks.called('observations', key)} of {what}"
            target = self._arrays.observations[key][self._rows + start : self._rows + stop]
            target[:] = checks.as_kept(values, leaf, what=called, start=start)


def _check_lengths(episode: _Episode, what: str) -> int:
    """The number of transitions of an episode, if all its parts have the right length."""
    steps = len(episode.rewards)
    for name in ("actions", "terminations", "truncations"):
        if (length := len(getattr(episode, name))) != steps:
            raise ValueError(f"{what} has {steps} rewards and {length} {name}: record or download it again")
    for key, values in episode.observations.items():
        if len(values) != steps + 1:
            raise ValueError(
                f"{what} has {steps} actions and {len(values)} {checks.called('observations', key)}, where {steps + 1} are "
                "needed: the last one is the observation after the last action. Some old datasets lack it: use a newer "
                "version, or leave out the last transition of each episode and call OfflineDataset.from_arrays"
            )
    return steps


def _episodes(dataset: Any, leaves: dict[str, Leaf]) -> Iterator[_Episode]:
    """All episodes. HDF5 files with plain arrays are read directly, because Minari would read all infos too."""
    file_path = Path(dataset.storage.data_path) / _MAIN_FILE
    if file_path.is_file():
        with package("h5py").File(file_path, "r") as file:
            cache = file.id.get_mdc_config()
            # Every episode is read once. HDF5 would cache the metadata of all, which takes up to a third of the data's size.
            cache.set_initial_size, cache.min_size, cache.initial_size, cache.max_size = True, *3 * (_CACHE_BYTES,)
            file.id.set_mdc_config(cache)
            if _is_plain(file["episode_0"]["observations"], leaves):
                for number in range(dataset.total_episodes):
                    yield _from_group(number, file[f"episode_{number}"], leaves)
                return
    for episode in dataset.iterate_episodes():
        observations = checks.split_observations(episode.observations, leaves, f"observations of episode {episode.id}")
        columns = episode.actions, episode.rewards, episode.terminations, episode.truncations
        yield _Episode(episode.id, observations, *columns)


def _from_group(number: int, group: Any, leaves: dict[str, Leaf]) -> _Episode:
    observations = group["observations"]
    return _Episode(
        number=number,
        observations={key: observations[key] if key else observations for key in leaves},
        actions=group["actions"],
        rewards=group["rewards"],
        terminations=group["terminations"],
        truncations=group["truncations"],
    )


def _is_plain(observations: Any, leaves: dict[str, Leaf]) -> bool:
    """Whether observations are stored as arrays of their own shape, rather than as JPEG."""
    found = [observations[key] if key else observations for key in leaves]
    return all(getattr(stored, "shape", (0,))[1:] == leaf.shape for stored, leaf in zip(found, leaves.values(), strict=True))
