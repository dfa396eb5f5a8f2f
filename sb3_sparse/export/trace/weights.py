"""Modules with weights that can be pruned, as records: linear layers, convolutions and LSTMs."""

from dataclasses import replace

import numpy as np
import torch as th
from torch import nn

from sb3_sparse.export.trace.record import At, Record, Refusal, as_array
from sb3_sparse.nn import WeightGrid, prunable_layers, quantize
from sb3_sparse.runtime.network.elements import one_scale
from sb3_sparse.runtime.network.records import Floats, Layer, Minifloats
from sb3_sparse.state import SavedGrid


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
    known = at.bits.get(at.name)
    if isinstance(known, SavedGrid):
        return _on_grid(module, known, bias, at)
    if known is not None:
        # Trained with fake quantization: these very integers.
        steps, integers = quantize(module.weight, known)
        weight, scale = integers.cpu().numpy(), as_array(steps)
        if scale.ndim == 0:
            scale = one_scale(len(weight), float(scale) if weight.any() else 1.0)
    return Layer(weight, bias, scale=scale)


def _on_grid(module: nn.Linear | nn.Conv1d | nn.Conv2d, saved: SavedGrid, bias: Floats, at: At) -> Layer:
    """The integers of weights that are on a grid; of weights that have left it since, as in further training, the floats."""
    scale, gain = _minifloats(saved.scale), _minifloats(saved.gain) if saved.gain else None
    weight = module.weight.detach().cpu()
    if len(scale.codes) != len(weight) or (gain is not None and gain.codes.shape != weight.shape[1:]):
        raise ValueError(f"the saved grid of layer '{at.name}' does not fit its weight of shape {tuple(weight.shape)}")
    gains = None if gain is None else th.from_numpy(gain.values)
    grid = WeightGrid(saved.bits, th.from_numpy(scale.values), gains)
    if not grid.holds(weight):
        return Layer(as_array(weight), bias)
    return Layer(grid.integers(weight).to(th.int8).numpy(), bias, scale=scale, gain=gain)


def _minifloats(saved: list[float]) -> Minifloats:
    unit, *codes = saved
    return Minifloats(np.array(codes, np.uint8), unit)


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
    known = [width if isinstance(width := at.bits.get(f"{at.name}.{part}"), int) else None for part in names]
    if known[0] is not None and known[0] == known[1]:
        # Trained with one scale for both.
        steps, integers = quantize(th.cat([inputs, own], dim=1), known[0])
        weight = integers.cpu().numpy()
        return Layer(weight, bias, scale=one_scale(len(weight), float(steps) if weight.any() else 1.0), lstm=True)
    matrices = []
    for matrix, width in zip((inputs, own), known, strict=True):
        steps, integers = (th.ones(()), matrix) if width is None else quantize(matrix, width)
        matrices.append(as_array(steps.cpu() * integers.detach().cpu()))
    return Layer(np.concatenate(matrices, axis=1), bias, lstm=True)
