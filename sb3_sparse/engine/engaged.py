"""
A model that trains in the engine: what holds for every algorithm.

For as long as it does, a model has a class of its own, a subclass of its class with the same name. Nothing is stored on the
model. The attributes that hold parameters are properties of that class: whoever asks for ``model.policy`` or ``model.actor``
gets the model's own object, with the true weights.
"""

from __future__ import annotations

import copyreg
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_sparse.engine.observations import as_rows
from sb3_sparse.engine.session import Session

#: Attributes that hold parameters, or optimizers, of any algorithm.
SHARED = (
    "policy",
    "actor",
    "actor_target",
    "critic",
    "critic_target",
    "q_net",
    "q_net_target",
    "quantile_net",
    "quantile_net_target",
    "log_ent_coef",
    "ent_coef_optimizer",
)

#: The engine acts on so many observations at once; torch is as fast on more, and needs no memory for a program.
MOST_OBSERVATIONS = 256

SelfEngaged = TypeVar("SelfEngaged", bound="Engaged")


class Engaged(BaseAlgorithm):
    """What is different in any model that trains in the engine."""

    _session: ClassVar[Session]
    _stock: ClassVar[type[BaseAlgorithm]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        # Another model, such as one that a callback loads by type(model).load(), is SB3's.
        return cls._stock(*args, **kwargs)

    @property
    def holds_masks(self) -> bool:
        """Whether pruned weights stay zero without anybody's help, because the engine takes the gradient steps."""
        return self._session.reason is None

    def _take_over(self, observations: object) -> np.ndarray | None:
        """
        :param observations: Observations, as the environment or a user gives them.
        :return: They as rows, if the engine answers for them; it has taken over then
        """
        rows = as_rows(observations, self.observation_space)
        return rows if rows is not None and len(rows) <= MOST_OBSERVATIONS and self._session.take_over() else None

    def learn(self: SelfEngaged, *args: Any, **kwargs: Any) -> SelfEngaged:
        # The callback that put the model here has not taken it back: training was interrupted.
        release(self)
        return self.learn(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # A copy is a model of its own, which trains on SB3.
        self._session.look()
        return copyreg._reconstructor, (self._stock, object, None), self.__dict__  # type: ignore[attr-defined]

    @contextmanager
    def _released_on_error(self) -> Iterator[None]:
        """After Ctrl-C, or an error of a callback or the environment, the model is SB3's again, with all it has learnt."""
        try:
            yield
        except BaseException:
            release(self)
            raise


def _shared(name: str) -> property:
    def get(self: Engaged) -> Any:
        self._session.look()
        return self.__dict__[name]

    def set_(self: Engaged, value: Any) -> None:
        warnings.warn(f"SB3 trains this model from here on, because model.{name} was replaced", stacklevel=2)
        release(self)
        setattr(self, name, value)

    return property(get, set_)


def put_between(model: BaseAlgorithm, session: Session, kind: type[Engaged]) -> None:
    """
    Give a model the class in which it trains in the engine.

    :param model: The model.
    :param session: The engine's work on it.
    :param kind: What is different in a model of its kind.
    """
    stock = type(model)
    members: dict[str, Any] = {name: _shared(name) for name in SHARED if name in model.__dict__}
    members |= {"_session": session, "_stock": stock, "__module__": stock.__module__, "__qualname__": stock.__qualname__}
    model.__class__ = type(stock.__name__, (kind, stock), members)


def release(model: BaseAlgorithm) -> None:
    """
    Let a model train on torch again, with the weights that it has now.

    :param model: The model; nothing happens if it does not train in the engine.
    """
    if isinstance(model, Engaged):
        model._session.look()
        stock: type[Any] = model._stock
        model.__class__ = stock
