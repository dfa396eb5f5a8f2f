"""The callback that lets ``learn()`` train in the engine."""

from __future__ import annotations

import warnings

from stable_baselines3.common.callbacks import BaseCallback, EventCallback

from sb3_sparse.engine.learner import engage, release
from sb3_sparse.engine.session import Session
from sb3_sparse.engine.support import find_update
from sb3_sparse.engine.updates.chain import Unsupported


class EngineCallback(BaseCallback):
    """
    Train in the engine: ``learn()`` computes its gradient steps, and the actions that it explores with, on the weights that
    exist. Dense models gain too, because nothing is computed that SB3 throws away.

        model = SAC("MlpPolicy", "HalfCheetah-v4")
        model.learn(1_000_000, callback=[OneShotPruningCallback("all", 0.9, saliency="random"), EngineCallback()])

    The model stays SB3's: the same random numbers lead to the same batches, noise and actions, and the same equations to the
    same parameters up to the rounding of float32. Callbacks, the logger, evaluation and saving see the true weights at every
    step. A run saved in the engine goes on without it, and the reverse. Offline algorithms train in it the same way.

    A callback of your own may hold layers or tensors of the model, so the engine writes the weights to them before every call,
    which costs a tenth to a third of a sparse update. A class that only asks the model for what it needs
    (``self.model.policy``, ``self.model.predict``, ``self.logger``) can say so by the attribute ``holds_layers = False``.

    What the engine cannot train, SB3 trains, with a warning that says why: other algorithms, images, gSDE,
    GPUs, optimizers other than Adam, AdamW and RMSprop, a machine without a C++ compiler.

    :param precision: Of the products: "float32".
    :param threads: Number of threads: 1.
    :param strict: Raise an error instead of training on SB3.
    :param verbose: Verbosity level: 0 for no output, 1 for a line at the start.
    :raises ValueError: on another precision or number of threads; at the start of training, if strict, on a model that the
        engine cannot train
    """

    def __init__(self, precision: str = "float32", threads: int = 1, strict: bool = False, verbose: int = 0) -> None:
        super().__init__(verbose)
        if precision != "float32":
            raise ValueError(f"precision={precision!r}: the engine computes in 'float32'")
        if threads != 1 or isinstance(threads, bool):
            raise ValueError(f"threads={threads!r}: the engine runs on 1 thread")
        self.precision = precision
        self.threads = threads
        self.strict = strict
        #: Why the present run is trained by SB3; None if the engine trains it.
        self.reason: str | None = None

    def _init_callback(self) -> None:
        if isinstance(self.parent, EventCallback):
            raise ValueError(f"EngineCallback cannot be inside {type(self.parent).__name__}: put it into the list itself")

    def _on_training_start(self) -> None:
        release(self.model)
        try:
            session = Session(self.model, find_update(self.model))
        except Unsupported as error:
            self.reason = str(error)
            if self.strict:
                raise ValueError(f"the engine cannot train this model: {error}") from error
            warnings.warn(f"SB3 trains this model, because the engine cannot: {error}", stacklevel=2)
            return
        self.reason = None
        engage(self.model, session)
        if self.verbose > 0:
            print("EngineCallback: training in the engine")

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        # rl-zoo3 calls this twice, and also when training has failed to start.
        if getattr(self, "model", None) is not None:
            release(self.model)
