"""Whatever can be wrong with a dataset of Minari is said in one sentence, when it is loaded, with what to do about it."""

import json
import sys

import numpy as np
import pytest
from gymnasium import spaces

from sb3_sparse.offline.data import library
from sb3_sparse.offline.data.dataset import OfflineDataset
from tests.recordings import ACTIONS, BOX, check, make, record, transitions

h5py = pytest.importorskip("h5py")
minari = pytest.importorskip("minari")

NAME = "mujoco/halfcheetah/expert-v0"


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    return tmp_path / "datasets"


def load(**arguments):
    return OfflineDataset.from_minari(NAME, **arguments)


def test_missing_dataset(root):
    with pytest.raises(FileNotFoundError, match=r"no dataset 'mujoco/halfcheetah/expert-v0' .*download=True[^(]*$") as error:
        load()
    assert str(root) in str(error.value)
    for number in range(12):
        make(f"other/name-v{number}", record(BOX, ACTIONS, [1]))
    with pytest.raises(FileNotFoundError, match=r"\(there are: other/name-v0, other/name-v1, .*, and 2 more\)"):
        load()


@pytest.mark.parametrize("name", ["mujoco/halfcheetah/expert", "expert-v", "../expert-v0", "", "hf://farama/x-v0", "a b-v0"])
def test_no_name(name):
    with pytest.raises(ValueError, match="ends in a version"):
        OfflineDataset.from_minari(name, download=True)


def test_max_transitions_below_one():
    with pytest.raises(ValueError, match="max_transitions must be at least 1, got 0"):
        load(max_transitions=0)


@pytest.mark.parametrize("gone", ["metadata.json", "main_data.hdf5", "data"])
def test_interrupted_download(gone, monkeypatch):
    """Minari itself never downloads into a folder that is there."""
    episodes = record(BOX, ACTIONS)
    path = make(NAME, episodes)
    hidden, lost = path.parent / "hidden", path.parent / "data" if gone == "data" else path / gone
    lost.rename(hidden)
    expected = FileNotFoundError if gone == "data" else ValueError
    with pytest.raises(expected, match="download=True") as error:
        load()
    assert str(path.parent) in str(error.value) or gone == "data"

    def download(name, force_download):
        assert name == NAME and force_download
        hidden.rename(lost)

    monkeypatch.setattr(minari, "download_dataset", download)
    check(load(download=True), transitions(episodes))


def test_download(root, monkeypatch):
    """Only what is not there is downloaded, and a download that brings nothing is an error."""
    monkeypatch.setattr(minari, "download_dataset", lambda name, force_download: make(NAME, record(BOX, ACTIONS)))
    load(download=True)
    monkeypatch.setattr(minari, "download_dataset", None)
    load(download=True)
    (root / NAME / "data" / "main_data.hdf5").unlink()
    monkeypatch.setattr(minari, "download_dataset", lambda name, force_download: None)
    with pytest.raises(ValueError, match=r"not complete \(main_data.hdf5 is missing\)"):
        load(download=True)


@pytest.mark.parametrize("error", [EOFError("no route"), OSError("reset"), RuntimeError("429")])
def test_no_network(error, monkeypatch):
    def download(name, force_download):
        raise error

    monkeypatch.setattr(minari, "download_dataset", download)
    with pytest.raises(ConnectionError, match=f"could not be downloaded .*{error}.*check the network"):
        load(download=True)


def test_no_such_remote_dataset(monkeypatch):
    def download(name, force_download):
        raise ValueError("Couldn't find any version for dataset")

    monkeypatch.setattr(minari, "download_dataset", download)
    with pytest.raises(ValueError, match="Couldn't find any version"):
        load(download=True)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98])
def test_truncated_file(share):
    path = make(NAME, record(BOX, ACTIONS, [40] * 20)) / "main_data.hdf5"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"main_data\.hdf5' \(.*delete the folder .*download=True"):
        load()


def test_lost_episode():
    path = make(NAME, record(BOX, ACTIONS)) / "main_data.hdf5"
    with h5py.File(path, "a") as file:
        del file["episode_3"]
    with pytest.raises(ValueError, match=r"cannot be read from .*main_data\.hdf5' \(KeyError"):
        load()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"minari_version": "99.0.0"}, "written by Minari 99.0.0.*pip install --upgrade minari"),
        ({"total_steps": 0}, "is empty: a dataset needs"),
        ({"total_steps": 19}, "more transitions than its metadata.json says"),
        ({"total_steps": 21}, "20 transitions, but 21 or more by its metadata.json"),
        ({"data_format": "stone"}, "cannot be read.*stone"),
        ({"dataset_id": 7}, "cannot be read"),
    ],
)
def test_metadata(change, match):
    path = make(NAME, record(BOX, ACTIONS)) / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=match):
        load()


def test_damaged_metadata():
    path = make(NAME, record(BOX, ACTIONS)) / "metadata.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(ValueError, match=r"not complete \(metadata.json is damaged\)"):
        load()


def cut(field):
    return lambda episode: episode._replace(**{field: getattr(episode, field)[:-1]})


def fill(field, value):
    return lambda episode: episode._replace(**{field: np.full_like(getattr(episode, field), value)})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            cut("observations"),
            "episode 1 of 'mujoco/halfcheetah/expert-v0' has 7 actions and 7 observations, where 8 are needed",
        ),
        (cut("actions"), "episode 1 of .* has 7 rewards and 6 actions"),
        (cut("truncations"), "episode 1 of .* has 7 rewards and 6 truncations"),
        (fill("observations", np.nan), "observations of episode 1 of .* hold NaN.* index 0"),
        (fill("actions", np.inf), "actions of episode 1 of .* hold NaN"),
        (fill("rewards", np.nan), "rewards of episode 1 of .* hold NaN"),
        (lambda episode: episode._replace(actions=episode.actions[:, :1]), r"actions of episode 1 of .* got \[1\]"),
    ],
)
def test_bad_episode(change, match):
    episodes = record(BOX, ACTIONS)
    episodes[1] = change(episodes[1])
    make(NAME, episodes)
    with pytest.raises(ValueError, match=match):
        load()


def test_unsupported_space():
    space = spaces.MultiBinary(3)
    make(NAME, record(space, ACTIONS), space)
    with pytest.raises(ValueError, match=r"MultiBinary\(3\) are not supported"):
        load()


@pytest.mark.parametrize("name", ["minari.storage", "tqdm", "h5py"])
def test_missing_package(name, monkeypatch):
    make(NAME, record(BOX, ACTIONS))
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install sb3_sparse\[offline\]"):
        load()


@pytest.mark.parametrize("name", ["PIL", "h5py", "mujoco"])
def test_missing_package_of_minari(name, tmp_path):
    """A package that an environment lacks is not ours to explain."""
    with pytest.raises(ImportError, match="sb3_sparse" if name != "mujoco" else "^No module named 'mujoco'$"):
        with library.explained(NAME, tmp_path):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
