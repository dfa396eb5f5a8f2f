"""Modules that are activations, as records."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from sb3_sparse.export.trace.graph import Affine
from sb3_sparse.export.trace.record import At, Record, Refusal, as_array
from sb3_sparse.runtime.network.records import Activation

#: From here on softplus is x, to float rounding.
_THRESHOLD = 15


def activation(kind: str, *attributes: str) -> Callable[[Any, At], list[Record]]:
    """
    :param kind: Name of the activation in the records.
    :param attributes: Attributes of the module that hold its numbers.
    :return: What makes the record
    """

    def record(module: Any, at: At) -> list[Record]:
        low, high, *_ = (*(float(getattr(module, each)) for each in attributes), 0.0, 0.0)
        return [(at.name, Activation(kind, low, high))]

    return record


def gelu(module: nn.GELU, at: At) -> list[Record]:
    """The normal distribution function, or its approximation by tanh."""
    return [(at.name, Activation("gelu_tanh" if module.approximate == "tanh" else "gelu"))]


def prelu(module: nn.PReLU, at: At) -> list[Record]:
    """One slope, or one per unit or channel."""
    slopes = as_array(module.weight)
    if module.num_parameters == 1:
        return [(at.name, Activation("leaky_relu", float(slopes[0])))]
    return [(at.name, Activation("prelu", slopes=slopes))]


def selu(module: nn.SELU, at: At) -> list[Record]:
    """An elu, and a factor."""
    # The constants of torch.
    return [(at.name, Activation("elu", 1.6732632423543772)), (at.name, _times(1.0507009873554805))]


def celu(module: nn.CELU, at: At) -> list[Record]:
    """``alpha * elu(x / alpha)``."""
    if module.alpha <= 0:
        raise Refusal("whose alpha is not positive")
    return _scaled(Activation("elu", 1.0), at.name, 1 / module.alpha)


def softplus(module: nn.Softplus, at: At) -> list[Record]:
    """``softplus(beta * x) / beta``, which is x itself above the threshold."""
    if module.beta <= 0 or module.threshold < _THRESHOLD:
        raise Refusal(f"whose beta is not positive or whose threshold is below {_THRESHOLD}")
    return _scaled(Activation("softplus"), at.name, module.beta)


def _scaled(activation: Activation, name: str, factor: float) -> list[Record]:
    """``activation(factor * x) / factor``."""
    if factor == 1:
        return [(name, activation)]
    return [(name, _times(factor)), (name, activation), (name, _times(1 / factor))]


def _times(factor: float) -> Affine:
    return Affine(np.full(1, factor, np.float32), np.zeros(1, np.float32))
