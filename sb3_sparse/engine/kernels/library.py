"""The kernels as a library, one for each instruction set."""

import ctypes
import functools
import os
import weakref
from pathlib import Path

from sb3_sparse.engine.kernels.structs import BLOCK, INTERFACE, LANES, Instruction, Layer, Operand, Source
from sb3_sparse.runtime.backends.build import NATIVE, BuildError, build, macros

_SOURCES = Path(__file__).parent / "c"
#: From the narrowest to the widest: options of the compiler, macros of the processors that have it, floats of its vector.
_SETS: dict[str, tuple[tuple[str, ...], frozenset[str], int]] = {
    "portable": (("-DENGINE_PORTABLE",), frozenset(), 4),
    "avx2": (("-march=native", "-DENGINE_AVX2"), frozenset({"__AVX2__", "__FMA__"}), 8),
    "avx512": (NATIVE, frozenset({"__AVX512F__", "__AVX512DQ__", "__AVX512BW__", "__AVX512VL__"}), 16),
}


def available() -> tuple[str, ...]:
    """
    :return: The instruction sets that this processor and compiler have, from the narrowest to the widest
    :raises BuildError: if there is no C++ compiler
    """
    has = macros(".cpp")
    return tuple(name for name, (_, needs, _) in _SETS.items() if needs <= has)


def has_bfloat16() -> bool:
    """
    :return: Whether the kernels that :func:`load` chooses compute products of bfloat16 faster than those of float32
    :raises BuildError: if there is no C++ compiler
    """
    return _chosen() == "avx512" and "__AVX512BF16__" in macros(".cpp")


class Team:
    """
    A second thread for the kernels, until nobody needs it any more.

    :raises RuntimeError: if the system gives none
    """

    def __init__(self) -> None:
        library = load()
        self.address = library.engine_team()
        if not self.address:
            raise RuntimeError("the system gives the engine no second thread")
        weakref.finalize(self, library.engine_disband, self.address)


def _chosen() -> str:
    named = os.environ.get("SB3_SPARSE_ENGINE_ISA")
    if named and named not in _SETS:
        raise ValueError(f"SB3_SPARSE_ENGINE_ISA={named} is no instruction set of the engine: {', '.join(_SETS)}")
    return named or available()[-1]


def load(isa: str | None = None) -> ctypes.CDLL:
    """
    Builds the kernels on first use and loads them. ``engine_run(program, count, panels)`` returns 0, or the place of the first
    malformed instruction, counted from 1. It lets other threads run.

    :param isa: "portable", "avx2" or "avx512"; None for ``$SB3_SPARSE_ENGINE_ISA``, or the widest that there is.
    :return: The library
    :raises BuildError: if it cannot be compiled, or the processor does not have the instruction set
    """
    return _load(isa or _chosen())


@functools.cache
def _load(isa: str) -> ctypes.CDLL:
    if isa not in _SETS:
        raise BuildError(f"{isa!r} is no instruction set of the engine: {', '.join(_SETS)}")
    if isa not in available():
        raise BuildError(f"this processor or compiler has no {isa}")
    options, _, width = _SETS[isa]
    try:
        library = ctypes.CDLL(str(build("engine.cpp", _SOURCES, options)))
    except OSError as error:
        raise BuildError(f"the compiled kernels cannot be loaded: {error}") from error
    library.engine_run.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    library.engine_run.restype = ctypes.c_int
    library.engine_run_by_two.argtypes = [*library.engine_run.argtypes, ctypes.c_void_p]
    library.engine_run_by_two.restype = ctypes.c_int
    library.engine_team.restype = ctypes.c_void_p
    library.engine_disband.argtypes = [ctypes.c_void_p]
    library.engine_disband.restype = None
    library.engine_abi.argtypes = [ctypes.c_int]
    library.engine_abi.restype = ctypes.c_int64
    library.engine_isa.restype = ctypes.c_char_p
    expected = [INTERFACE, *map(ctypes.sizeof, (Operand, Source, Layer, Instruction)), LANES, BLOCK, width]
    if [library.engine_abi(which) for which in range(len(expected))] != expected:
        raise BuildError(f"the compiled kernels for {isa} have another interface than this package")
    return library
