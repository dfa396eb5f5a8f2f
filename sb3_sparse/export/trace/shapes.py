"""Modules that depend on the shape of their input, as records: norms, pools, and other shapes."""

from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import torch as th
from sb3_contrib.common.torch_layers import BatchRenorm1d
from torch import nn

from sb3_sparse.export.trace.graph import Affine
from sb3_sparse.export.trace.record import At, Record, Refusal, Reshape, as_array
from sb3_sparse.runtime.network.records import Norm, Pool, Shape

_MaxPool = nn.MaxPool1d | nn.MaxPool2d
_MeanPool = nn.AvgPool1d | nn.AvgPool2d
_AdaptivePool = nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool1d | nn.AdaptiveMaxPool2d


def batch_norm(module: Any, at: At) -> list[Record]:
    """
    :param module: A batch norm or batch renorm.
    :param at: Where it stands.
    :return: What it computes with its running statistics
    """
    names = ("ra_mean", "ra_var", "scale") if isinstance(module, BatchRenorm1d) else ("running_mean", "running_var", "weight")
    mean, variance, weight = (getattr(module, attribute) for attribute in names)
    if mean is None:
        raise Refusal("which has no running statistics")
    mean, variance = mean.detach().cpu().double(), variance.detach().cpu().double()
    scale = 1 / th.sqrt(variance + module.eps)
    if module.affine:
        scale = scale * weight.detach().cpu().double()
    shift = -mean * scale + (module.bias.detach().cpu().double() if module.affine else 0.0)
    return [(at.name, Affine(as_array(scale), as_array(shift)))]


def layer_norm(module: nn.LayerNorm, at: At) -> list[Record]:
    """
    :param module: A layer norm over its whole input.
    :param at: Where it stands.
    :return: Its norm
    """
    shape = tuple(module.normalized_shape)
    # Behind an nn.Conv1d there are three dimensions here and two there.
    if shape not in (at.shape, at.shape[:1] + at.shape[2:] if at.shape[1:2] == (1,) else at.shape):
        raise Refusal(f"over a part of its input of shape {at.shape}", "one over the whole input, or a batch norm,")
    if module.eps <= 0:
        raise Refusal("whose eps is not positive")
    scale, shift = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    if module.weight is not None:
        scale = as_array(module.weight)
    if module.bias is not None:
        shift = as_array(module.bias)
    return [(at.name, Norm(float(np.float32(module.eps)), scale, shift))]


def max_pool(module: _MaxPool, at: At) -> list[Record]:
    """
    :param module: A max pool.
    :param at: Where it stands.
    :return: Its pool
    """
    if module.ceil_mode or module.return_indices or (np.asarray(module.dilation) != 1).any():
        raise Refusal("with dilation, ceil_mode or return_indices")
    return [(at.name, _pool(module, mean=False))]


def mean_pool(module: _MeanPool, at: At) -> list[Record]:
    """
    :param module: An average pool.
    :param at: Where it stands.
    :return: Its pool
    """
    pool = _pool(module, mean=True)
    if module.ceil_mode or getattr(module, "divisor_override", None) is not None:
        raise Refusal("with ceil_mode or divisor_override", "one without them")
    if any(pool.padding) and not module.count_include_pad:
        raise Refusal("whose padding does not count", "one with count_include_pad=True, or without padding,")
    return [(at.name, pool)]


def _pool(module: _MaxPool | _MeanPool, *, mean: bool) -> Pool:
    flat = isinstance(module, nn.MaxPool1d | nn.AvgPool1d)
    kernel, stride = _sizes(module.kernel_size, 1, flat=flat), _sizes(module.stride, 1, flat=flat)
    return Pool(kernel, stride, _sizes(module.padding, 0, flat=flat), mean)


def _sizes(sizes: Any, missing: int, *, flat: bool) -> tuple[Any, Any]:
    """The vertical and the horizontal one; in one dimension the vertical one is missing."""
    each = tuple(sizes) if isinstance(sizes, tuple | list) else (sizes, sizes)
    return (missing if flat else each[0], each[-1])


def adaptive_pool(module: _AdaptivePool, at: At) -> list[Record]:
    """
    :param module: A pool to a fixed size.
    :param at: Where it stands.
    :return: The ordinary pool with the same windows
    """
    if getattr(module, "return_indices", False):
        raise Refusal("with return_indices")
    flat = isinstance(module, nn.AdaptiveAvgPool1d | nn.AdaptiveMaxPool1d)
    if len(at.shape) < 2 or (flat and prod(at.shape[1:-1]) != 1) or not (flat or len(at.shape) == 3):
        raise Refusal(f"which does not fit an input of shape {at.shape}")
    inputs = (1, *at.shape[1:])[-2:]
    wanted = _sizes(module.output_size, 1, flat=flat)
    outputs = [size if out is None else out for size, out in zip(inputs, wanted, strict=True)]
    windows = [_windows(size, out) for size, out in zip(inputs, outputs, strict=True)]
    if None in windows:
        why = f"whose windows of an input of shape {at.shape} differ in size or distance"
        raise Refusal(why, "one whose output divides its input")
    (height, down), (width, right) = (window for window in windows if window is not None)
    mean = isinstance(module, nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d)
    return [(at.name, Pool((height, width), (down, right), mean=mean))]


def _windows(size: int, outputs: int) -> tuple[int, int] | None:
    """Kernel and stride of an adaptive pool in one direction; None if its windows are not evenly spaced and of one size."""
    starts = [index * size // outputs for index in range(outputs)]
    sizes = {-(-(index + 1) * size // outputs) - start for index, start in enumerate(starts)}
    strides = {after - before for before, after in pairwise(starts)} or {1}
    return (sizes.pop(), strides.pop()) if len(sizes) == len(strides) == 1 and min(strides) > 0 else None


def flatten(module: nn.Flatten, at: At) -> list[Record]:
    """
    :param module: What joins some dimensions into one.
    :param at: Where it stands.
    :return: The shape behind it
    """
    start, end = module.start_dim, module.end_dim % (len(at.shape) + 1)
    if start < 1 or end < start:
        raise Refusal
    return [(at.name, Reshape((*at.shape[: start - 1], prod(at.shape[start - 1 : end]), *at.shape[end:])))]


def unflatten(module: nn.Unflatten, at: At) -> list[Record]:
    """
    :param module: What splits one dimension into several.
    :param at: Where it stands.
    :return: The shape behind it
    """
    sizes: Any = module.unflattened_size
    if not isinstance(module.dim, int) or module.dim % (len(at.shape) + 1) == 0 or not all(isinstance(n, int) for n in sizes):
        raise Refusal("with names, or of the batch")
    at_dim = module.dim % (len(at.shape) + 1) - 1
    before, size, after = at.shape[:at_dim], at.shape[at_dim], at.shape[at_dim + 1 :]
    known = prod(n for n in sizes if n != -1)
    shape: Shape = (*before, *(size // known if n == -1 else n for n in sizes), *after)
    if prod(shape) != prod(at.shape):
        raise Refusal(f"which does not fit an input of shape {at.shape}")
    return [(at.name, Reshape(shape))]


def nothing(module: nn.Module, at: At) -> list[Record]:
    """A module that changes nothing in evaluation."""
    return []
