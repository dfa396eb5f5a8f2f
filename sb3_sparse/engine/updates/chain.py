"""A multilayer perceptron: linear layers in a row, with activations between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from sb3_sparse.engine.kernels.structs import Op
from sb3_sparse.engine.networks.weights import Weights
from sb3_sparse.engine.program.value import Value
from sb3_sparse.nn import MaskedLinear, is_sequential


class Unsupported(ValueError):
    """The engine cannot train this model; the message says why."""


def _elu(x: Value, module: nn.Module) -> Value:
    assert isinstance(module, nn.ELU)
    return x.relu() + (x.clamp(float("-inf"), 0.0).exp() - 1.0) * module.alpha


def _leaky_relu(x: Value, module: nn.Module) -> Value:
    assert isinstance(module, nn.LeakyReLU)
    return x.relu() + x.clamp(float("-inf"), 0.0) * module.negative_slope


#: ReLU is not among them: it is a part of the layer before it.
ACTIVATIONS: dict[type[nn.Module], Callable[[Value, nn.Module], Value]] = {
    nn.Tanh: lambda x, module: x.tanh(),
    nn.Sigmoid: lambda x, module: x.sigmoid(),
    nn.SiLU: lambda x, module: x * x.sigmoid(),
    nn.ELU: _elu,
    nn.LeakyReLU: _leaky_relu,
    nn.Identity: lambda x, module: x,
    nn.Flatten: lambda x, module: x,
}


class Chain:
    """
    The layers of a module.

    :param module: A linear layer, or an ``nn.Sequential`` of linear layers and activations.
    :param target: The same module of the target network.
    :param first: Number of leading inputs whose gradient nobody needs.
    :raises Unsupported: on any other module
    """

    def __init__(self, module: nn.Module, target: nn.Module | None = None, *, first: int = 0) -> None:
        self._steps: list[tuple[Weights | None, bool, nn.Module | None]] = []
        modules = list(_flat(module))
        twins = list(_flat(target)) if target is not None else [None] * len(modules)
        if len(twins) != len(modules):
            raise Unsupported("the target network has other layers than its network")
        for step, twin in zip(modules, twins, strict=True):
            if type(step) in (nn.Linear, MaskedLinear):
                assert isinstance(step, nn.Linear) and (twin is None or isinstance(twin, nn.Linear))
                if step.bias is None:
                    raise Unsupported("a layer without bias")
                self._steps.append((Weights(step, first=first, target=twin), False, None))
                first = 0
            elif type(step) is nn.ReLU and self._steps and self._steps[-1][1:] == (False, None):
                self._steps[-1] = (self._steps[-1][0], True, None)
            elif type(step) in ACTIVATIONS:
                self._steps.append((None, False, step))
            elif type(step) is nn.ReLU:
                raise Unsupported("a ReLU that follows no linear layer")
            else:
                raise Unsupported(f"{type(step).__name__}: only linear layers and {_known()} run in the engine")

    @property
    def weights(self) -> list[Weights]:
        """The layers in order."""
        return [weights for weights, *_ in self._steps if weights is not None]

    def __call__(self, x: Value, *, target: bool = False) -> Value:
        """
        :param x: Inputs.
        :param target: Whether to compute with the target network.
        :return: Outputs
        """
        for weights, relu, activation in self._steps:
            if weights is not None:
                used = weights.target if target else weights
                assert used is not None
                x = x.trace.emit(Op.LINEAR, used.outputs, a=x, flags=int(relu), weights=used)
            elif activation is not None:
                x = ACTIVATIONS[type(activation)](x, activation)
        return x


def _flat(module: nn.Module) -> Iterator[nn.Module]:
    if is_sequential(module):
        for child in module:
            yield from _flat(child)
    else:
        yield module


def _known() -> str:
    return ", ".join(["ReLU", *(kind.__name__ for kind in ACTIVATIONS if kind not in (nn.Identity, nn.Flatten))])
