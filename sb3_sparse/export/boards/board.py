"""The boards: which tools compile for them, and which emulator runs what was compiled. A new board is one entry."""

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

C = Path(__file__).parent / "c"


@dataclass(frozen=True)
class Board:
    """
    A microcontroller as an emulator has it.

    :param title: Name of its processor.
    :param tools: What the names of its compiler and binary tools begin with.
    :param processor: Flags that choose the processor.
    :param emulator: Command that runs a program, whose name follows.
    :param packages: Debian packages with the tools.
    :param family: Name of the folder with what a program begins with there, and asks its clock by.
    :param memory: Flash and RAM, in words.
    :param unit: What is counted.
    :param error: How far off a count may be.
    :param most: How many it can count, in words.
    """

    title: str
    tools: str
    processor: tuple[str, ...]
    emulator: tuple[str, ...]
    packages: str
    family: str
    memory: str = "4 MiB of flash or of RAM"
    unit: str = "instructions"
    error: int = 10
    most: str = "4,000 million"

    @property
    def folder(self) -> Path:
        """Folder of its family."""
        return C / self.family

    @property
    def layout(self) -> tuple[str | Path, ...]:
        """Flags that say where a program lies in memory, unless the compiler knows it, and has what begins it."""
        script = self.folder / "link.ld"
        return ("-nostdlib", "-T", script) if script.exists() else ()

    @property
    def counted(self) -> str:
        """What is counted, by which emulator, in words."""
        emulator = "QEMU" if self.emulator[0].startswith("qemu") else self.emulator[0]
        remark = "" if self.unit == "cycles" else ": not cycles of hardware"
        return f"{self.unit} of an action, counted under {emulator}, the mean over the C header's test vectors{remark}"

    @property
    def compiler(self) -> str:
        """Name of its compiler."""
        return f"{self.tools}-gcc"

    @property
    def sizer(self) -> str:
        """Name of the tool that lists sections."""
        return f"{self.tools}-size"


# With shift=0 an instruction takes 1 ns of virtual time.
_COUNTING = "-nographic -monitor none -icount shift=0".split()


def _arm(title: str, machine: str, *processor: str) -> Board:
    emulator = ("qemu-system-arm", "-M", machine, *_COUNTING, "-serial", "none", "-semihosting", "-kernel")
    packages = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
    return Board(
        title, "arm-none-eabi", ("-std=c99", "-mthumb", *processor), emulator, packages, "arm", error=40, most="600 million"
    )


BOARDS = {
    "m4f": _arm("Cortex-M4F", "mps2-an386", "-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
    "m3": _arm("Cortex-M3", "mps2-an385", "-mcpu=cortex-m3"),
    # QEMU has no Cortex-M0+ with this clock. A Cortex-M3 executes its instructions, each as one.
    "m0+": _arm("Cortex-M0+", "mps2-an385", "-mcpu=cortex-m0plus"),
    "rv32imc": Board(
        "RISC-V RV32IMC",
        "riscv64-unknown-elf",
        ("-std=c99", "-march=rv32imc", "-mabi=ilp32", "--specs=picolibc.specs"),
        ("qemu-system-riscv32", "-M", "virt", *_COUNTING, "-serial", "stdio", "-bios", "none", "-kernel"),
        "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf qemu-system-misc",
        "riscv",
    ),
    # C with extensions, for tables in flash.
    "avr": Board(
        "ATmega2560",
        "avr",
        ("-std=gnu99", "-mmcu=atmega2560"),
        ("simavr", "-m", "atmega2560", "-f", "16000000"),
        "gcc-avr avr-libc simavr",
        "avr",
        memory="256 KiB of flash or the 8 KiB of RAM",
        unit="cycles",
        error=250,
    ),
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
    :return: Versions of compilers and emulators by their names; simavr does not tell its own
    """
    tools = dict.fromkeys(tool for board in boards for tool in (board.compiler, board.emulator[0]) if tool != "simavr")
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
