"""
The backward pass: the chain rule over the nodes of a trace.

Only nodes on a way from the parameters in question to the loss have a gradient. All others are constants, so no value has to
be detached, and the gradients that SB3 computes and throws away are never computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from sb3_sparse.engine.kernels.structs import Flag, Op
from sb3_sparse.engine.program.trace import Trace
from sb3_sparse.engine.program.value import Instruction, Node, Value

if TYPE_CHECKING:
    from sb3_sparse.engine.networks.parameters import Parameters

Rule = Callable[[Trace, Instruction, Value, Value], list[tuple[Value, Value]]]


def backward(trace: Trace, loss: Value, parameters: Parameters) -> None:
    """
    Append the gradient of a loss, as ``loss.mean().backward()``, for some parameters only.

    :param trace: The trace of the loss.
    :param loss: The loss of each sample, of one feature.
    :param parameters: The parameters whose gradient it adds to; all others are constants.
    :raises ValueError: if the loss does not depend on them, or an operation between has no gradient
    """
    _Backward(trace, loss, parameters).run()


class _Backward:
    """One backward pass."""

    def __init__(self, trace: Trace, loss: Value, parameters: Parameters) -> None:
        if loss.features != 1:
            raise ValueError(f"a loss has one feature, not {loss.features}")
        self.trace = trace
        self.loss = loss
        self.parameters = parameters
        self.path = self._find_path()
        if loss not in self.path:
            raise ValueError("the loss does not depend on the parameters")
        #: How many nodes on the path read a value.
        self.readers = Counter(value for node in self.path.values() for value in node.inputs)
        self.gradients: dict[Value, Value] = {loss: trace.share}
        #: Values whose gradient has gone through their own ReLU already.
        self.passed: set[Value] = set()

    def run(self) -> None:
        for node in reversed(self.path.values()):
            gradient = self.gradients.get(node.result)
            if gradient is None:
                continue
            if node.instruction is None:
                self._share(node, gradient)
            elif node.instruction.op is Op.LINEAR:
                self._linear(node.instruction, node.result, gradient)
            elif node.instruction.op is Op.ROWS:
                self._rows(node.result, gradient)
            else:
                rule = RULES.get(node.instruction.op)
                if rule is None:
                    raise ValueError(f"{node.instruction.op.name} has no gradient")
                for value, part in rule(self.trace, node.instruction, node.result, gradient):
                    self._add(value, part)

    def _find_path(self) -> dict[Value, Node]:
        """The nodes that depend on the parameters and that the loss depends on, in the order of the trace."""
        weights, vectors = set(self.parameters.weights), set(self.parameters.vectors)
        depends: set[Value] = set()
        for value, node in self.trace.nodes.items():
            own = node.instruction is not None and node.instruction.weights in weights
            if own or self.trace.vectors.get(value) in vectors or depends.intersection(node.inputs):
                depends.add(value)
        reached, queue = {self.loss}, [self.loss]
        while queue:
            for value in self.trace.nodes[queue.pop()].inputs:
                if value in depends and value not in reached:
                    reached.add(value)
                    queue.append(value)
        return {value: node for value, node in self.trace.nodes.items() if value in reached & depends}

    def _add(self, value: Value, gradient: Value) -> None:
        if value not in self.path:
            return
        if gradient.features > value.features:
            gradient = gradient.sum()
        elif gradient.features < value.features:
            # The gradient of a sum is the same for every summand.
            zeros = self.trace.emit(Op.ZERO, value.features)
            gradient = zeros + gradient
        present = self.gradients.get(value)
        self.gradients[value] = gradient if present is None else present + gradient

    def _share(self, node: Node, gradient: Value) -> None:
        """Of a concatenation each part gets its rows; of a view the whole gets zeros elsewhere."""
        if node.result.home is not None and node.inputs == (node.result.home[0],):
            whole, first = node.result.home
            parts = [self.trace.emit(Op.ZERO, n) for n in (first, whole.features - first - node.result.features) if n]
            parts.insert(1 if first else 0, gradient)
            self._add(whole, self.trace.concat(parts))
            return
        first = 0
        for part in node.inputs:
            if part in self.path:
                self._add(part, gradient[first : first + part.features])
            first += part.features

    def _rows(self, value: Value, gradient: Value) -> None:
        vector = self.trace.vectors[value]
        add = Flag.ADD if vector in self.trace.touched else 0
        self.trace.touched.add(vector)
        address = vector.gradient_address
        self.trace.instructions.append(Instruction(Op.SUM_BATCH, a=gradient, n=vector.size, flags=add, data=address))

    def _linear(self, instruction: Instruction, result: Value, gradient: Value) -> None:
        trace, weights, x = self.trace, instruction.weights, instruction.a
        assert weights is not None and x is not None
        if instruction.flags & Flag.RELU_OUTPUT and result not in self.passed:
            gradient = trace.emit(Op.RELU_GRADIENT, gradient.features, a=gradient, c=result)
        if weights in self.parameters.weights:
            add = Flag.ADD if weights in trace.touched else 0
            trace.touched.add(weights)
            # At once: later the gradient would have to be kept for the whole batch, beside those of all other layers.
            sums = Instruction(Op.LINEAR_WEIGHT_GRADIENT, a=gradient, b=x, flags=add, weights=weights)
            trace.instructions.append(sums)
        if x not in self.path:
            return
        features = weights.inputs - weights.first
        below = trace.nodes[x]
        if weights.first:
            # The gradient of the first features is not needed: they are observations.
            if below.instruction is not None or below.result.home is not None:
                raise ValueError("a layer without the gradient of its first inputs must read a concatenation")
            weights.needs_transposed = True
            part = trace.emit(Op.LINEAR_INPUT_GRADIENT, features, a=gradient, weights=weights)
            first = -weights.first
            for value in below.inputs:
                if value in self.path:
                    self._add(value, part[first : first + value.features])
                first += value.features
            return
        weights.needs_transposed = True
        own = below.instruction
        fused = own is not None and own.op is Op.LINEAR and bool(own.flags & Flag.RELU_OUTPUT) and self.readers[x] == 1
        if fused:
            self.passed.add(x)
        flags, mask = (Flag.MASK_BY_INPUT, x) if fused else (0, None)
        self._add(x, trace.emit(Op.LINEAR_INPUT_GRADIENT, features, a=gradient, c=mask, flags=flags, weights=weights))


def _inputs(instruction: Instruction) -> tuple[Value, Value]:
    assert instruction.a is not None
    return instruction.a, instruction.b or instruction.a


def _min_max(trace: Trace, instruction: Instruction, result: Value, gradient: Value) -> list[tuple[Value, Value]]:
    a, b = _inputs(instruction)
    smaller, larger = (a, b) if instruction.op is Op.MIN else (b, a)
    first = trace.binary(Op.GREATER_EQUAL, larger, smaller)
    return [(a, gradient * first), (b, gradient * (1.0 - first))]


def _sum(trace: Trace, instruction: Instruction, result: Value, gradient: Value) -> list[tuple[Value, Value]]:
    # Each group gets the gradient of the sum; one feature is broadcast.
    return [(_inputs(instruction)[0], gradient if instruction.k == 1 else trace.concat([gradient] * instruction.n))]


def _clamp(trace: Trace, instruction: Instruction, result: Value, gradient: Value) -> list[tuple[Value, Value]]:
    a, _ = _inputs(instruction)
    low, high = instruction.x
    # Inside, including the bounds, as torch has it.
    inside = trace.binary(Op.GREATER_EQUAL, a, a.affine(0.0, low)) * trace.binary(Op.GREATER_EQUAL, a.affine(0.0, high), a)
    return [(a, gradient * inside)]


def _quantile_huber(trace: Trace, instruction: Instruction, result: Value, gradient: Value) -> list[tuple[Value, Value]]:
    assert instruction.a is not None and instruction.dst is not None
    return [(instruction.a, instruction.dst * gradient)]


def _take(trace: Trace, instruction: Instruction, result: Value, gradient: Value) -> list[tuple[Value, Value]]:
    a, index = _inputs(instruction)
    put = trace.emit(Op.PUT, a.features, a=gradient, b=index, n=gradient.features, k=instruction.k)
    return [(a, put)]


#: For each operation: its inputs and their gradients, from the gradient of its result.
RULES: dict[Op, Rule] = {
    Op.ADD: lambda t, i, y, g: [(_inputs(i)[0], g), (_inputs(i)[1], g)],
    Op.SUB: lambda t, i, y, g: [(_inputs(i)[0], g), (_inputs(i)[1], -g)],
    Op.MUL: lambda t, i, y, g: [(_inputs(i)[0], g * _inputs(i)[1]), (_inputs(i)[1], g * _inputs(i)[0])],
    Op.DIV: lambda t, i, y, g: [(_inputs(i)[0], g / _inputs(i)[1]), (_inputs(i)[1], -(g * y / _inputs(i)[1]))],
    Op.MIN: _min_max,
    Op.MAX: _min_max,
    Op.AFFINE: lambda t, i, y, g: [(_inputs(i)[0], g * i.x[0])],
    Op.CLAMP: _clamp,
    Op.EXP: lambda t, i, y, g: [(_inputs(i)[0], g * y)],
    Op.LOG: lambda t, i, y, g: [(_inputs(i)[0], g / _inputs(i)[0])],
    Op.TANH: lambda t, i, y, g: [(_inputs(i)[0], t.emit(Op.TANH_GRADIENT, y.features, a=g, c=y))],
    Op.RELU: lambda t, i, y, g: [(_inputs(i)[0], t.emit(Op.RELU_GRADIENT, y.features, a=g, c=y))],
    Op.SIGMOID: lambda t, i, y, g: [(_inputs(i)[0], g * y * (1.0 - y))],
    Op.SQUARE: lambda t, i, y, g: [(_inputs(i)[0], g * _inputs(i)[0] * 2.0)],
    Op.ABS: lambda t, i, y, g: [(_inputs(i)[0], g * t.unary(Op.SIGN, _inputs(i)[0]))],
    Op.SUM: _sum,
    Op.TAKE: _take,
    Op.QUANTILE_HUBER: _quantile_huber,
}
