"""
One table of torch modules: how each becomes records.

Another layer or activation that is to be exported comes in here: a function from the module to its records, and a row in
:data:`MODULES`. Modules that are not in the table are refused by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import torch as th
from sb3_contrib.common.torch_layers import BatchRenorm1d
from torch import nn

from sb3_sparse.export.trace.graph import Affine
from sb3_sparse.nn import MaskedConv1d, MaskedConv2d, MaskedLinear, MaskedLSTM, prunable_layers, quantize
from sb3_sparse.policies.extractors import ResidualBlock
from sb3_sparse.runtime.network.elements import one_scale
from sb3_sparse.runtime.network.records import Activation, Floats, Layer, Minifloats, Pool

#: A record and the full name of its module.
Record = tuple[str, Layer | Affine | Activation | Pool]
#: From here on softplus is x, to float rounding.
_THRESHOLD = 15
#: Bits per weight of the layers that were trained with quantized weights, by full name.
Bits = Mapping[str, int]


def refuse(what: str, instead: str = "") -> NoReturn:
    """
    :param what: What cannot be exported, with its name.
    :param instead: What can be, if there is something close to it.
    :raises ValueError: always
    """
    raise ValueError(
        f"{what} cannot be exported: known are the networks of Stable-Baselines3 and sb3-contrib, modules whose forward() is "
        f"a chain and policies with an action_path(), made of the modules {', '.join(kind.__name__ for kind in MODULES)}"
        + (f". In its place, {instead} can be exported" if instead else "")
    )


_STRIDED = "a MaxPool2d, or a Conv2d with a stride,"
#: Type of a module that cannot be exported -> one close to it that can be.
_INSTEAD: dict[type[nn.Module], str] = {
    nn.LayerNorm: "a BatchNorm1d",
    nn.AvgPool2d: _STRIDED,
    nn.AdaptiveAvgPool2d: _STRIDED,
    nn.Conv1d: "a Conv2d of height 1, on observations of shape (channels, 1, n),",
    MaskedConv1d: "a Conv2d of height 1, on observations of shape (channels, 1, n),",
}


def records(module: nn.Module, name: str, bits: Bits) -> list[Record]:
    """
    :param module: A module that an observation passes.
    :param name: Its full name.
    :param bits: See :data:`Bits`.
    :return: What it computes, in order; nothing if it changes nothing
    :raises ValueError: if it cannot be exported
    """
    if type(module) not in MODULES:
        refuse(f"the layer '{name}' ({module})", _INSTEAD.get(type(module), ""))
    if not all(bool(tensor.isfinite().all()) for tensor in (*module.parameters(), *module.buffers())):
        raise ValueError(f"the layer '{name}' has numbers that are not finite: training has diverged")
    return MODULES[type(module)](module, name, bits)


def _linear(module: nn.Linear, name: str, bits: Bits) -> list[Record]:
    return [(name, _layer(module, name, bits))]


def _convolution(module: nn.Conv2d, name: str, bits: Bits) -> list[Record]:
    if module.groups != 1 or module.dilation != (1, 1) or module.padding_mode != "zeros" or isinstance(module.padding, str):
        refuse(f"the layer '{name}' ({module}), with groups, dilation or a padding other than numbers of zeros,")
    (down, right), (top, side) = module.stride, module.padding
    return [(name, replace(_layer(module, name, bits), stride=(down, right), padding=(top, side)))]


def _layer(module: nn.Linear | nn.Conv2d, name: str, bits: Bits) -> Layer:
    if not prunable_layers(module):
        # Its weight is computed from other parameters.
        refuse(f"the layer '{name}' ({module})")
    weight = _array(module.weight)
    scale: Minifloats | Floats | None = None
    bias = np.zeros(len(weight), np.float32) if module.bias is None else _array(module.bias)
    if name in bits:
        # Trained with fake quantization: these very integers.
        steps, integers = quantize(module.weight, bits[name])
        weight, scale = integers.cpu().numpy(), _array(steps)
        if scale.ndim == 0:
            scale = one_scale(len(weight), float(scale) if weight.any() else 1.0)
    return Layer(weight, bias, scale=scale)


def _lstm(module: nn.LSTM, name: str, bits: Bits) -> list[Record]:
    if module.bidirectional or module.proj_size or module.batch_first:
        refuse(f"the layer '{name}' ({module}), with two directions, projections or the batch first,")
    return [(f"{name}.l{number}", _lstm_layer(module, name, number, bits)) for number in range(module.num_layers)]


def _lstm_layer(module: nn.LSTM, name: str, number: int, bits: Bits) -> Layer:
    names = [f"{part}_l{number}" for part in ("ih", "hh")]
    if not all(f"weight_{part}" in module._parameters for part in names):
        # A weight is computed from other parameters.
        refuse(f"the layer '{name}' ({module})")
    inputs, own = (module._parameters[f"weight_{part}"] for part in names)
    assert inputs is not None and own is not None
    bias = np.zeros(len(own), np.float32)
    for part in names if module.bias else ():
        bias = bias + _array(getattr(module, f"bias_{part}"))
    known = [bits.get(f"{name}.{part}") for part in names]
    if None not in known and len(set(known)) == 1:
        # Trained with one scale for both.
        steps, integers = quantize(th.cat([inputs, own], dim=1), bits[f"{name}.{names[0]}"])
        weight = integers.cpu().numpy()
        return Layer(weight, bias, scale=one_scale(len(weight), float(steps) if weight.any() else 1.0), lstm=True)
    matrices = []
    for matrix, width in zip((inputs, own), known, strict=True):
        steps, integers = (th.ones(()), matrix) if width is None else quantize(matrix, width)
        matrices.append(_array(steps.cpu() * integers.detach().cpu()))
    return Layer(np.concatenate(matrices, axis=1), bias, lstm=True)


def _residual_block(block: ResidualBlock, name: str, bits: Bits) -> list[Record]:
    parts = {f"{name}.{part}": module for part, module in (("conv1", block.conv1), ("conv2", block.conv2))}
    found = [record for part, module in parts.items() for record in records(module, part, bits)]
    if [type(record) for _, record in found] != [Layer, Layer]:
        refuse(f"the residual block '{name}' ({block})")
    (first_name, first), (second_name, second) = found
    assert isinstance(first, Layer) and isinstance(second, Layer)
    return [
        (first_name, replace(first, rectify=True, activation=Activation("relu"))),
        (second_name, replace(second, residual=True)),
    ]


def _batch_norm(module: Any, name: str, bits: Bits) -> list[Record]:
    """Batch norm with its running statistics."""
    names = ("ra_mean", "ra_var", "scale") if isinstance(module, BatchRenorm1d) else ("running_mean", "running_var", "weight")
    mean, variance, weight = (getattr(module, attribute) for attribute in names)
    if mean is None:
        refuse(f"the layer '{name}' ({module}), which has no running statistics,")
    mean, variance = mean.detach().cpu().double(), variance.detach().cpu().double()
    scale = 1 / th.sqrt(variance + module.eps)
    if module.affine:
        scale = scale * weight.detach().cpu().double()
    shift = -mean * scale + (module.bias.detach().cpu().double() if module.affine else 0.0)
    return [(name, Affine(_array(scale), _array(shift)))]


def _pool(module: nn.MaxPool2d, name: str, bits: Bits) -> list[Record]:
    if module.ceil_mode or module.return_indices or module.dilation not in (1, (1, 1)):
        refuse(f"the layer '{name}' ({module}), with dilation, ceil_mode or return_indices,")
    kernel, stride, padding = (
        (size, size) if isinstance(size, int) else (size[0], size[1])
        for size in (module.kernel_size, module.stride, module.padding)
    )
    return [(name, Pool(kernel, stride, padding))]


def _nothing(module: nn.Module, name: str, bits: Bits) -> list[Record]:
    """A module that changes nothing in evaluation. A linear layer flattens its input by itself."""
    if getattr(module, "start_dim", 1) != 1:
        refuse(f"the layer '{name}' ({module})")
    return []


def _activation(kind: str, *attributes: str) -> Callable[[Any, str, Bits], list[Record]]:
    """
    :param kind: Name of the activation in the records.
    :param attributes: Attributes of the module that hold its numbers.
    :return: What makes the record
    """
    return lambda module, name, bits: [(name, Activation(kind, *(float(getattr(module, each)) for each in attributes)))]


def _gelu(module: nn.GELU, name: str, bits: Bits) -> list[Record]:
    return [(name, Activation("gelu_tanh" if module.approximate == "tanh" else "gelu"))]


def _prelu(module: nn.PReLU, name: str, bits: Bits) -> list[Record]:
    if module.num_parameters != 1:
        refuse(f"the layer '{name}' ({module}), with a slope for each channel in place of PReLU()'s one,")
    return [(name, Activation("leaky_relu", float(module.weight.detach())))]


def _selu(module: nn.SELU, name: str, bits: Bits) -> list[Record]:
    # The constants of torch.
    return [(name, Activation("elu", 1.6732632423543772)), (name, _times(1.0507009873554805))]


def _celu(module: nn.CELU, name: str, bits: Bits) -> list[Record]:
    """``alpha * elu(x / alpha)``."""
    if module.alpha <= 0:
        refuse(f"the layer '{name}' ({module}), whose alpha is not positive,")
    return _scaled(Activation("elu", 1.0), name, 1 / module.alpha)


def _softplus(module: nn.Softplus, name: str, bits: Bits) -> list[Record]:
    """``softplus(beta * x) / beta``, which is x itself above the threshold."""
    if module.beta <= 0 or module.threshold < _THRESHOLD:
        refuse(f"the layer '{name}' ({module}), whose beta is not positive or whose threshold is below {_THRESHOLD},")
    return _scaled(Activation("softplus"), name, module.beta)


def _scaled(activation: Activation, name: str, factor: float) -> list[Record]:
    """``activation(factor * x) / factor``."""
    if factor == 1:
        return [(name, activation)]
    return [(name, _times(factor)), (name, activation), (name, _times(1 / factor))]


def _times(factor: float) -> Affine:
    return Affine(np.full(1, factor, np.float32), np.zeros(1, np.float32))


def _array(tensor: th.Tensor) -> Floats:
    array: Floats = tensor.detach().cpu().numpy().astype(np.float32)
    return array


#: Type of a module, exactly -> its records, in the order in which they are computed.
MODULES: dict[type[nn.Module], Callable[[Any, str, Bits], list[Record]]] = {
    nn.Linear: _linear,
    MaskedLinear: _linear,
    nn.Conv2d: _convolution,
    MaskedConv2d: _convolution,
    nn.LSTM: _lstm,
    MaskedLSTM: _lstm,
    ResidualBlock: _residual_block,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    BatchRenorm1d: _batch_norm,
    nn.MaxPool2d: _pool,
    nn.ReLU: _activation("relu"),
    nn.ReLU6: _activation("clip", "min_val", "max_val"),
    nn.LeakyReLU: _activation("leaky_relu", "negative_slope"),
    nn.ELU: _activation("elu", "alpha"),
    nn.SiLU: _activation("silu"),
    nn.SELU: _selu,
    nn.CELU: _celu,
    nn.PReLU: _prelu,
    nn.GELU: _gelu,
    nn.Mish: _activation("mish"),
    nn.Softplus: _softplus,
    nn.Softsign: _activation("softsign"),
    nn.Hardswish: _activation("hardswish"),
    nn.Tanh: _activation("tanh"),
    nn.Sigmoid: _activation("sigmoid"),
    nn.Hardtanh: _activation("clip", "min_val", "max_val"),
    nn.Flatten: _nothing,
    nn.Identity: _nothing,
    nn.Dropout: _nothing,
}
