"""Answers of networks to observations: one program for each question and number of observations."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np

from sb3_sparse.engine.program.build import Program
from sb3_sparse.engine.program.source import Array
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Value

#: Programs that are kept; the oldest one goes first.
MOST = 6
#: What writes an answer on a trace, from observations.
Write = Callable[[Trace, Value], Value]


class Answers:
    """
    :param refresh: What to call when a program has been built, because it may need what is computed from parameters alone.
    """

    def __init__(self, refresh: Callable[[], None]) -> None:
        self._refresh = refresh
        self._programs: dict[tuple[int, Hashable], _Answer] = {}

    def ask(self, question: Hashable, observations: np.ndarray, write: Write) -> np.ndarray:
        """
        :param question: Its name.
        :param observations: Observations of shape ``[n, features]``.
        :param write: What writes the answer on a trace, from observations.
        :return: The answer, of shape ``[n, features]``
        """
        key = len(observations), question
        answer = self._programs.get(key)
        if answer is None:
            if len(self._programs) >= MOST:
                del self._programs[next(iter(self._programs))]
            answer = self._programs[key] = _Answer(len(observations), observations.shape[1], write)
            self._refresh()
        return answer(observations)

    def clear(self) -> None:
        """Forget all programs: the layout of parameters has changed."""
        self._programs.clear()


class _Answer:
    """The answer to one question, for a number of observations."""

    def __init__(self, count: int, features: int, write: Write) -> None:
        trace = Trace(count)
        self._inputs = np.zeros((count, features), dtype=np.float32)
        self._array = Array(features)
        self._array.set(self._inputs)
        answer = write(trace, trace.load(self._array))
        trace.keep(answer)
        self._program = Program(trace)
        self._rows = self._program.rows(answer)

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        np.copyto(self._inputs, observations, casting="unsafe")
        self._program.run()
        return self._rows.reshape(-1, self._rows.shape[-1])[: len(self._inputs)].copy()
