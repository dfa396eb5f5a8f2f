"""
Processes that take turns: each is started once, and then does as many steps as it is told to, when it is told to.

Whoever is compared may so live in an environment of its own, and this file imports nothing that is not in all of them.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

#: Where this folder is found by its name.
ROOT = Path(__file__).parents[2]
#: Makes a number of steps, and says how many CPU seconds one of them took.
Learn = Callable[[int], float]


class Worker:
    """
    A process that is kept, as its owner sees it.

    :param python: The Python that it runs in.
    :param module: What it runs: a module of this folder that calls :func:`serve`.
    :param arguments: Its arguments; the first is the name of the side.
    :raises RuntimeError: if it does not start
    """

    def __init__(self, python: Path | str, module: str, arguments: Sequence[str]) -> None:
        self.side = arguments[0]
        self._errors = tempfile.TemporaryFile("w+")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [str(python), "-m", module, *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors}
        self._process = subprocess.Popen(command, text=True, env=environment, cwd=ROOT, **pipes)
        hello = self._read()
        self.learners: list[str] = hello["learners"]
        self.versions: dict[str, str] = hello["versions"]

    def seconds(self, name: str, steps: int) -> float:
        """
        :param name: One of ``learners``.
        :param steps: Number of steps.
        :return: CPU seconds per step
        """
        self._process.stdin.write(json.dumps([name, steps]) + "\n")
        self._process.stdin.flush()
        return float(self._read())

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _read(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"the worker of {self.side} has ended:\n{self._errors.read()[-3000:]}")
        return json.loads(line)


def serve(make: Callable[[], tuple[Mapping[str, Learn], Mapping[str, str]]]) -> None:
    """
    The process itself: say on one line of JSON what it has, and answer every line ``[name, steps]`` with the seconds that one
    of these steps took, until the owner closes the pipe.

    :param make: Makes the learners, and says the versions of the packages that they are about.
    """
    # What libraries print is no answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    learners, versions = make()
    print(json.dumps({"learners": list(learners), "versions": versions}), file=answers)
    for line in sys.stdin:
        name, steps = json.loads(line)
        print(json.dumps(learners[name](steps)), file=answers)
