"""OfflineDataset from arrays: every transition comes back as it came in, in whatever order, and bad data never come in."""

import tracemalloc

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_sparse.offline.data import storage
from sb3_sparse.offline.data.dataset import OfflineDataset
from tests.recordings import BOX, LENGTHS, MANY, SPACES, at, check, record, transitions

N = sum(LENGTHS)


def dataset(name="box", **changes):
    """The recorded episodes of a case, with some arrays replaced."""
    observation_space, action_space = SPACES[name]
    arrays = transitions(record(observation_space, action_space))
    arguments = {**arrays, "observation_space": observation_space, "action_space": action_space, **changes}
    return OfflineDataset.from_arrays(**arguments)


@pytest.fixture(params=SPACES)
def case(request):
    return request.param


@pytest.fixture
def arrays():
    return transitions(record(*SPACES["box"]))


def test_transitions(case):
    data = dataset(case)
    check(data, transitions(record(*SPACES[case])))
    assert len(data) == N and data.name is None
    assert (data.observation_space, data.action_space) == SPACES[case]


@settings(max_examples=60, deadline=None)
@given(
    case=st.sampled_from(sorted(SPACES)),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    shuffle=st.booleans(),
    block=st.sampled_from([1, 100, 2**21]),
    seed=st.integers(0, 100),
)
def test_whatever_comes_in_comes_out(case, lengths, shuffle, block, seed):
    """For all episodes, in order or not, and however small the blocks are in which they are read."""
    episodes = record(*SPACES[case], lengths, seed)
    arrays = transitions(episodes)
    order = np.random.default_rng(seed).permutation(sum(lengths)) if shuffle else np.arange(sum(lengths))
    shuffled = {name: at(values, order) for name, values in arrays.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sb3_sparse.offline.data.blocks._BLOCK_BYTES", block)
        data = dataset(case, **shuffled)
    check(data, shuffled)
    # An episode ends at a flag and at the end: not where one was cut off or where the order breaks.
    ends = np.unique([*1 + np.flatnonzero(shuffled["terminations"] | shuffled["truncations"]), len(order)])
    returns = [part.sum() for part in np.split(shuffled["rewards"].astype(np.float32).astype(float), ends[:-1])]
    assert data.n_episodes == len(ends)
    assert data.episode_returns() == pytest.approx(returns)


def test_observations_are_kept_once(arrays):
    """An episode takes one more than it has transitions; what is no successor takes one more row."""
    data, step = dataset(), 3 * 4 + 4 + 2 * 4 + 4 + 4
    assert data.nbytes == N * step + len(LENGTHS) * 3 * 4 + 8 * data.n_episodes
    backwards = dataset(**{name: values[::-1] for name, values in arrays.items()})
    assert backwards.nbytes == N * (step + 3 * 4) + 8 * backwards.n_episodes


def test_minus_zero_is_not_zero(arrays):
    arrays["observations"][:] = 0.0
    arrays["next_observations"][:] = 0.0
    arrays["next_observations"][2] = -0.0
    check(dataset(**arrays), arrays)


def test_accepted_forms(arrays):
    """Columns, 0 and 1, lists, tensors, no truncations; a terminal state at the time limit is terminal."""
    both = arrays["terminations"].copy()
    both[-1] = arrays["truncations"][-1] = True
    changed = {
        "observations": arrays["observations"].tolist(),
        "actions": th.as_tensor(arrays["actions"]),
        "rewards": arrays["rewards"][:, None],
        "terminations": both[:, None].astype(np.float32),
    }
    check(dataset(**changed), {**arrays, "terminations": both})
    assert dataset(truncations=None).n_episodes == 3


def test_repr():
    text = repr(dataset())
    for part in ("20 transitions", "4 episodes", "mean return", "MB", str(SPACES["box"][0]), str(SPACES["box"][1])):
        assert part in text


def test_sample_is_uniform_and_aligned():
    data = dataset("dict")
    rewards = data.batch(np.arange(N)).rewards[:, 0]
    batch = data.sample(40_000, th.Generator().manual_seed(3))
    places = (batch.rewards == rewards).int().argmax(dim=1)
    check(data, {name: at(values, places.numpy()) for name, values in transitions(record(*SPACES["dict"])).items()}, places)
    assert all(th.equal(batch.observations[key], data.batch(places).observations[key]) for key in MANY)
    assert th.equal(batch.actions, data.batch(places).actions)
    assert th.equal(batch.terminations, data.batch(places).terminations)
    assert all(th.equal(batch.next_observations[key], data.batch(places).next_observations[key]) for key in MANY)
    # Chi squared with 19 degrees of freedom: below 43.8 in 999 of 1000 cases.
    counts = places.bincount(minlength=N).double()
    assert float(((counts - 2000) ** 2 / 2000).sum()) < 43.8


def test_sample_follows_its_generator():
    data = dataset()
    first, second = (data.sample(16, th.Generator().manual_seed(1)) for _ in range(2))
    assert all(th.equal(left, right) for left, right in zip(first, second, strict=True))
    th.manual_seed(5)
    third = data.sample(16)
    th.manual_seed(5)
    assert th.equal(third.rewards, data.sample(16).rewards)
    assert not th.equal(third.rewards, data.sample(16).rewards)
    with pytest.raises(ValueError, match="at least 1"):
        data.sample(0)


@pytest.mark.parametrize("indices", [[3, 0, 3], np.array([3, 0, 3], np.int32), th.tensor([3, 0, 3])])
def test_batch(indices, arrays):
    check(dataset(), {name: values[[3, 0, 3]] for name, values in arrays.items()}, indices)
    assert dataset().batch([]).rewards.shape == (0, 1)


@pytest.mark.parametrize("indices", [[-1], [N], [0.0], [True, False], [[0]], 0])
def test_batch_without_such_transitions(indices):
    with pytest.raises(IndexError, match="indices must"):
        dataset().batch(indices)


def test_memmap(tmp_path, case):
    """Files stay, and a dataset that reads them keeps its data when another one takes their place."""
    data = dataset(case, memmap=tmp_path / "new")
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert {"index.npy", "actions.npy", "rewards.npy", "terminations.npy"} < names
    assert sum(np.load(path).nbytes for path in (tmp_path / "new").iterdir()) == data.nbytes - 8 * data.n_episodes
    arrays = transitions(record(*SPACES[case]))
    dataset(case, memmap=str(tmp_path / "new"), rewards=np.zeros(N))
    check(data, arrays)
    del data
    assert {path.name for path in (tmp_path / "new").iterdir()} == names


def test_temporary_files(tmp_path, monkeypatch, arrays):
    """What does not fit into memory goes to files that go away with the dataset."""
    monkeypatch.setattr(storage.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(storage, "available_memory", lambda: 500)
    data = dataset()
    assert len(list(tmp_path.iterdir())) == 1
    check(data, arrays)
    del data
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: storage.shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(OSError, match="memmap="):
        dataset()
    assert list(tmp_path.iterdir()) == []


def test_available_memory(tmp_path, monkeypatch):
    assert 2**20 < storage.available_memory() < 2**50
    for name, text in {"memory.max": "1000", "memory.current": "900", "memory.stat": "anon 1\ninactive_file 250"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(storage, "_CGROUP", tmp_path)
    assert storage.available_memory() == 350
    (tmp_path / "memory.max").write_text("max")
    assert storage.available_memory() > 2**20
    monkeypatch.setattr(storage, "_MEMINFO", tmp_path / "none")
    assert storage.available_memory() is None or storage.available_memory() > 2**20


def test_memory_while_loading():
    random = np.random.default_rng(0)
    observations = random.normal(size=(50_001, 17))
    tracemalloc.start()
    data = OfflineDataset.from_arrays(
        observations=observations[:-1],
        actions=np.zeros((50_000, 2), np.float32),
        rewards=observations[1:, 0],
        next_observations=observations[1:],
        terminations=np.zeros(50_000, bool),
        observation_space=spaces.Box(-9, 9, (17,)),
        action_space=spaces.Box(-1, 1, (2,)),
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Blocks of 2 MB have a size of their own.
    assert data.nbytes < 4.7e6 and peak < 1.3 * data.nbytes + 10e6


def changed(values, index, value):
    copy = np.array(values)
    copy[index] = value
    return copy


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda a: {"observations": changed(a["observations"], 3, np.nan)}, r"^observations hold NaN.* index 3"),
        (lambda a: {"next_observations": changed(a["observations"], 4, np.inf)}, r"^next_observations hold .* index 4"),
        (lambda a: {"observations": changed(a["observations"], 5, 1e300)}, "beyond float32, first at index 5"),
        (lambda a: {"actions": changed(a["actions"], (6, 1), np.nan)}, r"^actions hold NaN.* index 6"),
        (lambda a: {"rewards": changed(a["rewards"], 7, -np.inf)}, r"^rewards hold NaN.* index 7"),
        (lambda a: {"rewards": a["rewards"][:-1]}, "one entry per transition.*'rewards': 19"),
        (lambda a: {"truncations": a["truncations"][:-1]}, "one entry per transition.*'truncations': 19"),
        (lambda a: {"rewards": np.stack([a["rewards"]] * 2, 1)}, r"rewards must have the shape \[n\] or \[n, 1\]"),
        (lambda a: {"rewards": 1.0}, "one entry per transition"),
        (lambda a: {"observations": a["observations"][:, :2]}, r"the shape \[3\] in the space .* got \[2\]"),
        (lambda a: {"actions": a["actions"][:, :1]}, r"the shape \[2\] in the space .* got \[1\]"),
        (lambda a: {"observations": a["observations"].astype(str)}, "must be numbers"),
        (lambda a: {"terminations": changed(a["rewards"], 0, 2)}, "terminations must be booleans"),
        (lambda a: {"truncations": changed(a["rewards"], 0, np.nan)}, "truncations must be booleans"),
        (lambda a: {"observations": {"state": a["observations"]}}, r"keys \['state'\].*not a Dict"),
        (lambda a: {"observation_space": MANY}, r"keys \['image', 'state', 'where'\].*got a ndarray"),
        (lambda a: {name: values[:0] for name, values in a.items()}, "the dataset is empty"),
        (lambda a: {"action_space": spaces.Discrete(2)}, "integers in the space Discrete|shape"),
        (lambda a: {"observation_space": spaces.Box(0, 255, (3,), np.uint8)}, r"\.astype\(np.uint8\)"),
        (lambda a: {"action_space": spaces.Discrete(2), "actions": a["rewards"]}, r"\.astype\(int\)"),
        (lambda a: {"action_space": spaces.Discrete(2), "actions": np.full(N, 2)}, "hold 2 at index 0.*Discrete"),
    ],
)
def test_bad_arrays(change, match, arrays):
    with pytest.raises(ValueError, match=match):
        dataset(**change(arrays))


@pytest.mark.parametrize(
    "space",
    [
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
        spaces.Tuple([BOX]),
        spaces.Text(5),
        spaces.Dict({"deep": spaces.Dict({"state": BOX})}),
        spaces.Dict({}),
    ],
)
def test_unsupported_spaces(space):
    with pytest.raises(ValueError, match=r"(?s)observations .*not supported: use Box, Discrete"):
        dataset(observation_space=space)
    with pytest.raises(ValueError, match=r"(?s)actions .*not supported: use Box or Discrete"):
        dataset(action_space=space)


def test_actions_outside_of_their_box(arrays):
    actions = np.array(arrays["actions"])
    actions[:3] = 7.0
    with pytest.warns(UserWarning, match="3 of 20 actions lie outside") as caught:
        data = dataset(actions=actions)
    check(data, {**arrays, "actions": actions})
    assert len(caught) == 1
    # Rounding is no reason to warn.
    dataset(actions=changed(arrays["actions"], (0, 1), np.nextafter(np.float32(0.5), np.float32(1))))
