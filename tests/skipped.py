"""A list of what was skipped, at the end of a run of the tests. It imports nothing slow: a test runs it in processes."""

from collections import Counter
from collections.abc import Iterable

import pytest


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
