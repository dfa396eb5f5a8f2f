"""How far something is that takes long, how long it will take, and when its time is up."""

import math
import sys
from collections.abc import Callable
from time import monotonic
from typing import TextIO

#: Seconds between two lines, and between two changes of the line of a terminal.
_LINE, _TERMINAL = 10.0, 0.5


class Progress:
    """
    Counts something. Every ten seconds a line says how far it is and, by the time that it took so far, how long it will take.
    On a terminal one line does.

    :param what: What is counted, in the plural.
    :param total: How many there will be.
    :param limit: Seconds that it may take; infinite for no limit.
    :param out: Where to write; by default the standard output.
    :param clock: Seconds from any time on.
    """

    def __init__(
        self,
        what: str,
        total: int,
        limit: float = math.inf,
        *,
        out: TextIO | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.what, self.total, self.limit, self.done = what, total, limit, 0
        self._out, self._clock = sys.stdout if out is None else out, clock
        self._terminal = self._out.isatty()
        #: Since it began, at the last count.
        self.seconds = 0.0
        #: A sentence if its time was up before all were there.
        self.stopped = ""
        self._start = clock()
        self._said, self._width = 0.0, 0

    def advance(self, done: int) -> bool:
        """
        :param done: How many there are by now.
        :return: Whether to go on: not if that are all, or the time is up
        """
        self.done, self.seconds = done, self._clock() - self._start
        in_time = self.seconds < self.limit
        if not in_time and done < self.total:
            self.stopped = f"the time limit stopped this: {self._count()}; --time-limit SECONDS gives it more"
        if self.stopped or done >= self.total:
            self._clear()
        elif self.seconds - self._said >= (_TERMINAL if self._terminal else _LINE):
            self._said = self.seconds
            self._say(str(self))
        if self.stopped:
            print(self.stopped, file=self._out, flush=True)
        return in_time and done < self.total

    def __str__(self) -> str:
        if not self.done:
            return self._count()
        return f"{self._count()}, about {_duration(self.seconds / self.done * (self.total - self.done))} left"

    def _count(self) -> str:
        return f"{self.done:,} of {self.total:,} {self.what} in {_duration(self.seconds)}"

    def _say(self, text: str) -> None:
        if self._terminal:
            self._out.write(f"\r{text.ljust(self._width)}")
            self._width = len(text)
        else:
            self._out.write(f"{text}\n")
        self._out.flush()

    def _clear(self) -> None:
        if self._width:
            self._out.write(f"\r{' ' * self._width}\r")
            self._out.flush()
            self._width = 0


def _duration(seconds: float) -> str:
    """
    >>> _duration(59.6), _duration(7000)
    ('60 s', '117 min')
    """
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
