"""What is wanted of a policy, and how far one is from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sb3_sparse.export.boards import BOARDS

#: More of the return than this is meant as percent.
_MOST = 2.0


class Valued(Protocol):
    """What a target judges. ``kept`` is the share of the teacher's return, see :func:`kept_return`."""

    @property
    def bytes(self) -> int:
        """Bytes of the compact file."""

    @property
    def flash(self) -> int:
        """Bytes of flash."""

    @property
    def us(self) -> float:
        """Microseconds of a call."""

    @property
    def instructions(self) -> int | None:
        """Instructions of an action on the board; None if they were not counted, or do not fit there."""

    @property
    def kept(self) -> float:
        """Share of the return."""


V = TypeVar("V", bound=Valued)
#: The part of the wanted share of the return above which a student may come to it in a longer training.
_HOPE = 1 / 3


@dataclass(frozen=True)
class Target:
    """
    What is wanted. With ``keep`` it is the smallest policy that keeps so much, otherwise the best that is within the limits.

    :param flash: Most bytes of flash; None for any.
    :param keep: Least share of the teacher's return; None for as much as possible.
    :param us: Most microseconds of a call on this machine; None for any.
    :param cycles: Most instructions of an action on the board, counted under QEMU and not cycles of hardware, or cycles where
        the emulator counts these; None for any.
    :param board: Name of the board, with ``cycles``.
    """

    flash: int | None = None
    keep: float | None = None
    us: float | None = None
    cycles: int | None = None
    board: str | None = None

    def __post_init__(self) -> None:
        if (self.cycles is None) != (self.board is None):
            raise ValueError("cycles and board belong together, such as cycles=20_000 and board='m4f'")
        if self.board is not None and self.board not in BOARDS:
            raise ValueError(f"board={self.board!r} must be one of {', '.join(BOARDS)}")
        given = {name: value for name, value in vars(self).items() if value is not None and name != "board"}
        if not given:
            raise ValueError("fit needs something to reach: give flash, keep, us, or cycles and board")
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ValueError(f"{name} must be a number above 0, got {value!r}")
        if self.keep is not None and self.keep > _MOST:
            raise ValueError(f"keep is a share of the return, such as 0.98, got {self.keep!r}")

    @property
    def size(self) -> str:
        """The bytes that count: "flash" if they are limited, otherwise "bytes"."""
        return "bytes" if self.flash is None else "flash"

    @property
    def is_limited(self) -> bool:
        """Whether something but the return is limited."""
        return any(limit is not None for limit in (self.flash, self.us, self.cycles))

    def excess(self, policy: Valued) -> float:
        """
        :param policy: A policy, or what one is expected to take.
        :return: By what share it is beyond the limits, the largest one; 0 if it is within them
        """
        limits = {"flash": self.flash, "us": self.us, "instructions": self.cycles}
        taken = {name: getattr(policy, name) for name in limits}
        beyond = (
            float("inf") if taken[name] is None else float(taken[name]) / limit - 1
            for name, limit in limits.items()
            if limit is not None
        )
        return max(0.0, *beyond, 0.0)

    def shortfall(self, policy: Valued, slack: float = 0.0) -> float:
        """
        :param policy: A policy.
        :param slack: A share of the return that may be missing.
        :return: How far it is from the target, 0 if it reaches it
        """
        missing = 0.0 if self.keep is None else max(0.0, self.keep - slack - policy.kept)
        return self.excess(policy) + missing

    def sort(self, policies: Iterable[V], slack: float = 0.0) -> list[V]:
        """
        :param policies: Policies.
        :param slack: See :meth:`shortfall`.
        :return: The best first; those that miss the target follow, the nearest first
        """

        def key(policy: V) -> tuple[float, float, float]:
            size = float(getattr(policy, self.size))
            return self.shortfall(policy, slack), *((-policy.kept, size) if self.keep is None else (size, -policy.kept))

        return sorted(policies, key=key)

    def rank(self, policies: Iterable[V], slack: float) -> list[V]:
        """
        Whose training is to go on. Where the smallest policy is wanted, and one of them reaches the target, those that are
        smaller and not hopeless come before those that are larger: what these come to does not matter any more.

        :param policies: Policies.
        :param slack: See :meth:`shortfall`; one that needs it goes on before the smaller ones.
        :return: The most promising first
        """
        order = self.sort(policies, slack)
        if self.keep is None or not order or self.shortfall(order[0], slack):
            return order
        least, limit, reached = self.keep * _HOPE, getattr(order[0], self.size), self.shortfall(order[0]) == 0

        def is_behind(policy: V) -> bool:
            size = getattr(policy, self.size)
            return policy.kept < least or size > limit or (size == limit and reached)

        return sorted(order, key=is_behind)

    def __str__(self) -> str:
        parts = [f"keeps {self.keep:g} of the return" if self.keep is not None else ""]
        parts += [f"is within {self.flash:,} bytes of flash" if self.flash is not None else ""]
        parts += [f"answers in {self.us:g} microseconds" if self.us is not None else ""]
        if self.board is not None:
            parts += [f"takes at most {self.cycles:,} {BOARDS[self.board].unit} on an emulated {self.board}"]
        return " and ".join(filter(None, parts))


def kept_return(mean: float, teacher: float) -> float:
    """
    ``1 + (mean - teacher) / |teacher|``: the ratio of the two where the teacher's return is positive, and less than 1 for
    whoever does worse where it is negative.

    >>> kept_return(-165.0, -150.0)
    0.9

    :param mean: Mean return of a student.
    :param teacher: Mean return of its teacher over the same episodes.
    :return: The share of the return that the student keeps
    """
    return 1 + (mean - teacher) / max(abs(teacher), 1e-12)


def pareto(policies: Sequence[V], size: str) -> list[V]:
    """
    :param policies: Policies.
    :param size: Name of the bytes that count.
    :return: Those that no other policy beats in both bytes and return, the smallest first
    """
    front: list[V] = []
    for policy in sorted(policies, key=lambda each: (getattr(each, size), -each.kept)):
        if not front or policy.kept > front[-1].kept:
            front.append(policy)
    return front
