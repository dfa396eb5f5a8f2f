"""An algorithm that learns by gradient updates alone, and trains in the engine."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from sb3_sparse.engine.engaged import Engaged
from sb3_sparse.engine.support import look_through_references
from sb3_sparse.offline import UpdateLoop


class OfflineLearner(Engaged, UpdateLoop):
    """What is different in such an algorithm that trains in the engine."""

    def train(self, gradient_steps: int, batch_size: int) -> None:
        with self._released_on_error():
            self._train(gradient_steps, batch_size)

    def _train(self, gradient_steps: int, batch_size: int) -> None:
        session = self._session
        self._update_learning_rate(session.update.optimizers)
        if not session.take_over():
            super().train(gradient_steps, batch_size)  # type: ignore[safe-super]
            return
        for _ in range(gradient_steps):
            for name, loss in session.train(1, batch_size).items():
                self._means.add(name, loss)
            self._n_updates += 1

    def _tell(self, callback: BaseCallback, variables: dict[str, Any]) -> bool:
        # Who may hold layers of the model sees the true ones at every update, and may change them.
        self._session.guests = look_through_references(callback)
        with self._released_on_error(), self._session.open():
            return super()._tell(callback, variables)
