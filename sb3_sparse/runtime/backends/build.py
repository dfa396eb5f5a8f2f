"""
Kernels compiled on the user's machine, once for all policies, into a cache.

Only the files of a folder of this package are compiled. A policy is data for them, so a loaded file never becomes code. A
cached library is used only if it and its directory belong to the user alone and its content has the digest in its name;
otherwise it is built again. The build happens in a directory of its own and the result is moved into place in one step, so
processes that build at the same time do not disturb each other.
"""

import atexit
import functools
import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy as np

_SOURCES = Path(__file__).parent / "c"
#: What makes kernels fast. Without -ffast-math: in a library it would make the whole process flush small floats to zero.
OPTIONS = ("-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
#: By the ending of the source: options of the language, the variable that names its compiler, and compilers to look for.
_LANGUAGES = {
    ".c": ("-std=c99", "CC", ("cc", "gcc", "clang")),
    ".cpp": ("-std=c++17 -pthread", "CXX", ("c++", "g++", "clang++")),
}
#: Options for all that this processor has.
NATIVE = ("-march=native", "-mprefer-vector-width=512")
_TIMEOUT = 300


class BuildError(RuntimeError):
    """The kernels could not be compiled on this machine; the message says why."""


@functools.cache
def build(source: str, folder: Path = _SOURCES, options: tuple[str, ...] = NATIVE) -> Path:
    """
    :param source: File in the folder to compile: "module.c" for a Python module, another one for a plain library.
    :param folder: The folder of the source and of all that it includes.
    :param options: Options of the compiler. One that does not know the last of them does without it, or without all.
    :return: Path of the compiled file
    :raises BuildError: if there is no compiler, or it fails
    """
    compiler, flags, identity = _compiler(Path(source).suffix, options)
    if source == "module.c":
        headers = [f"-I{sysconfig.get_paths()['include']}", f"-I{np.get_include()}"]
        identity += f"{sys.version}{np.__version__}{headers}"
        flags = [*flags, *headers, *(["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else [])]
    digest = hashlib.sha256(f"{source}{flags}{identity}".encode())
    for path in sorted(folder.iterdir()):
        digest.update(path.read_bytes())
    stem = f"{Path(source).stem}-{digest.hexdigest()[:32]}"
    directory = _directory()
    for path in sorted(directory.glob(f"{stem}-*.so")):
        if _is_ours(path) and path.name == f"{stem}-{_digest(path)}.so":
            return path
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        output = Path(scratch) / "out.so"
        _run([*compiler, *flags, str(folder / source), "-o", str(output)])
        output.chmod(0o700)
        final = directory / f"{stem}-{_digest(output)}.so"
        os.replace(output, final)
    return final


@functools.cache
def _compiler(suffix: str = ".c", options: tuple[str, ...] = NATIVE) -> tuple[list[str], list[str], str]:
    """The compiler, its flags, and a text that differs when the compiler or the processor does."""
    standard, variable, names = _LANGUAGES[suffix]
    named = os.environ.get(variable)
    found = shlex.split(named) if named else [path for name in names if (path := shutil.which(name))][:1]
    language = {".c": "C", ".cpp": "C++"}[suffix]
    if not found or os.name == "nt":
        raise BuildError(f"no {language} compiler found ({', '.join(names)} or ${variable})")
    for flags in dict.fromkeys((options, options[:1], ())):
        given = [*OPTIONS, "-fPIC", "-shared", *standard.split(), *flags]
        try:
            # The predefined macros name the compiler's version and every feature of the processor.
            return found, given, _run([*found, *given, "-dM", "-E", "-x", language.lower(), os.devnull])
        except BuildError as error:
            failure = error
    raise failure


def macros(suffix: str) -> set[str]:
    """
    :param suffix: ``.c`` or ``.cpp``.
    :return: Names of the macros that its compiler predefines for this processor
    :raises BuildError: if there is no compiler
    """
    return {line.split()[1] for line in _compiler(suffix)[2].splitlines() if line.startswith("#define ")}


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]} failed: {error}") from error
    if done.returncode:
        raise BuildError(f"{shlex.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


@functools.cache
def _directory() -> Path:
    """The cache, or a temporary directory of this process where a safe cache is not possible."""
    base = os.environ.get("SB3_SPARSE_CACHE") or os.environ.get("XDG_CACHE_HOME")
    try:
        directory = Path(base).absolute() if base else Path.home() / ".cache"
        directory = directory if os.environ.get("SB3_SPARSE_CACHE") else directory / "sb3_sparse"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_ours(directory) and os.access(directory, os.W_OK | os.X_OK):
            return directory
    except (OSError, RuntimeError):
        pass
    private = tempfile.mkdtemp(prefix="sb3_sparse-")
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    return Path(private)


def _is_ours(path: Path) -> bool:
    """Whether it is not a link, belongs to the user, and nobody else can write to it."""
    status = path.lstat()
    ours = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
    return ours and not stat.S_ISLNK(status.st_mode) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]
