"""
Bytes and instructions of a policy on a board. QEMU counts instructions exactly, and models neither pipelines nor flash wait
states nor caches: they are not cycles of the hardware. For AVR, simavr counts cycles.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sb3_sparse.export.boards.board import Board, C, run

FLAGS = ("-O2", "-ffunction-sections", "-fdata-sections")
#: What is in flash: code and constants, which AVR keeps in a section of their own.
_CONSTANT = (".text", ".rodata", ".srodata", ".progmem")
_LIBRARIES = ("-lm", "-lc", "-lgcc")
#: What linkers say, and a header.
_TOO_LARGE = (
    "will not fit in region",
    "is not within region",
    "overflowed by",
    "is too large",
    "bytes of tables are more than",
)


class DoesNotFit(ValueError):
    """A policy that is larger than the memory of a board, or takes too long there."""


@dataclass(frozen=True)
class Taken:
    """
    What a policy takes.

    :param flash: Bytes of its code and tables.
    :param ram: Bytes of its variables.
    :param stack: Bytes that its own functions put on the stack.
    :param library: Bytes of what it calls in the compiler's libraries.
    :param instructions: Instructions of an action, or what the unit of the board is; the mean over the test vectors of its
        header.
    :param self_test: Test vectors that fail, of eight.
    """

    flash: int
    ram: int
    stack: int
    library: int
    instructions: int
    self_test: int


def compile_policy(folder: Path, board: Board, defines: Iterable[str] = (), includes: Iterable[Path] = ()) -> Path:
    """
    :param folder: Folder with ``policy.h``, whose names begin with ``policy``, of one observation and without a state.
    :param board: A board.
    :param defines: Flags that choose the arithmetic.
    :param includes: Folders of what ``policy.h`` includes.
    :return: The object of ``policy_act`` alone, in the folder; a file with its stack usage is next to it
    :raises DoesNotFit: if it has more tables than the processor addresses
    :raises RuntimeError: if it does not compile
    """
    found = folder / "act.o"
    _build(board, *_compiler(folder, board, defines, includes), "-fstack-usage", "-c", C / "act.c", "-o", found)
    return found


def measure_policy(
    folder: Path,
    board: Board,
    defines: Iterable[str] = (),
    includes: Iterable[Path] = (),
    objects: Sequence[Path] = (),
) -> Taken:
    """
    :param folder: See :func:`compile_policy`.
    :param board: A board.
    :param defines: Flags that choose the arithmetic.
    :param includes: Folders of what ``policy.h`` includes.
    :param objects: What else belongs to the policy, compiled with ``-fstack-usage``.
    :return: What the policy takes there
    :raises DoesNotFit: if it is larger than the emulator's memory, or an action takes longer than its clock can count
    :raises RuntimeError: if something does not compile, or the emulator does not count
    """
    compiler = _compiler(folder, board, defines, includes)
    own, alone = [compile_policy(folder, board, defines, includes), *objects], folder / "act.elf"
    linker = (*compiler, "-nostdlib", "-Wl,--gc-sections", *board.layout, *own)
    _build(board, *linker, "-Wl,-e,act,--unresolved-symbols=ignore-all", "-o", alone)
    library = -section_bytes(alone, board, *_CONSTANT)
    _build(board, *linker, "-Wl,-e,act", *_LIBRARIES, "-o", alone)
    library += section_bytes(alone, board, *_CONSTANT)
    failures, instructions = _act(compiler, folder, board, objects)
    return Taken(
        flash=sum(section_bytes(part, board, *_CONSTANT) for part in own),
        ram=sum(section_bytes(part, board, ".bss", ".data") for part in own),
        stack=sum(int(line.split("\t")[1]) for part in own for line in part.with_suffix(".su").read_text().splitlines()),
        library=library,
        instructions=instructions,
        self_test=failures,
    )


def section_bytes(path: Path, board: Board, *prefixes: str) -> int:
    """
    :param path: An object or a program.
    :param board: The board that it is for.
    :param prefixes: What the names of sections begin with.
    :return: Their sizes in bytes, together
    """
    rows = (line.split() for line in run(board.sizer, "-A", path).splitlines())
    return sum(int(row[1]) for row in rows if len(row) == 3 and row[0].startswith(prefixes))


def _compiler(folder: Path, board: Board, defines: Iterable[str], includes: Iterable[Path]) -> tuple[str | Path, ...]:
    paths = [part for path in (folder, board.folder, C, *includes) for part in ("-I", path)]
    return (board.compiler, *board.processor, *FLAGS, *defines, *paths)


def _build(board: Board, *command: str | Path) -> None:
    try:
        run(*command)
    except RuntimeError as error:
        if any(sentence in str(error) for sentence in _TOO_LARGE):
            raise DoesNotFit(f"the policy is larger than the {board.memory} of the emulated {board.title}") from error
        raise


def _act(compiler: tuple[str | Path, ...], folder: Path, board: Board, objects: Sequence[Path]) -> tuple[int, int]:
    """Test vectors that fail, and instructions of an action."""
    bench, program = folder / "bench.o", folder / "bench.elf"
    run(*compiler, "-c", C / "bench.c", "-o", bench)
    _build(board, *compiler, "-Wl,--gc-sections", *board.layout, bench, *objects, *_LIBRARIES, "-o", program)
    # simavr writes a point where a line ends, and its own lines behind ours.
    printed = re.findall(r"([0-9]+)\.?\n", run(*board.emulator, program))
    failures, calls, instructions, is_over, check = map(int, printed[:5])
    if abs(check - 10_000) > board.error:
        raise RuntimeError(f"this emulator counts {check} {board.unit} of a function of 10,000: its counts are worth nothing")
    if is_over:
        raise DoesNotFit(f"an action takes more than {board.most} {board.unit} on the emulated {board.title}")
    return failures, round(instructions / calls)
