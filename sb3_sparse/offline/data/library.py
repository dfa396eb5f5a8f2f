"""
Minari on this machine: finds a dataset or downloads it, checks that it is complete, and explains how to mend it if it is not.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

_NAME = re.compile(r"(?:[-\w]+/)*[-\w]+-v\d+", re.ASCII)
#: Packages that Minari imports when it needs them.
_PACKAGES = ("h5py", "PIL", "huggingface_hub")
#: The error that lists the datasets on this machine names at most so many.
_NAMES_SHOWN = 10


def package(name: str) -> ModuleType:
    """
    :param name: A module that the extra ``offline`` brings.
    :return: The module
    :raises ImportError: if it is not installed
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise _missing(error) from error


def find(dataset_id: str, *, download: bool) -> Path:
    """
    :param dataset_id: Id of a dataset, with its version.
    :param download: Download it if it is missing or incomplete.
    :return: Its folder
    :raises FileNotFoundError: if it is missing and ``download`` is False
    :raises ConnectionError: if it cannot be downloaded
    :raises ImportError: if a package is missing
    :raises ValueError: if the id is malformed, or the dataset is incomplete, or too new for the installed Minari
    """
    if not _NAME.fullmatch(dataset_id):
        raise ValueError(
            f"'{dataset_id}' is not the id of a Minari dataset, which ends in a version, as in 'mujoco/halfcheetah/expert-v0'"
        )
    root: Path = package("minari.storage").get_dataset_path()
    folder = root / dataset_id
    missing = _missing_part(folder)
    if missing is not None and download:
        # Minari does not download into an existing folder unless it is forced to.
        _download(dataset_id, force=folder.exists())
        missing = _missing_part(folder)
    if missing is None:
        _check_version(dataset_id, folder)
        return folder
    if not (folder / "data").exists():
        raise FileNotFoundError(
            f"there is no dataset '{dataset_id}' in '{root}': download it with download=True, or set MINARI_DATASETS_PATH to "
            f"the folder that it is in{_names(root)}"
        )
    raise ValueError(
        f"the dataset '{dataset_id}' is not complete ({missing}), as after an interrupted download: load it with "
        f"download=True to fetch it again, or delete the folder '{folder}'"
    )


@contextmanager
def explained(dataset_id: str, folder: Path) -> Iterator[None]:
    """
    Turn the errors of Minari, h5py and others while a dataset is read into one clear sentence. Our own errors pass unchanged.

    :param dataset_id: Name of the dataset.
    :param folder: Its folder.
    :raises ImportError: if a package is missing
    :raises ValueError: if the dataset cannot be read
    """
    try:
        yield
    except ImportError as error:
        # Another import may fail too: an environment may lack its simulator.
        raise (_missing(error) if any(name in f"{error.name} {error}" for name in _PACKAGES) else error) from error
    except (MemoryError, Warning):
        raise
    except Exception as error:
        # Our errors and Minari's clear ones are plain ValueErrors; those of pyarrow and json are subclasses.
        if type(error) is ValueError:
            raise
        file = next((folder / "data").glob("*.hdf5"), folder / "data")
        raise ValueError(
            f"the dataset '{dataset_id}' cannot be read from '{file}' ({type(error).__name__}: {error}): if it is damaged, "
            f"delete the folder '{folder}' and load it again with download=True, or record it again"
        ) from error


def _missing(error: ImportError) -> ImportError:
    return ImportError(f"datasets of Minari need a package that is missing ({error}): pip install sb3_sparse[offline]")


def _missing_part(folder: Path) -> str | None:
    """The missing or damaged part of a dataset; None if it is complete."""
    data = folder / "data"
    try:
        metadata = json.loads((data / "metadata.json").read_text())
        data_format = metadata["data_format"]
    except FileNotFoundError:
        return "metadata.json is missing"
    except (ValueError, KeyError, TypeError):
        return "metadata.json is damaged"
    if data_format == "hdf5" and not (data / "main_data.hdf5").is_file():
        return "main_data.hdf5 is missing"
    return None


def _check_version(dataset_id: str, folder: Path) -> None:
    minari = package("minari")
    written_by = json.loads((folder / "data" / "metadata.json").read_text()).get("minari_version")
    if written_by not in minari.supported_dataset_versions:
        raise ValueError(
            f"the dataset '{dataset_id}' was written by Minari {written_by}, which Minari {minari.__version__} cannot read: "
            "pip install --upgrade minari, or use another version of the dataset"
        )


def _download(dataset_id: str, *, force: bool) -> None:
    try:
        # Minari prints a message, and huggingface_hub shows progress bars.
        package("minari").download_dataset(dataset_id, force_download=force)
    except ImportError as error:
        raise _missing(error) from error
    except (MemoryError, Warning):
        raise
    except Exception as error:
        if type(error) is ValueError:  # Minari does not have this dataset, or cannot read it.
            raise
        raise ConnectionError(
            f"the dataset '{dataset_id}' could not be downloaded ({type(error).__name__}: {error}): check the network and the "
            "space on the disk, then call again; the parts that have arrived are not fetched twice"
        ) from error


def _names(root: Path) -> str:
    """The datasets on this machine, as the end of a sentence."""
    found = []
    for folder, subfolders, _ in os.walk(root):
        if "data" in subfolders:
            found.append(Path(folder).relative_to(root).as_posix())
            subfolders.clear()
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
    if not found:
        return ""
    more = f", and {len(found) - _NAMES_SHOWN} more" if len(found) > _NAMES_SHOWN else ""
    return f" (there are: {', '.join(sorted(found)[:_NAMES_SHOWN])}{more})"
