"""The boards: which tools compile for them, and which emulator runs what was compiled. A new board is one entry."""

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_ARM = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"


@dataclass(frozen=True)
class Board:
    """
    A microcontroller as an emulator has it.

    :param title: Name of its processor.
    :param tools: What the names of its compiler and binary tools begin with.
    :param processor: Flags that choose the processor.
    :param emulator: Command that runs a program, whose name follows.
    :param packages: Debian packages with the tools.
    """

    title: str
    tools: str
    processor: tuple[str, ...]
    emulator: tuple[str, ...]
    packages: str

    @property
    def compiler(self) -> str:
        """Name of its compiler."""
        return f"{self.tools}-gcc"

    @property
    def sizer(self) -> str:
        """Name of the tool that lists sections."""
        return f"{self.tools}-size"


def _arm(title: str, machine: str, *processor: str) -> Board:
    # With shift=0 an instruction takes 1 ns of virtual time.
    options = "-nographic -monitor none -serial none -semihosting -icount shift=0 -kernel"
    emulator = ("qemu-system-arm", "-M", machine, *options.split())
    return Board(title, "arm-none-eabi", ("-mthumb", *processor), emulator, _ARM)


BOARDS = {
    "m4f": _arm("Cortex-M4F", "mps2-an386", "-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
    "m3": _arm("Cortex-M3", "mps2-an385", "-mcpu=cortex-m3"),
}


def check_tools(boards: Iterable[Board] = tuple(BOARDS.values())) -> None:
    """
    :param boards: Boards to measure on.
    :raises ValueError: if a tool is missing; the sentence names the Debian packages that have it
    """
    missing: dict[str, str] = {}
    for board in boards:
        for tool in (board.compiler, board.sizer, board.emulator[0]):
            if shutil.which(tool) is None:
                missing[tool] = board.packages
    if missing:
        packages = " ".join(dict.fromkeys(" ".join(missing.values()).split()))
        raise ValueError(f"{', '.join(missing)} not found: apt-get install -y --no-install-recommends {packages}")


def describe_tools(boards: Iterable[Board] = tuple(BOARDS.values())) -> dict[str, str]:
    """
    :param boards: Boards whose tools are installed.
    :return: Versions of compilers and emulators by their names
    """
    tools = dict.fromkeys(tool for board in boards for tool in (board.compiler, board.emulator[0]))
    return {tool: run(tool, "--version").splitlines()[0] for tool in tools}


def run(*command: str | Path) -> str:
    """
    :param command: What to run; it must succeed within five minutes.
    :return: All that it printed
    :raises RuntimeError: if it fails
    """
    parts = [str(part) for part in command]
    result = subprocess.run(parts, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    if result.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{result.stdout[:2000]}")
    return result.stdout
