"""Torch modules as operations of the graph. Another layer or activation that is to be exported comes in here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
import torch as th
from sb3_contrib.common.torch_layers import BatchRenorm1d
from torch import nn

from sb3_sparse.nn import prunable_layers, quantize
from sb3_sparse.policies.extractors import ResidualBlock
from sb3_sparse.runtime.network.elements import one_scale
from sb3_sparse.runtime.network.records import Activation, Floats, Layer, Minifloats, Pool


@dataclass(frozen=True, eq=False)
class Affine:
    """
    ``scale * x + shift``, one number per unit or channel (or one for all): batch norm and the division of images by 255.

    :param scale: ``[n]`` or ``[1]``.
    :param shift: The same shape.
    """

    scale: Floats
    shift: Floats


def refuse(what: str) -> NoReturn:
    """
    :param what: What cannot be exported, with its name.
    :raises ValueError: always
    """
    raise ValueError(
        f"{what} cannot be exported: known are linear and convolutional layers, batch norm, max pools, the activations ReLU, "
        "ReLU6, LeakyReLU, ELU, SiLU, Tanh, Sigmoid and Hardtanh, Stable-Baselines3's own networks, and ResNetExtractor"
    )


def chain(modules: Iterable[tuple[str, nn.Module]], bits: Mapping[str, int]) -> tuple[list[Layer | Affine], list[str]]:
    """
    :param modules: Modules with their full names, in the order in which they are called, without their containers.
    :param bits: Bits per weight of the layers that were trained with quantized weights, by name.
    :return: What they compute, and the names of the layers among it
    :raises ValueError: if there is something in them that cannot be exported
    """
    operations: list[Layer | Affine] = []
    found: list[str] = []
    for name, module in modules:
        if type(module) is ResidualBlock:
            operations += _block(module, name, bits)
            found += [f"{name}.conv1", f"{name}.conv2"]
            continue
        one = operation(module, name, bits.get(name))
        last = operations[-1] if operations else None
        if isinstance(one, Activation):
            # An activation belongs to the layer before. One that never falls changes its place with a pool: the largest number
            # stays the largest.
            if not isinstance(last, Layer) or last.activation != Activation() or (last.pool and one.name not in _RISING):
                refuse(f"the activation '{name}' ({module}), which does not follow a layer,")
            operations[-1] = replace(last, activation=one)
        elif isinstance(one, Pool):
            if not isinstance(last, Layer) or not last.convolution or last.pool is not None:
                refuse(f"the pool '{name}' ({module}), which does not follow a convolution,")
            operations[-1] = replace(last, pool=one)
        elif one is not None:
            operations.append(one)
            if isinstance(one, Layer):
                found.append(name)
    return operations, found


#: Activations that do not fall anywhere, whatever their numbers are.
_RISING = ("relu", "tanh", "clip", "sigmoid")


def _block(block: ResidualBlock, name: str, bits: Mapping[str, int]) -> list[Layer]:
    first, second = (
        operation(module, f"{name}.{part}", bits.get(f"{name}.{part}"))
        for part, module in (("conv1", block.conv1), ("conv2", block.conv2))
    )
    if not isinstance(first, Layer) or not isinstance(second, Layer):
        refuse(f"the residual block '{name}' ({block})")
    return [replace(first, rectify=True, activation=Activation("relu")), replace(second, residual=True)]


def operation(module: nn.Module, name: str, bits: int | None) -> Layer | Affine | Activation | Pool | None:
    """
    :param module: A module that is no container.
    :param name: Its full name.
    :param bits: Bits per weight that it was trained with; None for float weights.
    :return: What it computes; None if it changes nothing
    :raises ValueError: if it cannot be exported
    """
    if not all(bool(parameter.isfinite().all()) for parameter in (*module.parameters(), *module.buffers())):
        raise ValueError(f"the layer '{name}' has numbers that are not finite: training has diverged")
    if isinstance(module, nn.Linear | nn.Conv2d) and prunable_layers(module):
        return _layer(module, name, bits)
    if type(module) in _NOTHING and getattr(module, "start_dim", 1) == 1:
        return None
    if type(module) in _ACTIVATIONS:
        kind, *attributes = _ACTIVATIONS[type(module)]
        return Activation(kind, *(float(getattr(module, attribute)) for attribute in attributes))
    if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, BatchRenorm1d):
        return _batch_norm(module, name)
    if type(module) is nn.MaxPool2d:
        return _pool(module, name)
    refuse(f"the layer '{name}' ({module})")


_NOTHING = (nn.Flatten, nn.Identity, nn.Dropout)
#: Module -> name of the activation and the attributes with its numbers.
_ACTIVATIONS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.ReLU: ("relu",),
    nn.Tanh: ("tanh",),
    nn.Sigmoid: ("sigmoid",),
    nn.SiLU: ("silu",),
    nn.LeakyReLU: ("leaky_relu", "negative_slope"),
    nn.ELU: ("elu", "alpha"),
    nn.Hardtanh: ("clip", "min_val", "max_val"),
    nn.ReLU6: ("clip", "min_val", "max_val"),
}


def _layer(module: nn.Linear | nn.Conv2d, name: str, bits: int | None) -> Layer:
    weight = _array(module.weight)
    scale: Minifloats | Floats | None = None
    bias = np.zeros(len(weight), np.float32) if module.bias is None else _array(module.bias)
    if bits is not None:
        # Trained with fake quantization: these very integers.
        steps, integers = quantize(module.weight, bits)
        weight, scale = integers.cpu().numpy(), _array(steps)
        if scale.ndim == 0:
            scale = one_scale(len(weight), float(scale) if weight.any() else 1.0)
    if isinstance(module, nn.Linear):
        return Layer(weight, bias, scale=scale)
    if module.groups != 1 or module.dilation != (1, 1) or module.padding_mode != "zeros" or isinstance(module.padding, str):
        refuse(f"the layer '{name}' ({module}), with groups, dilation or a padding other than numbers of zeros,")
    (down, right), (top, side) = module.stride, module.padding
    return Layer(weight, bias, scale=scale, stride=(down, right), padding=(top, side))


def _pool(module: nn.MaxPool2d, name: str) -> Pool:
    if module.ceil_mode or module.return_indices or module.dilation not in (1, (1, 1)):
        refuse(f"the layer '{name}' ({module}), with dilation, ceil_mode or return_indices,")
    kernel, stride, padding = (
        (size, size) if isinstance(size, int) else (size[0], size[1])
        for size in (module.kernel_size, module.stride, module.padding)
    )
    return Pool(kernel, stride, padding)


def _batch_norm(module: Any, name: str) -> Affine:
    """Batch norm with its running statistics."""
    names = ("ra_mean", "ra_var", "scale") if isinstance(module, BatchRenorm1d) else ("running_mean", "running_var", "weight")
    mean, variance, weight = (getattr(module, name) for name in names)
    if mean is None:
        refuse(f"the layer '{name}' ({module}), which has no running statistics,")
    mean, variance = mean.detach().cpu().double(), variance.detach().cpu().double()
    scale = 1 / th.sqrt(variance + module.eps)
    if module.affine:
        scale = scale * weight.detach().cpu().double()
    shift = -mean * scale + (module.bias.detach().cpu().double() if module.affine else 0.0)
    return Affine(_array(scale), _array(shift))


def _array(tensor: th.Tensor) -> Floats:
    array: Floats = tensor.detach().cpu().numpy().astype(np.float32)
    return array
