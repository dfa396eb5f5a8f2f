"""What all tests share: one thread per process, the benchmarks' scripts as modules, and a list of what was skipped."""

import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch as th

# The networks of the tests are too small for more, and the suite runs in several processes.
th.set_num_threads(1)

#: SAC, TD3, DQN and PPO stand for all algorithms in `make test`. A test of one of these is slow.
REPRESENTED = {"a2c", "crossq", "ddpg", "maskable_ppo", "qrdqn", "recurrent_ppo", "tqc", "trpo"}

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def scripts() -> Iterator[Callable[[str], ModuleType]]:
    """
    Imports scripts of benchmarks/ by name; other tests do not meet their modules. A script that does not import is an error,
    not a reason to skip: ``make test`` installs all that they need.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module
    for path in BENCHMARKS.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of represented algorithms before the marks decide which tests run."""
    for item in items:
        values = item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
        if any(isinstance(value, str) and value in REPRESENTED for value in values):
            item.add_marker(pytest.mark.slow)


def describe_skipped(reports: Iterable[pytest.TestReport | pytest.CollectReport]) -> list[str]:
    """
    :param reports: Reports of tests, or of whole files, that were skipped.
    :return: A line with their number, and one for each reason and test, however many parameters it has
    """
    counts: Counter[tuple[str, str]] = Counter()
    for report in reports:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        counts[reason.removeprefix("Skipped: "), report.nodeid.split("[")[0]] += 1
    total = f"{sum(counts.values())} skipped"
    return [total, *(f"  {reason}: {test} ({count})" for (reason, test), count in sorted(counts.items()))]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was skipped, whatever the verbosity: a test that never runs is not noticed otherwise."""
    if skipped := terminalreporter.stats.get("skipped"):
        for line in describe_skipped(skipped):
            terminalreporter.write_line(line)
