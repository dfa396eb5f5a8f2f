"""Locks on files, which the system releases when the last process that holds them has ended, however it ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:
    # The package can be imported there; what needs a lock says that there is none.
    fcntl = None  # type: ignore[assignment]


@contextmanager
def try_lock(path: Path) -> Iterator[IO[bytes] | None]:
    """
    Lock a file. A process that inherits it holds the lock as well.

    :param path: A file, which is made if it does not exist, with its folders.
    :return: A context with the locked file; with None if somebody else has it
    :raises OSError: if the system or its file system does not know ``flock``, or has no room
    """
    if fcntl is None:
        raise OSError("this system does not know flock: use Linux or macOS")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield file
