"""Recorded episodes for tests of offline data, and what a dataset must make of them: one transition after the other."""

import warnings
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

BOX = spaces.Box(-np.inf, np.inf, (3,), np.float64)
PIXELS = spaces.Box(0, 255, (2, 4, 4), np.uint8)
MANY = spaces.Dict({"image": PIXELS, "state": BOX, "where": spaces.Discrete(5, start=2)})
#: Bounds that are not symmetric: scaled actions cannot pass for actions.
ACTIONS = spaces.Box(np.float32([-1, 0]), np.float32([3, 0.5]))
SPACES = {
    "box": (BOX, ACTIONS),
    "pixels": (PIXELS, spaces.Discrete(3, start=-1)),
    "discrete": (spaces.Discrete(7), spaces.Discrete(4)),
    "dict": (MANY, spaces.Box(-1, 1, (2, 2), np.float64)),
}
#: Unequal lengths; the first one terminates, the second one is truncated, the third one is cut off, and so on.
LENGTHS = (4, 7, 3, 1, 5)


class Episode(NamedTuple):
    """``T`` transitions, so ``T + 1`` observations."""

    observations: object
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray


def stack(items):
    """One array, or a dict of arrays, out of what environments give one by one."""
    items = list(items)
    if isinstance(items[0], dict):
        return {key: np.stack([item[key] for item in items]) for key in items[0]}
    return np.stack(items)


def at(values, index):
    return {key: value[index] for key, value in values.items()} if isinstance(values, dict) else values[index]


def record(observation_space, action_space, lengths=LENGTHS, seed=0):
    """Episodes of random observations and actions."""
    observation_space.seed(seed)
    action_space.seed(seed)
    random = np.random.default_rng(seed)
    episodes = []
    for number, length in enumerate(lengths):
        flags = np.zeros((2, length), dtype=bool)
        flags[:, -1] = number % 3 == 0, number % 3 == 1
        episodes.append(
            Episode(
                observations=stack(observation_space.sample() for _ in range(length + 1)),
                actions=stack(action_space.sample() for _ in range(length)),
                rewards=random.normal(size=length),
                terminations=flags[0],
                truncations=flags[1],
            )
        )
    return episodes


def transitions(episodes):
    """All transitions as arrays, gathered by a loop."""
    steps = [(episode, step) for episode in episodes for step in range(len(episode.rewards))]
    return {
        "observations": stack(at(episode.observations, step) for episode, step in steps),
        "actions": stack(episode.actions[step] for episode, step in steps),
        "rewards": stack(episode.rewards[step] for episode, step in steps),
        "next_observations": stack(at(episode.observations, step + 1) for episode, step in steps),
        "terminations": stack(episode.terminations[step] for episode, step in steps),
        "truncations": stack(episode.truncations[step] for episode, step in steps),
    }


def make(name, episodes, observation_space=BOX, action_space=ACTIONS, *, infos=None, **arguments):
    """Write a dataset of Minari, and return the folder of its data."""
    import minari
    from minari.data_collector.episode_buffer import EpisodeBuffer

    made = [EpisodeBuffer(**episode._asdict(), infos=infos) for episode in episodes]
    with warnings.catch_warnings():
        # It misses authors and descriptions.
        warnings.simplefilter("ignore")
        dataset = minari.create_dataset_from_buffers(
            name, made, observation_space=observation_space, action_space=action_space, **arguments
        )
    return dataset.storage.data_path


def check(data, expected, places=None):
    """A dataset holds these transitions at these places (everywhere, in order), to the last bit and in the promised types."""
    count = len(expected["rewards"])
    places = np.arange(count) if places is None else places
    batch = data.batch(places)
    _check_observations(batch.observations, expected["observations"], data.observation_space)
    _check_observations(batch.next_observations, expected["next_observations"], data.observation_space)
    if isinstance(data.action_space, spaces.Discrete):
        _check_tensor(batch.actions, np.int64, (count, 1), expected["actions"])
    else:
        _check_tensor(batch.actions, np.float32, (count, *data.action_space.shape), expected["actions"])
    _check_tensor(batch.rewards, np.float32, (count, 1), expected["rewards"])
    _check_tensor(batch.terminations, np.float32, (count, 1), expected["terminations"])


def _check_observations(tensors, expected, space):
    if isinstance(space, spaces.Dict):
        assert list(tensors) == list(space)
        for key in space:
            _check_observations(tensors[key], expected[key], space[key])
        return
    dtype = np.int64 if isinstance(space, spaces.Discrete) else np.uint8 if space.dtype == np.uint8 else np.float32
    _check_tensor(tensors, dtype, (len(expected), *space.shape), expected)


def _check_tensor(tensor, dtype, shape, expected):
    assert tensor.device.type == "cpu" and tensor.numpy().dtype == dtype and tensor.shape == shape
    assert tensor.numpy().tobytes() == np.asarray(expected).astype(dtype).reshape(shape).tobytes()
