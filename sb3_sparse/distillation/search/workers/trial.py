"""A student to train, and the time that there is for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stable_baselines3.common.callbacks import BaseCallback

from sb3_sparse.distillation.search.candidates import Shape


class OutOfTime(Exception):
    """There is no time left for this."""


@dataclass(frozen=True)
class Trial:
    """
    A student to train.

    :param shape: Its shape.
    :param updates: Gradient updates.
    :param bits: Bits that it is exported in.
    :param deadline: When it has to be done, as ``time.time()`` counts; infinite for never.
    """

    shape: Shape
    updates: int
    bits: tuple[int, ...]
    deadline: float = float("inf")

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.shape}-{self.updates}"


class InTime(BaseCallback):
    """
    Ends a training whose time is up.

    :param check: Raises :class:`OutOfTime` if it is.
    """

    #: It asks for nothing.
    holds_layers = False

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self._check = check

    def _on_step(self) -> bool:
        self._check()
        return True
