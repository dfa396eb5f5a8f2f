"""
The equations of an update as a list of instructions.

An update writes its equations once, on :class:`Value` objects. A value stands for a batch of vectors: ``features`` numbers per
sample. Nothing is computed while the equations are written. Each operation appends one instruction, and the kernels execute
the list at every update. :func:`~sb3_sparse.engine.program.gradient.backward` appends
the backward pass of a loss, :meth:`Trace.step` the optimizer's step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch as th

from sb3_sparse.engine.kernels.structs import Op
from sb3_sparse.engine.networks.memory import Flat
from sb3_sparse.engine.program.source import Array, Noise
from sb3_sparse.engine.program.value import Instruction, Node, Recorder, Value

if TYPE_CHECKING:
    from sb3_sparse.engine.networks.parameters import Parameters
    from sb3_sparse.engine.networks.vector import Vector
    from sb3_sparse.engine.networks.weights import Weights

#: Operations that write exactly the rows of their result, so that the result may lie between the rows of another value.
_EXACT = {op for op in Op if Op.COPY <= op <= Op.TANH_GRADIENT} | {Op.LOAD}


@dataclass(eq=False)
class Trace(Recorder):
    """
    The instructions in the order of their execution, and the nodes that a backward pass follows.

    :param batch_size: Number of samples.
    :param generator: Generator of the noise; None for torch's global one.
    :ivar share: The share of each sample in a mean over the batch; 0 for the lanes that only fill the last panel.
    :ivar statistics: Values whose mean over the batch is logged, by name.
    """

    batch_size: int
    generator: th.Generator | None = None
    instructions: list[Instruction] = field(default_factory=list)
    noises: list[Noise] = field(default_factory=list)
    nodes: dict[Value, Node] = field(default_factory=dict)
    vectors: dict[Value, Vector] = field(default_factory=dict)
    statistics: dict[str, Value] = field(default_factory=dict)
    kept: list[Value] = field(default_factory=list)
    #: Parameters that have a gradient since their optimizer's last step.
    touched: set[Weights | Vector] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.share = Value(self, 1)
        self.kept.append(self.share)

    def record(self, node: Node) -> Value:
        self.nodes[node.result] = node
        return node.result

    def emit(
        self,
        op: Op,
        features: int,
        *,
        a: Value | None = None,
        b: Value | None = None,
        c: Value | None = None,
        n: int = 0,
        k: int = 0,
        flags: int = 0,
        x: tuple[float, ...] = (),
        weights: Weights | None = None,
        data: Callable[[], int] | None = None,
    ) -> Value:
        """Append an instruction that computes a new value of ``features`` rows."""
        inputs = tuple(value for value in (a, b, c) if value is not None)
        single = op is Op.ROWS or (bool(inputs) and all(value.single for value in inputs))
        dst = Value(self, features, single)
        instruction = Instruction(op, dst, a, b, c, n or features, k, flags, x, weights, data)
        self.instructions.append(instruction)
        return self.record(Node(dst, inputs, instruction))

    def load(self, array: Array) -> Value:
        """The samples of this batch."""
        return self.emit(Op.LOAD, array.columns, data=array.address)

    def noise(self, columns: int, std: float = 1.0) -> Value:
        """Normal numbers. The noises of a program are drawn in the order of these calls, whenever it runs."""
        self.noises.append(Noise(self.batch_size, columns, std, self.generator))
        return self.load(self.noises[-1])

    def rows(self, vector: Vector) -> Value:
        """The numbers of a vector of parameters, the same for all samples."""
        value = self.emit(Op.ROWS, vector.size, data=vector.address)
        self.vectors[value] = vector
        return value

    def constant(self, numbers: np.ndarray) -> Value:
        """Numbers that are the same for all samples; the array may change between two runs of the program."""
        return self.emit(Op.ROWS, len(numbers), data=lambda: int(numbers.ctypes.data))

    def concat(self, parts: Sequence[Value]) -> Value:
        """``th.cat(parts, dim=1)``"""
        if len(parts) == 1:
            return parts[0]
        whole = Value(self, sum(part.features for part in parts))
        first = 0
        for part in parts:
            instruction = self.nodes[part].instruction
            if part.home is None and not part.single and instruction is not None and instruction.op in _EXACT:
                part.home = whole, first
            else:
                row = Value(self, part.features, home=(whole, first))
                self.instructions.append(Instruction(Op.COPY, row, part, n=part.features))
            first += part.features
        return self.record(Node(whole, tuple(parts)))

    def quantile_huber(self, current: Value, target: Value) -> Value:
        """
        The quantile regression loss (Dabney et al. 2018, equation 10) with threshold 1.

        :param current: Estimated quantiles.
        :param target: Their targets; they have no gradient.
        :return: The sum over all pairs of an estimate and a target
        """
        loss = Value(self, 1)
        gradient = Value(self, current.features)
        instruction = Instruction(Op.QUANTILE_HUBER, gradient, current, target, loss, n=current.features, k=target.features)
        self.instructions.append(instruction)
        return self.record(Node(loss, (current, target), instruction))

    def log(self, name: str, value: Value) -> None:
        """Log the mean of a value of one feature over the batch."""
        self.statistics[name] = value * self.share

    def step(self, parameters: Parameters, *, max_norm: float | None = None) -> None:
        """
        Append the step of the parameters' optimizer.

        :param parameters: The parameters.
        :param max_norm: Norm that their gradient is clipped to, as ``th.nn.utils.clip_grad_norm_`` does.
        """
        missing = [item for item in parameters.items if item not in self.touched]
        if missing:
            raise ValueError(f"no loss reaches {missing}")
        self._vectors(Op.MASK, parameters, ("gradient", "mask"))
        if max_norm is not None:
            norm = parameters.norm_address
            self._vectors(Op.SQUARE_SUM, parameters, ("", "gradient"), data=norm)
            self._vectors(Op.CLIP, parameters, ("gradient",), data=norm, x=(max_norm,))
        names = ("value", *parameters.moments, "gradient")
        self._vectors(parameters.rule, parameters, names, data=parameters.settings_address)
        for weights in parameters.weights:
            self._refresh(weights)
        self.touched.difference_update(parameters.items)

    def refresh(self, parameters: Sequence[Parameters]) -> None:
        """Append what is computed from the parameters and their target networks whenever they change."""
        for weights in (weights for each in parameters for weights in each.weights):
            self._refresh(weights)
            if weights.target is not None:
                self._refresh(weights.target)

    def _refresh(self, weights: Weights) -> None:
        for op in (Op.FAKE_QUANTIZE, Op.TO_STEPS):
            self.instructions.append(Instruction(op, weights=weights, flat=weights.quantization))
        self.instructions.append(Instruction(Op.REFRESH, weights=weights))

    def keep(self, value: Value) -> None:
        """Keep a value of the whole batch until the program has ended."""
        self.kept.append(value)

    def follow(self, parameters: Parameters, tau: float) -> None:
        """Append the soft update of the parameters' target network (``polyak_update``), and the pruning that it may need."""
        self._vectors(Op.POLYAK, parameters, ("target", "value"), x=(tau,))
        self._vectors(Op.POLYAK_INDEXED, parameters, ("target", "value"), data=parameters.sources_address, x=(tau,))
        for target in (weights.target for weights in parameters.weights):
            if target is not None:
                self.instructions.append(Instruction(Op.KEEP_LARGEST, weights=target, flat=target.pruning))
                self._refresh(target)

    def _vectors(
        self,
        op: Op,
        parameters: Parameters,
        names: tuple[str, ...],
        *,
        data: Callable[[], int] | None = None,
        x: Iterable[float] = (),
    ) -> None:
        def flat() -> Flat:
            operands = {o: parameters.address(name) for o, name in zip(("dst", "a", "b", "c"), names, strict=False) if name}
            return Flat(operands, parameters.target_size if "target" in names else parameters.size)

        self.instructions.append(Instruction(op, x=tuple(map(float, x)), data=data, parameters=parameters, flat=flat))
