"""
Recorded transitions to learn from: ``OfflineDataset``.

A transition is (observation, action, reward, next observation, termination). Each observation is stored once, as float32
(uint8 stays uint8, discrete ones are int64), and batches are tensors on the CPU.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from torch import Generator, Tensor

from sb3_sparse.offline.data.blocks import array_source, write
from sb3_sparse.offline.data.minari import load_minari
from sb3_sparse.offline.data.replay import replay_source
from sb3_sparse.offline.data.storage import Arrays


class OfflineBatch(NamedTuple):
    """
    Transitions, one per row.

    :param observations: ``[n, *shape]``, in a dict for a Dict space: float32, uint8 of uint8 boxes, int64 of discrete spaces.
    :param actions: float32 ``[n, *shape]`` in the environment's own units; int64 ``[n, 1]`` of discrete spaces.
    :param rewards: float32 ``[n, 1]``.
    :param next_observations: As observations.
    :param terminations: float32 ``[n, 1]``: 1 where the next state is terminal. It is 0 where an episode was truncated, so a
        value function bootstraps from the next observation there.
    """

    observations: Tensor | dict[str, Tensor]
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor | dict[str, Tensor]
    terminations: Tensor


class OfflineDataset:
    """
    Recorded transitions. Use ``from_minari``, ``from_replay_buffer`` or ``from_arrays`` to create one.

    :param arrays: The arrays.
    :param observation_space: Space of the observations: Box, Discrete, or a Dict of these.
    :param action_space: Space of the actions: Box or Discrete.
    :param name: Id of the Minari dataset, if it is one.
    """

    def __init__(
        self,
        arrays: Arrays,
        *,
        observation_space: spaces.Space[object],
        action_space: spaces.Space[object],
        name: str | None = None,
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        self.name = name
        self._arrays = arrays
        # Views: torch gathers rows faster than numpy.
        self._index = th.from_numpy(arrays.index)
        self._observations = {key: th.from_numpy(array) for key, array in arrays.observations.items()}
        self._only = None if isinstance(observation_space, spaces.Dict) else self._observations[""]
        self._actions = th.from_numpy(arrays.actions)
        self._rewards = th.from_numpy(arrays.rewards)
        self._terminations = th.from_numpy(arrays.terminations)

    @classmethod
    def from_minari(
        cls,
        dataset_id: str,
        download: bool = False,
        *,
        max_transitions: int | None = None,
        memmap: str | Path | None = None,
        progress_bar: bool | None = None,
    ) -> "OfflineDataset":
        """
        Load a dataset of Minari, such as "mujoco/halfcheetah/expert-v0". A million transitions of that size take a second.

        Episodes are Minari's, also those that end without a flag.

        :param dataset_id: Its id, with its version.
        :param download: Download it if it is missing or incomplete.
        :param max_transitions: Read only so many, from the first one on; this may truncate the last episode. None for all.
        :param memmap: Folder for the arrays, as ``.npy`` files that stay there. None for memory, or for a temporary folder
            if they would not fit into 80 % of the available memory.
        :param progress_bar: Whether to show a progress bar; None shows it in a terminal.
        :return: The dataset
        :raises FileNotFoundError: if there is no such dataset and ``download`` is False
        :raises ConnectionError: if it cannot be downloaded
        :raises ImportError: if a package is missing
        :raises ValueError: if the dataset is damaged, empty or not supported
        """
        arrays, observation_space, action_space = load_minari(
            dataset_id, download=download, max_transitions=max_transitions, memmap=memmap, progress_bar=progress_bar
        )
        return cls(arrays, observation_space=observation_space, action_space=action_space, name=dataset_id)

    @classmethod
    def from_arrays(
        cls,
        *,
        observations: object,
        actions: ArrayLike,
        rewards: ArrayLike,
        next_observations: object,
        terminations: ArrayLike,
        truncations: ArrayLike | None = None,
        observation_space: spaces.Space[object],
        action_space: spaces.Space[object],
        memmap: str | Path | None = None,
    ) -> "OfflineDataset":
        """
        Take transitions in any order. An observation at which one transition ends and the next one begins, bit for bit, is
        stored once. An episode ends at every flag and after the last transition.

        :param observations: ``[n, *shape]``; of a Dict space, a dict of such arrays. The same holds for next observations.
        :param actions: ``[n, *shape]`` in the environment's own units; ``[n]`` or ``[n, 1]`` of a discrete space.
        :param rewards: ``[n]`` or ``[n, 1]``, as are all flags.
        :param next_observations: The observations after the actions. At the end of an episode, that is its last observation,
            and not the first one of the next episode.
        :param terminations: Whether the next state is terminal.
        :param truncations: Whether the episode was truncated there, for example by a time limit; None if no episode was.
        :param observation_space: Space of the observations: Box, Discrete, or a Dict of these.
        :param action_space: Space of the actions: Box or Discrete.
        :param memmap: Folder for the arrays, see ``from_minari``.
        :return: The dataset
        :raises ValueError: if spaces are not supported, or if arrays are empty, of different lengths, hold NaN or infinity,
            or do not fit the spaces
        """
        source = array_source(
            observations=observations,
            actions=actions,
            rewards=rewards,
            next_observations=next_observations,
            terminations=terminations,
            truncations=truncations,
            observation_space=observation_space,
            action_space=action_space,
        )
        arrays = write(source, memmap=memmap)
        return cls(arrays, observation_space=observation_space, action_space=action_space)

    @classmethod
    def from_replay_buffer(cls, buffer: ReplayBuffer, *, memmap: str | Path | None = None) -> "OfflineDataset":
        """
        Take the transitions that an off-policy algorithm has collected: ``from_replay_buffer(model.replay_buffer)``.

        Actions of a Box are unscaled: Stable-Baselines3 stores them scaled to [-1, 1]. Transitions are ordered by environment
        and time, and an episode ends with the data of each environment. The goals that hindsight replay relabels are not in a
        buffer, so they are not in the dataset.

        :param buffer: The buffer; it may hold dict observations and data of several environments.
        :param memmap: Folder for the arrays, see ``from_minari``.
        :return: The dataset
        :raises TypeError: if this is not a replay buffer
        :raises ValueError: if it is empty, its spaces are not supported, or it holds NaN or infinity
        """
        arrays = write(replay_source(buffer), memmap=memmap)
        return cls(arrays, observation_space=buffer.observation_space, action_space=buffer.action_space)

    def __len__(self) -> int:
        """Number of transitions."""
        return len(self._index)

    @property
    def arrays(self) -> Arrays:
        """The arrays, to be read in place."""
        return self._arrays

    @property
    def n_episodes(self) -> int:
        """Number of episodes, truncated ones included."""
        return len(self._arrays.ends)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, in memory or in files."""
        return self._arrays.nbytes

    def sample(self, batch_size: int, generator: Generator | None = None) -> OfflineBatch:
        """
        Sample transitions uniformly, with replacement.

        :param batch_size: Number of transitions.
        :param generator: CPU generator; None takes torch's global one.
        :return: The transitions
        :raises ValueError: if the number is less than 1
        """
        return self._take(self.draw(batch_size, generator))

    def draw(self, batch_size: int, generator: Generator | None = None) -> Tensor:
        """
        :param batch_size: Number of transitions.
        :param generator: CPU generator; None takes torch's global one.
        :return: The indices of the transitions that :meth:`sample` takes
        :raises ValueError: if the number is less than 1
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        return th.randint(len(self._index), (batch_size,), generator=generator)

    def batch(self, indices: ArrayLike | Tensor) -> OfflineBatch:
        """
        :param indices: Indices of transitions ``[n]``, from 0 to ``len(dataset) - 1``.
        :return: These transitions, in this order
        :raises IndexError: if an index is out of range, or not an integer
        """
        wanted = th.as_tensor(indices)
        if wanted.numel() == 0:
            wanted = wanted.to(th.int64)
        if wanted.is_floating_point() or wanted.dtype == th.bool or wanted.ndim != 1:
            raise IndexError(f"indices must be integers [n], got {wanted.dtype} {list(wanted.shape)}")
        if wanted.numel() and not 0 <= int(wanted.min()) <= int(wanted.max()) < len(self):
            raise IndexError(f"indices must lie in [0, {len(self)}), got {int(wanted.min())} to {int(wanted.max())}")
        return self._take(wanted.to("cpu", th.int64))

    def episode_returns(self) -> NDArray[np.float64]:
        """
        :return: The undiscounted return of each episode, ``[n_episodes]``
        """
        starts = np.concatenate(([0], self._arrays.ends[:-1]))
        returns: NDArray[np.float64] = np.add.reduceat(self._arrays.rewards[:, 0], starts, dtype=np.float64)
        return returns

    def __repr__(self) -> str:
        name = f"'{self.name}', " if self.name else ""
        return (
            f"OfflineDataset({name}{len(self)} transitions, {self.n_episodes} episodes, mean return "
            f"{self.episode_returns().mean():.2f}, {self.nbytes / 1e6:.1f} MB, observation_space={self.observation_space}, "
            f"action_space={self.action_space})"
        )

    def _take(self, indices: Tensor) -> OfflineBatch:
        rows = self._index.index_select(0, indices)
        after = rows + 1
        # Positional arguments are faster, which shows in the training of small networks.
        return OfflineBatch(
            self._observations_at(rows),
            self._actions.index_select(0, indices),
            self._rewards.index_select(0, indices),
            self._observations_at(after),
            self._terminations.index_select(0, indices),
        )

    def _observations_at(self, rows: Tensor) -> Tensor | dict[str, Tensor]:
        if self._only is not None:
            return self._only.index_select(0, rows)
        return {key: array.index_select(0, rows) for key, array in self._observations.items()}
