"""OfflineDataset from Minari: every transition of every episode at its place."""

import importlib.util
import time
import tracemalloc

import numpy as np
import pytest
from gymnasium import spaces

from sb3_sparse.offline.data.dataset import OfflineDataset
from tests.recordings import ACTIONS, BOX, LENGTHS, SPACES, check, make, record, transitions

h5py = pytest.importorskip("h5py")
minari = pytest.importorskip("minari")

NAME = "mujoco/halfcheetah/expert-v0"
FORMATS = ["hdf5", *["arrow", "parquet"] * (importlib.util.find_spec("pyarrow") is not None)]


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))


def load(**arguments):
    return OfflineDataset.from_minari(NAME, **arguments)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("case", SPACES)
def test_transitions(case, data_format):
    episodes = record(*SPACES[case])
    make(NAME, episodes, *SPACES[case], data_format=data_format)
    data = load()
    check(data, transitions(episodes))
    assert data.n_episodes == len(LENGTHS) and data.name == NAME
    assert data.episode_returns() == pytest.approx([episode.rewards.sum() for episode in episodes])
    assert (data.observation_space, data.action_space) == SPACES[case]


@pytest.mark.parametrize("name", ["plain-v0", "two/plain-v12", "a_1/b-2/c_3-d-v1"])
def test_names(name):
    episodes = record(BOX, ACTIONS)
    make(name, episodes)
    data = OfflineDataset.from_minari(name)
    check(data, transitions(episodes))
    assert f"'{name}'" in repr(data)


def test_infos_are_not_read(monkeypatch):
    episodes = record(BOX, ACTIONS, (6, 6))
    make(NAME, episodes, infos={"position": np.zeros(7)})
    monkeypatch.setattr(minari.MinariDataset, "iterate_episodes", None)
    check(load(), transitions(episodes))


def test_blocks(monkeypatch):
    """An episode that is read in parts."""
    monkeypatch.setattr("sb3_sparse.offline.data.minari._BLOCK_BYTES", 24)
    episodes = record(BOX, ACTIONS)
    make(NAME, episodes)
    check(load(), transitions(episodes))


def test_images():
    """JPEG is not exact: as Minari decodes it."""
    space = spaces.Box(0, 255, (32, 32, 3), np.uint8)
    make(NAME, record(space, ACTIONS), space)
    check(load(), transitions(list(minari.load_dataset(NAME).iterate_episodes())))


@pytest.mark.parametrize("wanted", [1, 4, 5, 11, 19, 20, 10**6])
def test_max_transitions(wanted):
    episodes = record(BOX, ACTIONS)
    make(NAME, episodes)
    data = load(max_transitions=wanted)
    first = {name: values[:wanted] for name, values in transitions(episodes).items()}
    check(data, first)
    started = np.searchsorted(np.cumsum(LENGTHS), min(wanted, sum(LENGTHS))) + 1
    assert data.n_episodes == started
    assert data.nbytes == len(data) * 20 + (len(data) + started) * 12 + started * 8


def test_memmap(tmp_path):
    episodes = record(*SPACES["dict"])
    make(NAME, episodes, *SPACES["dict"])
    data = load(memmap=tmp_path / "arrays")
    check(data, transitions(episodes))
    assert (tmp_path / "arrays" / "observations.image.npy").exists()


def test_progress_bar(capsys):
    make(NAME, record(BOX, ACTIONS))
    load()
    load(progress_bar=False)
    assert capsys.readouterr().err == ""
    load(progress_bar=True)
    assert f"{NAME}: 100%" in capsys.readouterr().err


def test_speed_and_memory():
    """200 000 transitions of the size of HalfCheetah take little longer than reading the bare arrays with h5py."""
    space, action_space = spaces.Box(-np.inf, np.inf, (17,), np.float64), spaces.Box(-1, 1, (6,))
    random = np.random.default_rng(0)
    one = record(space, action_space, [1000])[0]
    episodes = [one._replace(observations=random.normal(size=(1001, 17))) for _ in range(200)]
    path = make(NAME, episodes, space, action_space, infos={"position": np.zeros(1001)}) / "main_data.hdf5"

    def bare():
        with h5py.File(path) as file:
            for number in range(200):
                for name in ("observations", "actions", "rewards", "terminations", "truncations"):
                    file[f"episode_{number}"][name][()]

    def seconds(function):
        started = time.process_time()
        function()
        return time.process_time() - started

    load()
    assert min(seconds(load) for _ in range(3)) < 4 * min(seconds(bare) for _ in range(3))
    # What numpy and Python allocate: HDF5 has its own memory, which does not grow with the data.
    tracemalloc.start()
    data = load()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * data.nbytes + 2e6


def test_actions_outside_of_their_box():
    episodes = record(BOX, ACTIONS)
    for episode in episodes:
        episode.actions[0] = -9.0
    make(NAME, episodes)
    with pytest.warns(UserWarning, match="5 of 20 actions lie outside") as caught:
        data = load()
    assert len(caught) == 1 and caught[0].filename == __file__
    check(data, transitions(episodes))
