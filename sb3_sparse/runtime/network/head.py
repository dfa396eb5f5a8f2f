"""From the outputs of the last layer to an action."""

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.elements import Floats, Shape

#: Kinds of heads, and the optional fields that each needs.
_FIELDS = {"unscale": ("low", "high"), "clip": ("low", "high"), "argmax": ("groups",), "positive": ()}
#: Kinds of heads.
HEADS = tuple(_FIELDS)


@dataclass(frozen=True, eq=False)
class Head:
    """
    From the last layer to an action as SB3's ``predict`` gives it.

    :param kind: ``unscale``: ``low + (x + 1) / 2 * (high - low)`` of a squashed x; ``clip``: x clipped to the bounds;
        ``argmax``: the largest of each group (``Discrete``, ``MultiDiscrete``); ``positive``: 1 where x > 0 (``MultiBinary``).
    :param shape: Shape of the action.
    :param low: Lower bounds, ``[n]``, of a continuous action.
    :param high: Upper bounds, ``[n]``.
    :param groups: Sizes of the groups of ``argmax``.
    :raises ValueError: if bounds or groups are missing, or the kind does not use them
    """

    kind: str
    shape: Shape
    low: Floats | None = None
    high: Floats | None = None
    groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        # An unknown kind is left to the readers of a network, which refuse it by name.
        given = {"low": self.low is not None, "high": self.high is not None, "groups": bool(self.groups)}
        for name, is_given in given.items() if self.kind in HEADS else ():
            if is_given != (name in _FIELDS[self.kind]):
                takes = " and ".join(_FIELDS[self.kind]) or "only a shape"
                state = "given" if is_given else "missing"
                raise ValueError(f"a head of kind '{self.kind}' takes {takes}, but {name} is {state}")

    @property
    def changes_nothing(self) -> bool:
        """Whether the action is the outputs themselves: a clip without bounds."""
        return self.low is not None and self.high is not None and bool((np.minimum(-self.low, self.high) == np.inf).all())

    @property
    def inputs(self) -> int:
        """How many outputs the last layer has."""
        return sum(self.groups) if self.kind == "argmax" else prod(self.shape)

    def __call__(self, x: Floats) -> NDArray[np.generic]:
        """
        :param x: Outputs of the last layer, ``[n, inputs]``.
        :return: Actions, ``[n, *shape]``: float32, or int64 of ``argmax``
        """
        if self.kind == "unscale":
            assert self.low is not None and self.high is not None
            actions: NDArray[np.generic] = self.low + np.float32(0.5) * (x + np.float32(1)) * (self.high - self.low)
        elif self.kind == "clip":
            actions = np.clip(x, self.low, self.high)
        elif self.kind == "argmax":
            parts = np.split(x, np.cumsum(self.groups)[:-1], axis=1)
            actions = np.stack([part.argmax(axis=1) for part in parts], axis=1)
        else:
            # NaN stays NaN.
            actions = np.where(np.isnan(x), x, x > 0).astype(np.float32)
        return actions.reshape(-1, *self.shape)
