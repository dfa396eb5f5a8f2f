"""What equations are written on: values, and the instructions that compute them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sb3_sparse.engine.kernels.structs import Op

if TYPE_CHECKING:
    from sb3_sparse.engine.networks.memory import Flat
    from sb3_sparse.engine.networks.parameters import Parameters
    from sb3_sparse.engine.networks.weights import Weights


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

    trace: Recorder
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

    def detach(self) -> Value:
        """The same numbers as a constant: no gradient flows through it."""
        return self.trace.record(Node(Value(self.trace, self.features, self.single, (self, 0)), ()))

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

    def less(self, other: Value) -> Value:
        """1 where it is less than the other value, 0 elsewhere."""
        return self.trace.binary(Op.LESS, self, other)

    def where(self, other: Value, condition: Value) -> Value:
        """This value where the condition is not 0, and the other one elsewhere."""
        return self.trace.emit(Op.SELECT, self.features, a=condition, b=self, c=other)

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
    :param parameters: What it works on as a whole, or none.
    :param flat: In place of ``dst``, ``a``, ``b``, ``c``: ranges of flat arrays.
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
    flat: Callable[[], Flat] | None = None

    def values(self) -> list[Value]:
        """The values that it reads or writes."""
        return [value for value in (self.dst, self.a, self.b, self.c) if value is not None]


class Recorder(ABC):
    """Where the operations on values are recorded."""

    @abstractmethod
    def record(self, node: Node) -> Value:
        """Remember what a value was computed from."""

    @abstractmethod
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

    def unary(self, op: Op, a: Value, *x: float) -> Value:
        """Append an operation on each number of a value."""
        return self.emit(op, a.features, a=a, x=tuple(map(float, x)))

    def binary(self, op: Op, a: Value, b: Value) -> Value:
        """Append an operation on the numbers of two values, in pairs."""
        features = max(a.features, b.features)
        if not {a.features, b.features} <= {1, features}:
            raise ValueError(f"{a.features} and {b.features} features do not fit each other")
        return self.emit(op, features, a=a, b=b)
