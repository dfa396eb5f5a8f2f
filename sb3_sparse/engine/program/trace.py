"""
The equations of an update as a list of instructions.

An update writes its equations once, on :class:`Value` objects. A value stands for a batch of vectors: ``features`` numbers per
sample. Nothing is computed while the equations are written. Each operation appends one instruction, and the kernels execute
the list at every update. :meth:`Trace.backward` appends the backward pass of a loss, :meth:`Trace.step` the optimizer's step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sb3_sparse.engine.kernels.structs import Op
from sb3_sparse.engine.program.source import Array, Noise

if TYPE_CHECKING:
    from sb3_sparse.engine.networks.parameters import Parameters, Vector
    from sb3_sparse.engine.networks.weights import Weights

#: Operations that write exactly the rows of their result, so that the result may lie between the rows of another value.
_EXACT = {op for op in Op if Op.COPY <= op <= Op.MULTIPLY_ADD} | {Op.LOAD}


@dataclass(eq=False)
class Value:
    """
    A batch of vectors, or rows of numbers that are the same for all samples. Arithmetic works as on tensors of shape
    ``[batch, features]``. A value of one feature is broadcast over the features of another.

    :param trace: The trace that it belongs to.
    :param features: Its number of rows.
    :param single: Whether it is the same in every panel.
    :param home: The value whose rows it shares, and its first row there; None if it has memory of its own.
    """

    trace: Trace
    features: int
    single: bool = False
    home: tuple[Value, int] | None = None

    def place(self) -> tuple[Value, int]:
        """The value that has the memory, and the first row in it."""
        if self.home is None:
            return self, 0
        root, first = self.home[0].place()
        return root, first + self.home[1]

    def __add__(self, other: Value | float) -> Value:
        return self.trace.binary(Op.ADD, self, other) if isinstance(other, Value) else self.affine(1.0, other)

    def __sub__(self, other: Value | float) -> Value:
        return self.trace.binary(Op.SUB, self, other) if isinstance(other, Value) else self.affine(1.0, -other)

    def __mul__(self, other: Value | float) -> Value:
        return self.trace.binary(Op.MUL, self, other) if isinstance(other, Value) else self.affine(other, 0.0)

    def __truediv__(self, other: Value | float) -> Value:
        return self.trace.binary(Op.DIV, self, other) if isinstance(other, Value) else self.affine(1.0 / other, 0.0)

    def __radd__(self, other: float) -> Value:
        return self.affine(1.0, other)

    def __rsub__(self, other: float) -> Value:
        return self.affine(-1.0, other)

    def __rmul__(self, other: float) -> Value:
        return self.affine(other, 0.0)

    def __neg__(self) -> Value:
        return self.affine(-1.0, 0.0)

    def __getitem__(self, rows: slice) -> Value:
        start, stop, step = rows.indices(self.features)
        if step != 1 or stop <= start:
            raise ValueError(f"{rows} is no range of {self.features} features")
        return self.trace.record(Node(Value(self.trace, stop - start, self.single, (self, start)), (self,)))

    def affine(self, factor: float, summand: float) -> Value:
        """``factor * self + summand``"""
        return self.trace.unary(Op.AFFINE, self, factor, summand)

    def clamp(self, low: float, high: float) -> Value:
        return self.trace.unary(Op.CLAMP, self, low, high)

    def exp(self) -> Value:
        return self.trace.unary(Op.EXP, self)

    def log(self) -> Value:
        return self.trace.unary(Op.LOG, self)

    def tanh(self) -> Value:
        return self.trace.unary(Op.TANH, self)

    def relu(self) -> Value:
        return self.trace.unary(Op.RELU, self)

    def sigmoid(self) -> Value:
        return self.trace.unary(Op.SIGMOID, self)

    def square(self) -> Value:
        return self.trace.unary(Op.SQUARE, self)

    def abs(self) -> Value:
        return self.trace.unary(Op.ABS, self)

    def min(self, other: Value) -> Value:
        """The smaller of two values. Where they are equal the gradient goes to the first."""
        return self.trace.binary(Op.MIN, self, other)

    def max(self, other: Value) -> Value:
        """The larger of two values. Where they are equal the gradient goes to the first."""
        return self.trace.binary(Op.MAX, self, other)

    def sum(self) -> Value:
        """The sum over the features."""
        return self.trace.emit(Op.SUM, 1, a=self, n=self.features, k=1)

    def mean(self) -> Value:
        """The mean over the features."""
        return self.sum() / self.features

    def largest(self) -> Value:
        """The largest feature of each sample."""
        return self.trace.emit(Op.REDUCE_MAX, 1, a=self, n=self.features)

    def argmax(self) -> Value:
        """The index of the largest feature of each sample."""
        return self.trace.emit(Op.ARGMAX, 1, a=self, n=self.features)

    def sort(self) -> Value:
        """The features of each sample in ascending order."""
        return self.trace.emit(Op.SORT, self.features, a=self)

    def sum_groups(self, choices: int) -> Value:
        """
        :param choices: Size of each group of consecutive features.
        :return: The sum over the groups, as ``x.view(batch, groups, choices).sum(1)``
        """
        return self.trace.emit(Op.SUM, choices, a=self, n=self.features // choices, k=choices)

    def take(self, index: Value, choices: int) -> Value:
        """
        :param index: One index per sample, in ``[0, choices)``.
        :param choices: Size of each group of consecutive features.
        :return: The feature of this index of each group, as ``x.view(batch, groups, choices)[..., index]``
        """
        return self.trace.emit(Op.TAKE, self.features // choices, a=self, b=index, k=choices)


@dataclass(eq=False)
class Node:
    """
    What a value was computed from. Views and concatenations have nodes, but no instruction of their own.

    :param result: The value.
    :param inputs: The values that it was computed from.
    :param instruction: How, unless it only shares memory.
    """

    result: Value
    inputs: tuple[Value, ...]
    instruction: Instruction | None = None


@dataclass(eq=False)
class Instruction:
    """
    One instruction of the kernels; :class:`~sb3_sparse.engine.kernels.structs.Op` says what each of them computes.

    The addresses of arrays are asked for when the program is built, because arrays move when weights are pruned or grown.

    :param op: The operation.
    :param vectors: In place of ``dst``, ``a``, ``b``, ``c``: the flat arrays to work on, by name.
    """

    op: Op
    dst: Value | None = None
    a: Value | None = None
    b: Value | None = None
    c: Value | None = None
    n: int = 0
    k: int = 0
    flags: int = 0
    x: tuple[float, ...] = ()
    weights: Weights | None = None
    data: Callable[[], int] | None = None
    parameters: Parameters | None = None
    vectors: tuple[str, ...] = ()

    def values(self) -> list[Value]:
        """The values that it reads or writes."""
        return [value for value in (self.dst, self.a, self.b, self.c) if value is not None]


@dataclass(eq=False)
class Trace:
    """
    The instructions in the order of their execution, and the nodes that a backward pass follows.

    :param batch_size: Number of samples.
    :ivar share: The share of each sample in a mean over the batch; 0 for the lanes that only fill the last panel.
    :ivar statistics: Values whose mean over the batch is logged, by name.
    """

    batch_size: int
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
        self.noises.append(Noise(self.batch_size, columns, std))
        return self.load(self.noises[-1])

    def rows(self, vector: Vector) -> Value:
        """The numbers of a vector of parameters, the same for all samples."""
        value = self.emit(Op.ROWS, vector.size, data=vector.address)
        self.vectors[value] = vector
        return value

    def constant(self, numbers: np.ndarray) -> Value:
        """Numbers that are the same for all samples; the array may change between two runs of the program."""
        return self.emit(Op.ROWS, len(numbers), data=lambda: int(numbers.ctypes.data))

    def unary(self, op: Op, a: Value, *x: float) -> Value:
        return self.emit(op, a.features, a=a, x=tuple(map(float, x)))

    def binary(self, op: Op, a: Value, b: Value) -> Value:
        features = max(a.features, b.features)
        if not {a.features, b.features} <= {1, features}:
            raise ValueError(f"{a.features} and {b.features} features do not fit each other")
        return self.emit(op, features, a=a, b=b)

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

    def linear(self, weights: Weights, x: Value, *, relu: bool) -> Value:
        """``F.linear(x, weight, bias)``, and its ReLU"""
        return self.emit(Op.LINEAR, weights.outputs, a=x, flags=int(relu), weights=weights)

    def quantile_huber(self, current: Value, target: Value) -> Value:
        """
        The quantile regression loss (Dabney et al. 2018, equation 10) with threshold 1.

        :param current: Estimated quantiles.
        :param target: Their targets; they have no gradient.
        :return: The sum over all pairs of an estimate and a target
        """
        loss = Value(self, 1)
        gradient = Value(self, current.features)
        instruction = Instruction(
            Op.QUANTILE_HUBER, gradient, current, target, loss, n=current.features, k=target.features
        )
        self.instructions.append(instruction)
        return self.record(Node(loss, (current, target), instruction))

    def log(self, name: str, value: Value) -> None:
        """Log the mean of a value of one feature over the batch."""
        self.statistics[name] = value * self.share

    def backward(self, loss: Value, parameters: Parameters) -> None:
        """
        Append the gradient of a loss, as ``loss.mean().backward()``, for some parameters only.

        :param loss: The loss of each sample, of one feature.
        :param parameters: The parameters whose gradient it adds to; all others are constants.
        """
        from sb3_sparse.engine.program.gradient import backward

        backward(self, loss, parameters)

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
        self._vectors(Op.ADAM, parameters, ("value", "mean", "square", "gradient"), data=parameters.settings_address)
        self.refresh([parameters])
        self.touched.difference_update(parameters.items)

    def refresh(self, parameters: Sequence[Parameters]) -> None:
        """Append what is computed from the parameters whenever they change."""
        for weights in (weights for each in parameters for weights in each.weights):
            self.instructions.append(Instruction(Op.REFRESH, weights=weights))

    def keep(self, value: Value) -> None:
        """Keep a value of the whole batch until the program has ended."""
        self.kept.append(value)

    def follow(self, parameters: Parameters, tau: float) -> None:
        """Append the soft update of the parameters' target network (``polyak_update``)."""
        self._vectors(Op.POLYAK, parameters, ("target", "value"), x=(tau,))

    def _vectors(
        self,
        op: Op,
        parameters: Parameters,
        names: tuple[str, ...],
        *,
        data: Callable[[], int] | None = None,
        x: Iterable[float] = (),
    ) -> None:
        instruction = Instruction(op, x=tuple(map(float, x)), data=data, parameters=parameters, vectors=names)
        self.instructions.append(instruction)
