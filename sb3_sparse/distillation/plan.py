"""How long a distillation takes, and what happens when: its learning rate, its sparsity, its rounds."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi
from numbers import Real

from sb3_sparse.distillation.checks import check_whole

#: The share of the updates in which the sparsity rises, and in which the learning rate is constant.
PRUNING, CONSTANT = 0.55, 0.44
#: The share of the updates after which connections are not rewired.
REWIRING = 0.85
#: The share of the updates after which a student in few bits is on a grid, and after which the grid stays as it is.
ROUNDING, FIXED = 0.7, 0.9
#: The learning rate at the start and at the end.
HIGHEST_RATE, LOWEST_RATE = 3e-3, 1e-5
#: Rounds of environment steps and updates, and prunings in each.
ROUNDS, PRUNINGS = 100, 4
#: In the phase through the critics: rounds, the learning rate at the start, and environment steps before it and in a round.
CRITIC_ROUNDS, CRITIC_RATE, CRITIC_FIRST, CRITIC_STEPS = 20, 1e-3, 20_000, 2_000


@dataclass(frozen=True)
class Plan:
    """
    The lengths of a distillation.

    :param updates: Gradient updates, a multiple of ``ROUNDS`` blocks.
    :param steps: Environment steps.
    :param first_steps: Those of them that the teacher plays alone, before the first update.
    :param initial_sparsity: Sparsity from the first update on.
    :param rewired: Share of the connections that the first rewiring moves; 0 for none.
    :param rounds: Rounds.
    :param highest_rate: The learning rate at the start.
    :param constant: The share of the updates in which it is constant.
    """

    updates: int
    steps: int
    first_steps: int
    initial_sparsity: float
    rewired: float
    rounds: int = ROUNDS
    highest_rate: float = HIGHEST_RATE
    constant: float = CONSTANT

    def rate(self, left: float) -> float:
        """
        :param left: The remaining progress, 1 to 0.
        :return: The learning rate: constant, then along a cosine to its lowest
        """
        falling = max(0.0, (1 - left - self.constant) / (1 - self.constant))
        return LOWEST_RATE + (self.highest_rate - LOWEST_RATE) * 0.5 * (1 + cos(pi * falling))

    @property
    def rounding(self) -> tuple[int, int]:
        """After how many updates the weights of a student in few bits are on a grid, and after how many it stays as it is."""
        unit = self.updates // ROUNDS
        return round(ROUNDING * ROUNDS) * unit, round(FIXED * ROUNDS) * unit

    def states_by(self, number: int) -> int:
        """
        :param number: Number of a round, from 0.
        :return: States that there are when its updates begin
        """
        return self.first_steps + round((self.steps - self.first_steps) * (number + 1) / self.rounds)


def make_plan(sparsity: float, updates: int | None, steps: int | None, rewire: float, block: int) -> Plan:
    """
    :param sparsity: The student's sparsity.
    :param updates: Gradient updates; by default more for a higher sparsity.
    :param steps: Environment steps; likewise.
    :param rewire: Share of the connections that the first rewiring moves, in [0, 1).
    :param block: Updates between two calls of the callbacks.
    :return: The plan
    :raises ValueError: if ``rewire`` is no such share, or there are fewer updates or steps than rounds
    """
    if not isinstance(rewire, Real) or not 0 <= rewire < 1:
        raise ValueError(f"rewire={rewire} is no share of the connections, in [0, 1)")
    high = sparsity > 0.96
    updates = (600_000 if high else 100_000) if updates is None else updates
    steps = (400_000 if high else 300_000) if steps is None else steps
    unit = ROUNDS * block
    check_whole("updates", updates, 1)
    check_whole("steps", steps, 1)
    if updates < unit or steps < 2 * ROUNDS:
        raise ValueError(
            f"updates={updates} and steps={steps} are too few: a distillation has {ROUNDS} rounds, and needs {unit} updates"
            f" and {2 * ROUNDS} environment steps at least"
        )
    updates = round(updates / unit) * unit
    return Plan(updates, steps, min(20_000, steps // 2), min(0.6, sparsity), rewire)


def make_critic_plan(updates: int, block: int) -> Plan:
    """
    :param updates: Gradient updates of the phase through the critics.
    :param block: Updates between two calls of the callbacks.
    :return: Its plan
    :raises ValueError: if there are fewer updates than a round has
    """
    unit = CRITIC_ROUNDS * block
    if updates < unit:
        raise ValueError(f"critic_updates={updates} are too few: give {unit:,} at least, such as 20,000, or 0 for none")
    steps = CRITIC_FIRST + CRITIC_ROUNDS * CRITIC_STEPS
    return Plan(round(updates / unit) * unit, steps, CRITIC_FIRST, 0.0, 0.0, CRITIC_ROUNDS, CRITIC_RATE, 0.0)
