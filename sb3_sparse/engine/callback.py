"""The callback that lets ``learn()`` train in the engine."""

from __future__ import annotations

import os
import warnings

from stable_baselines3.common.callbacks import BaseCallback, EventCallback

from sb3_sparse.engine.kernels.library import Team, has_bfloat16
from sb3_sparse.engine.learner import engage, release
from sb3_sparse.engine.session import Session
from sb3_sparse.engine.support import find_update
from sb3_sparse.engine.updates.chain import Unsupported

PRECISIONS = ("float32", "bf16")


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

    :param precision: Of the products in dense layers: "float32", or "bf16" for bfloat16, which is nearly twice as fast.
        Weights, moments, sums, sparse layers and the answers to single observations are float32 in any case. A processor
        without AVX512_BF16 computes in float32, with a warning.
    :param threads: 1, or 2 for a second thread that computes half of each batch, where there are more than 128 samples. It
        shortens the time of a step, not its CPU time, and only where a second processor is idle: both threads wait for each
        other without sleeping. Sums are added up in another order than by one thread.
    :param strict: Raise an error instead of training on SB3, or without the precision or the thread that was asked for.
    :param verbose: Verbosity level: 0 for no output, 1 for a line at the start.
    :raises ValueError: on another precision or number of threads; at the start of training, if strict, on a model that the
        engine cannot train, or a processor without bfloat16
    """

    def __init__(self, precision: str = "float32", threads: int = 1, strict: bool = False, verbose: int = 0) -> None:
        super().__init__(verbose)
        if precision not in PRECISIONS:
            raise ValueError(f"precision={precision!r} is none of {', '.join(map(repr, PRECISIONS))}")
        if type(threads) is not int or threads not in (1, 2):
            raise ValueError(f"threads={threads!r}: the engine runs on 1 thread or 2")
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
            update = find_update(self.model)
            update.half = self.precision == "bf16" and self._has_bfloat16()
            update.team = self._make_team() if self.threads == 2 else None
        except Unsupported as error:
            self.reason = str(error)
            if self.strict:
                raise ValueError(f"the engine cannot train this model: {error}") from error
            warnings.warn(f"SB3 trains this model, because the engine cannot: {error}", stacklevel=2)
            return
        self.reason = None
        engage(self.model, Session(self.model, update))
        if self.verbose > 0:
            print("EngineCallback: training in the engine")

    def _has_bfloat16(self) -> bool:
        return has_bfloat16() or self._does_without(
            "precision='bf16': this processor has no products of bfloat16 (AVX512_BF16)", "computes in float32"
        )

    def _make_team(self) -> Team | None:
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        lack = "this process may use one processor" if processors < 2 else ""
        try:
            team = None if lack else Team()
        except RuntimeError as error:
            team, lack = None, str(error)
        if team is None:
            self._does_without(f"threads=2: {lack}", "runs on 1 thread")
        return team

    def _does_without(self, lack: str, instead: str) -> bool:
        if self.strict:
            raise ValueError(lack)
        warnings.warn(f"{lack}, so the engine {instead}", stacklevel=4)
        return False

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        # rl-zoo3 calls this twice, and also when training has failed to start.
        if getattr(self, "model", None) is not None:
            release(self.model)
