"""Files of an exported policy other than the compact one: a C header, an ONNX graph and a figure; and where they go."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from sb3_sparse.export import Compressed, Original
from sb3_sparse.export.c.header import to_c
from sb3_sparse.export.onnx import to_onnx
from sb3_sparse.export.report import save_densities


def write_files(stem: str, original: Original, compressed: Compressed, out: Path, *, masks: bool = False) -> list[str]:
    """
    Write the files that can be written; print the reason where a package is missing or the form cannot hold this policy.

    :param stem: Name of the agent's zip, without its ending.
    :param original: The policy as it was trained.
    :param compressed: The exported policy.
    :param out: The folder.
    :param masks: Whether the header and the graph take masks of the actions.
    :return: Names of the files
    """
    network = compressed.network
    forms: dict[str, Callable[[Path], object]] = {
        f"{stem}.h": lambda file: file.write_text(to_c(network, name=c_name(stem), masks=masks)),
        f"{stem}.onnx": lambda file: file.write_bytes(to_onnx(network, masks=masks)),
        "densities.png": lambda file: save_densities(file, compressed.report, original.network, network),
    }
    written = []
    for name, write in forms.items():
        try:
            write(out / name)
            written.append(name)
        except (ImportError, ValueError) as error:
            # A file of an earlier run would not belong to the rest.
            (out / name).unlink(missing_ok=True)
            print(f"no {name}: {error}", flush=True)
    return written


def c_name(stem: str) -> str:
    """
    :param stem: Name of a file.
    :return: The name as a C identifier, so that headers of several agents can be included together
    """
    name = re.sub(r"\W+", "_", stem.lower(), flags=re.ASCII).strip("_")
    return name if re.match("[a-z]", name) and name != "sb3s" else f"policy_{name}".rstrip("_")


def as_json(value: object) -> object:
    """
    :param value: An argument of an environment.
    :return: The same, or its text where JSON cannot hold it
    """
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value


def check_writable(out: Path) -> None:
    """
    Before minutes of work, not after.

    :param out: A folder to write to, which need not exist.
    :raises ValueError: if it cannot be written to
    """
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not existing.is_dir():
        raise ValueError(f"{out} cannot be the output folder: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{out} cannot be the output folder: {existing} cannot be written to")
