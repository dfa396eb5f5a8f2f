"""
RLtools' inference as a contestant of ``mcu.py``: its own C++ headers, compiled for a board with a few lines around them
(``mcu/rltools.cpp``). pip installs the headers:

    pip install --no-deps --target rltools rltools==2.2.1
"""

import sys
import tempfile
from dataclasses import asdict, dataclass, field
from importlib.metadata import Distribution, distributions
from pathlib import Path

import numpy as np
from stable_baselines3 import SAC

from benchmarks.deployment.dense_c import C, actor_layers, write_float32
from sb3_sparse.export.boards import BOARDS, Board, Taken, measure_policy
from sb3_sparse.export.boards.board import run
from sb3_sparse.export.boards.measuring import FLAGS

#: Boards that it has operations for, and Debian a C++ library.
BOARDS_OF_RLTOOLS = ("m4f", "m3", "m0+")
INSTALL = "pip install --no-deps --target rltools rltools==2.2.1"
PACKAGES = "apt-get install -y --no-install-recommends gcc-arm-none-eabi libstdc++-arm-none-eabi-newlib"


class MissingError(ValueError):
    """What this contestant needs is not there."""


def find_rltools(folder: Path | None, model: SAC) -> Distribution:
    """
    :param folder: Where pip has installed RLtools; by default where Python looks.
    :param model: The dense model.
    :return: RLtools, if it can be compiled and has this network
    :raises MissingError: if not; the sentence says what to install
    """
    if len({layer.out_features for layer in list(actor_layers(model).values())[:-1]}) > 1:
        raise MissingError("an MLP of RLtools has hidden layers of one width")
    found = next(iter(distributions(name="rltools", path=sys.path if folder is None else [str(folder)])), None)
    if found is None:
        raise MissingError(f"the headers of RLtools are not installed: {INSTALL}, and pass --rltools rltools")
    try:
        run(*_compiler(BOARDS[BOARDS_OF_RLTOOLS[0]]), "-fsyntax-only", "-include", "cmath", "-x", "c++", "/dev/null")
    except (OSError, RuntimeError) as error:
        raise MissingError(f"the C++ compiler for ARM or its library is not installed: {PACKAGES}") from error
    return found


def measure_rltools(found: Distribution, model: SAC, observations: np.ndarray, board: Board) -> Taken:
    """
    :param found: See :func:`find_rltools`.
    :param model: The dense model.
    :param observations: The test vectors; its actions may be 1e-6 off numpy's in float32.
    :param board: A board.
    :return: What its actor takes there, counted as our own
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_float32(folder, model, observations, kernel="rltools")
        policy, headers = folder / "rltools.o", found.locate_file("rltools/external/rl_tools/include")
        includes = ("-I", folder, "-isystem", str(headers))
        run(*_compiler(board), *includes, "-fstack-usage", "-c", C / "rltools.cpp", "-o", policy)
        return measure_policy(folder, board, includes=[C], objects=[policy])


@dataclass
class Others:
    """
    What RLtools takes.

    :param rows: Bytes, instructions and test vectors that fail, by name.
    :param versions: Its version.
    :param left_out: Why it was left out.
    """

    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def measure_others(folder: Path | None, model: SAC, observations: np.ndarray) -> Others:
    """
    :param folder: Where RLtools is installed, if it has to be measured.
    :param model: The dense model.
    :param observations: Those of the test vectors.
    :return: What RLtools takes
    :raises ValueError: if it has to be measured and cannot be
    """
    try:
        rltools = find_rltools(folder, model)
    except MissingError as error:
        if folder is not None:
            raise
        print(f"RLtools is left out: {error}")
        return Others(left_out={"rltools": str(error)})
    taken = {target: measure_rltools(rltools, model, observations, BOARDS[target]) for target in BOARDS_OF_RLTOOLS}
    rows = {f"rltools/{target}/float32": asdict(row) for target, row in taken.items()}
    return Others(rows, {"rltools": rltools.version})


def _compiler(board: Board) -> tuple[str, ...]:
    processor = (flag for flag in board.processor if not flag.startswith("-std="))
    return (f"{board.tools}-g++", *processor, *FLAGS, "-std=c++17", "-fno-exceptions", "-fno-rtti")
