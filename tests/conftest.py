"""What all tests share: one thread per process, the benchmarks as modules, and a list of what was skipped."""

import importlib
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from types import ModuleType

import pytest
import torch as th

from tests.skipped import pytest_terminal_summary  # noqa: F401

# The networks of the tests are too small for more, and the suite runs in several processes.
th.set_num_threads(1)

#: SAC, TD3, DQN and PPO stand for all algorithms in `make test`. A test of one of these is slow.
REPRESENTED = {"a2c", "crossq", "ddpg", "maskable_ppo", "qrdqn", "recurrent_ppo", "tqc", "trpo"}


@pytest.fixture(autouse=True)
def _distributions_are_validated() -> Iterator[None]:
    """torch.compile() switches the validation of distributions off, for the whole process."""
    validated = th.distributions.Distribution._validate_args
    yield
    th.distributions.Distribution.set_default_validate_args(validated)


@pytest.fixture(scope="session")
def benchmark_of() -> Callable[[str], ModuleType]:
    """
    Imports benchmarks by room and name, such as "speed.inference". One that does not import is an error, not a reason to skip:
    ``make test`` installs all that they need.
    """
    return lambda name: importlib.import_module(f"benchmarks.{name}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Mark as slow, before the marks decide which tests run: the tests of represented algorithms, and of the settings of a test
    that is marked ``quick`` all but those that the mark names, as shell patterns of what stands in brackets after the test.
    """
    patterns: dict[tuple[str, str], bool] = {}
    for item in items:
        if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
            continue
        quick = item.get_closest_marker("quick")
        stands = {pattern: fnmatchcase(item.callspec.id, pattern) for pattern in quick.args} if quick else {}
        for pattern, fits in stands.items():
            key = item.nodeid.split("[")[0], pattern
            patterns[key] = fits or patterns.get(key, False)
        represented = any(isinstance(value, str) and value in REPRESENTED for value in item.callspec.params.values())
        if represented or (quick and not any(stands.values())):
            item.add_marker(pytest.mark.slow)
    # A pattern that fits nothing is an error, unless one setting was asked for by its name and the others are not here.
    unknown = [f"{pattern!r} of {test}" for (test, pattern), fits in patterns.items() if not fits]
    if unknown and not any("::" in str(arg) for arg in config.args):
        raise pytest.UsageError(f"the mark quick names settings that do not exist: {', '.join(unknown)}")
