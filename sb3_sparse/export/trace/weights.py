"""Modules with weights that can be pruned, as records: linear layers, convolutions and LSTMs."""

from dataclasses import replace

import numpy as np
import torch as th
from torch import nn

from sb3_sparse.export.trace.record import At, Record, Refusal, as_array
from sb3_sparse.nn import prunable_layers, quantize
from sb3_sparse.runtime.network.elements import one_scale
from sb3_sparse.runtime.network.records import Floats, Layer, Minifloats


def linear(module: nn.Linear, at: At) -> list[Record]:
    """
    :param module: A linear layer.
    :param at: Where it stands.
    :return: Its layer
    """
    return [(at.name, _layer(module, at))]


def convolution(module: nn.Conv1d | nn.Conv2d, at: At) -> list[Record]:
    """
    :param module: A convolution; over one dimension, it has height 1.
    :param at: Where it stands.
    :return: Its layer
    """
    if module.groups != 1 or any(size != 1 for size in module.dilation):
        raise Refusal("with groups or dilation")
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise Refusal("with a padding other than numbers of zeros")
    if len(at.shape) == 1:
        raise Refusal("which reads a vector", f"an nn.Unflatten(1, ({module.in_channels}, ...)) in front of it")
    layer = _layer(module, at)
    (*_, right), (*_, side) = module.stride, module.padding
    down, top = (1, 0) if isinstance(module, nn.Conv1d) else (module.stride[0], module.padding[0])
    weight = layer.weight.reshape(*layer.weight.shape[:2], -1, layer.weight.shape[-1])
    return [(at.name, replace(layer, weight=weight, stride=(down, right), padding=(top, side)))]


def _layer(module: nn.Linear | nn.Conv1d | nn.Conv2d, at: At) -> Layer:
    if not prunable_layers(module):
        # Its weight is computed from other parameters.
        raise Refusal
    weight = as_array(module.weight)
    scale: Minifloats | Floats | None = None
    bias = np.zeros(len(weight), np.float32) if module.bias is None else as_array(module.bias)
    if at.name in at.bits:
        # Trained with fake quantization: these very integers.
        steps, integers = quantize(module.weight, at.bits[at.name])
        weight, scale = integers.cpu().numpy(), as_array(steps)
        if scale.ndim == 0:
            scale = one_scale(len(weight), float(scale) if weight.any() else 1.0)
    return Layer(weight, bias, scale=scale)


def lstm(module: nn.LSTM, at: At) -> list[Record]:
    """
    :param module: An LSTM.
    :param at: Where it stands.
    :return: Its layers
    """
    if module.bidirectional or module.proj_size or module.batch_first:
        raise Refusal("with two directions, projections or the batch first")
    return [(f"{at.name}.l{number}", _lstm_layer(module, at, number)) for number in range(module.num_layers)]


def _lstm_layer(module: nn.LSTM, at: At, number: int) -> Layer:
    names = [f"{part}_l{number}" for part in ("ih", "hh")]
    if not all(f"weight_{part}" in module._parameters for part in names):
        # A weight is computed from other parameters.
        raise Refusal
    inputs, own = (module._parameters[f"weight_{part}"] for part in names)
    assert inputs is not None and own is not None
    bias = np.zeros(len(own), np.float32)
    for part in names if module.bias else ():
        bias = bias + as_array(getattr(module, f"bias_{part}"))
    known = [at.bits.get(f"{at.name}.{part}") for part in names]
    if None not in known and len(set(known)) == 1:
        # Trained with one scale for both.
        steps, integers = quantize(th.cat([inputs, own], dim=1), at.bits[f"{at.name}.{names[0]}"])
        weight = integers.cpu().numpy()
        return Layer(weight, bias, scale=one_scale(len(weight), float(steps) if weight.any() else 1.0), lstm=True)
    matrices = []
    for matrix, width in zip((inputs, own), known, strict=True):
        steps, integers = (th.ones(()), matrix) if width is None else quantize(matrix, width)
        matrices.append(as_array(steps.cpu() * integers.detach().cpu()))
    return Layer(np.concatenate(matrices, axis=1), bias, lstm=True)
