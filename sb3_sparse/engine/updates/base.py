"""
What an algorithm has to say to train in the engine: which networks it has, its equations, and its random numbers.

One file per algorithm. Its update draws the same random numbers in the same order as the algorithm's own ``train()``, so that
the engine may take over from SB3, and SB3 from the engine, between any two gradient steps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch.optim import Optimizer

from sb3_sparse.engine.batch import Batch, ReplayBatch
from sb3_sparse.engine.kernels.library import Team
from sb3_sparse.engine.networks.parameters import Parameters
from sb3_sparse.engine.program.answers import Answers
from sb3_sparse.engine.program.build import Program
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Value

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


class Update:
    """
    The gradient step of an algorithm.

    A subclass finds its networks and parameters in ``__init__``.

    :param model: The model.
    :raises Unsupported: if the engine cannot train it
    """

    #: The classes that it can train. A subclass of one of them may do something else.
    algorithms: ClassVar[tuple[type, ...]]
    #: Attributes of the model that the equations hold as constants. They are written anew if one has changed.
    constants: ClassVar[tuple[str, ...]] = ()
    parameters: list[Parameters]
    #: Whether dense products are of bfloat16.
    half = False
    #: A second thread.
    team: Team | None = None

    def __init__(self, model: BaseAlgorithm) -> None:
        #: Which attributes it has depends on the algorithm.
        self.model: Any = model
        self._programs: dict[Hashable, Program] = {}
        self._answers = Answers(self._refresh)
        self._batch: Batch | None = None
        self._constants: tuple[object, ...] = ()
        #: The modules of the policy that the networks were found in.
        self.modules = list(self.model.policy.modules())

    def _equations(self, trace: Trace, batch: Batch, variant: Hashable) -> None:
        """
        Write down one gradient step, of an algorithm that learns from transitions.

        :param trace: Where to write it.
        :param batch: The batch.
        :param variant: What :meth:`_variant` has returned for this step.
        :raises TypeError: for an algorithm that learns from rollouts, which has gradient steps of its own
        """
        raise TypeError(f"{type(self).__name__} is of an algorithm that learns from rollouts")

    def _make_batch(self, size: int) -> Batch:
        return ReplayBatch(self.model, size)

    def _action(self, trace: Trace, observations: Value, deterministic: bool) -> Value:
        """
        Write down the policy, of an algorithm that explores.

        :param trace: Where to write it.
        :param observations: Observations.
        :param deterministic: Whether to leave out the noise.
        :return: Actions, as the policy's network gives them
        :raises TypeError: for an offline algorithm, which does not explore
        """
        raise TypeError(f"{type(self).__name__} is of an algorithm that does not explore")

    def _variant(self, step: int) -> Hashable:
        """
        :param step: Number of the gradient step in this call of ``train()``, from 0.
        :return: What the equations of this step depend on; steps with the same answer have the same equations
        """
        return None

    @property
    def optimizers(self) -> list[Optimizer]:
        """The optimizers whose learning rate follows the schedule."""
        return [parameters.optimizer for parameters in self.parameters]

    @property
    def changed(self) -> bool:
        """Whether the layout no longer fits the model."""
        return any(parameters.changed for parameters in self.parameters)

    def trouble(self) -> str | None:
        """Why the engine cannot take the next gradient step, or None."""
        return next((reason for parameters in self.parameters if (reason := parameters.trouble())), None)

    def layout(self) -> None:
        """Lay out all parameters anew, by the present masks."""
        for parameters in self.parameters:
            parameters.layout(half=self.half, threads=1 if self.team is None else 2)
        self._programs.clear()
        self._answers.clear()

    def prune_targets(self) -> None:
        """Prune target networks in the model, as their hooks do whenever SB3 uses them."""
        for parameters in self.parameters:
            parameters.prune_target()

    def read(self) -> None:
        """Copy all parameters from the model, and refresh what is computed from them."""
        for parameters in self.parameters:
            parameters.read()
        self._refresh()

    def _refresh(self) -> None:
        """Compute what depends on the parameters alone, for all programs that have been built."""
        trace = Trace(1)
        trace.refresh(self.parameters)
        Program(trace).run()

    def write_weights(self) -> None:
        """Copy values and target networks into the model."""
        for parameters in self.parameters:
            parameters.write_weights()

    def write_moments(self) -> None:
        """Copy the optimizers' moments into the model."""
        for parameters in self.parameters:
            parameters.write_moments()

    @property
    def differ(self) -> bool:
        """Whether somebody has changed values, target networks or masks in the model since they were written."""
        return self.changed or any(parameters.differ for parameters in self.parameters)

    def gradient_steps(self, count: int, batch_size: int) -> dict[str, float]:
        """
        :param count: Number of gradient steps.
        :param batch_size: Number of samples of each.
        :return: Means of the logged values over the steps that have them
        """
        if self._batch is None or self._batch.size != batch_size:
            self._batch = self._make_batch(batch_size)
            self._programs.clear()
        self._prepare()
        values: dict[str, list[float]] = defaultdict(list)
        for step in range(count):
            variant = self._variant(step)
            program = self._programs.get(variant)
            if program is None:
                trace = Trace(batch_size, self._batch.generator)
                self._equations(trace, self._batch, variant)
                program = self._programs[variant] = Program(trace, self.team)
                self._refresh()
            self._batch.draw(step)
            for name, value in program.run().items():
                values[name].append(value)
        return {name: sum(column) / len(column) for name, column in values.items()}

    def _prepare(self) -> None:
        """Before gradient steps: read what may have changed since the last ones."""
        constants = tuple(getattr(self.model, name) for name in self.constants)
        if constants != self._constants:
            self._programs.clear()
            self._constants = constants
        for parameters in self.parameters:
            parameters.read_learning_rate()

    def is_due(self) -> bool:
        """Whether target networks follow after the present environment step; SB3 does everything else in ``_on_step()``."""
        return False

    def on_step(self) -> bool:
        """
        Do what the algorithm's ``_on_step()`` does when target networks are due.

        :return: Whether that is done; if not, it is left to SB3
        """
        return False

    def act(self, observations: np.ndarray, *, deterministic: bool) -> np.ndarray:
        """
        :param observations: Observations of shape ``[n, features]``.
        :param deterministic: Whether to leave out the noise.
        :return: Actions as the policy's network gives them, of shape ``[n, features]``
        """
        return self._answers.ask(deterministic, observations, lambda trace, inputs: self._action(trace, inputs, deterministic))
