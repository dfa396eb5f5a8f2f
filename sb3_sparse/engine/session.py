"""
The engine at work on a model: who has the true parameters, and when they change hands.

While the engine trains, its flat vectors are ahead of the model's tensors. They are copied to the model when somebody asks for
it (:meth:`Session.look`), and from then on the model counts: whoever looks may also change it. Before the next update the
engine reads the model again, and lays out its memory anew if a mask has changed.
"""

from __future__ import annotations

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
        self._laid_out = False
        #: Whether the engine has trained since the model was last written.
        self._ahead = False
        #: Whether somebody may have changed the model since it was last read.
        self._looked_at = True
        #: Why the next gradient step has to be SB3's, if it has.
        self.reason: str | None = None

    def look(self) -> None:
        """Make the model true. Who calls this may change the model until the engine goes on."""
        if self._ahead:
            self.update.write_weights()
            self.update.write_moments()
            self._ahead = False
        self._looked_at = True

    @contextmanager
    def open_to(self, guests: bool) -> Iterator[None]:
        """
        Let callbacks work.

        :param guests: Whether some of them may have layers of the model in hand. They find the true weights there, and may
            change them. Moments are true for those only who ask the model for its optimizers.
        """
        shown = guests and self._ahead
        if shown:
            self.update.write_weights()
        yield
        if shown and self._ahead and self.update.differ:
            # The weights of the model are theirs now.
            self.update.write_moments()
            self._ahead = False
            self._looked_at = True

    def take_over(self) -> bool:
        """
        Make the engine true.

        :return: Whether it is; if not, :attr:`reason` says why the next gradient step has to be SB3's
        """
        if self._looked_at:
            self.reason = why_not_now(self.model)
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
        self._ahead = True
        self.update.on_step()
        return True

    def train(self, gradient_steps: int, batch_size: int) -> dict[str, float]:
        """:meth:`Update.gradient_steps`, once the engine has taken over."""
        self._ahead = True
        return self.update.gradient_steps(gradient_steps, batch_size)
