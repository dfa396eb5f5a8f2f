"""
The engine at work on a model: who has the true parameters, and when they change hands.

While the engine trains, its flat vectors are ahead of the model's tensors. They are copied to the model when somebody asks for
it (:meth:`Session.look`), and from then on the model counts: whoever looks may also change it. Before the next update the
engine reads the model again, and lays out its memory anew if a mask has changed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sb3_sparse.engine.support import why_not_now
from sb3_sparse.engine.updates import Update

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


class Session:
    """
    :param model: The model.
    :param update: Its update, not laid out yet.
    """

    def __init__(self, model: BaseAlgorithm, update: Update) -> None:
        self.model = model
        self.update = update
        #: Whether callbacks of this run may have layers of the model in hand.
        self.guests = False
        self._laid_out = False
        #: Whether the engine has trained since the model was last written.
        self._ahead = False
        #: Whether the weights of the model are those of the engine, or what guests have made of them since.
        self._shown = False
        #: Whether guests may have changed what the next gradient step does.
        self._to_check = False
        #: Whether somebody may have changed the model since it was last read.
        self._looked_at = True
        #: Why the next gradient step has to be SB3's, if it has.
        self.reason: str | None = None
        #: One thread at a time: another one may ask for the policy in the middle of an update.
        self._lock = threading.RLock()

    def look(self) -> None:
        """Make the model true. Who calls this may change the model until the engine goes on."""
        with self._lock:
            self._settle()
            if self._ahead:
                self.update.write_weights()
                self.update.write_moments()
                self._ahead = False
            self._looked_at = True

    @contextmanager
    def open(self) -> Iterator[None]:
        """
        Let callbacks work. If there are guests, they find the true weights in the layers that they have in hand, and may
        change them. Moments are true for those only who ask the model for its optimizers.
        """
        self._show()
        yield
        self._settle()
        # They may have put hooks on layers, or frozen them.
        self._to_check = self._to_check or self.guests

    def _show(self) -> None:
        if self.guests and self._ahead and not self._shown:
            self.update.write_weights()
            self._shown = True

    def _settle(self) -> None:
        """If guests have changed the weights that they have in hand, the model's are the true ones."""
        true = self._shown or not self._ahead
        if self.guests and true and not self._looked_at and self.update.differ:
            if self._ahead:
                self.update.write_moments()
                self._ahead = False
            self._looked_at = True

    def take_over(self) -> bool:
        """
        Make the engine true.

        :return: Whether it is; if not, :attr:`reason` says why the next gradient step has to be SB3's
        """
        with self._lock:
            self._settle()
            if self._to_check and not self._looked_at and why_not_now(self.model, self.update) is not None:
                self._looked_at = True
            self._to_check = False
            if self._looked_at:
                self.look()
                self.reason = why_not_now(self.model, self.update)
                if self.reason is not None:
                    return False
                self.update.prune_targets()
                if not self._laid_out or self.update.changed:
                    self.update.layout()
                    self._laid_out = True
                self.update.read()
                self._looked_at = False
            return True

    def on_step(self) -> bool:
        """
        Let target networks follow after an environment step.

        :return: Whether they have; if not, this step is SB3's
        """
        if not (self.update.is_due() and self.take_over()):
            return False
        with self._at_work():
            return self.update.on_step()

    def train(self, gradient_steps: int, batch_size: int) -> dict[str, float]:
        """:meth:`Update.gradient_steps`, once the engine has taken over."""
        with self._at_work():
            return self.update.gradient_steps(gradient_steps, batch_size)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._lock:
            self._ahead, self._shown = True, False
            try:
                yield
            finally:
                # Somebody may have looked in the meantime, such as a replay buffer that asks for the policy.
                self._ahead, self._shown, self._looked_at = True, False, False
            self._show()
