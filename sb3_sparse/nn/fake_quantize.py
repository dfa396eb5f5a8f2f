"""
Fake quantization of weights: in the forward pass a weight takes the value that its integers will have, in the backward
pass it is itself.

It is symmetric and uniform, as in Ivanov et al. 2025 (compression for reinforcement learning): one scale for a linear layer,
one per output channel for a convolution. The scale is computed from the present weights, so it needs no calibration and is not
saved. Zero is on every grid, so pruned weights stay zero.
"""

from numbers import Integral
from typing import Any

import torch as th
from torch import Tensor, nn

from sb3_sparse.nn.compiled import named_modules
from sb3_sparse.nn.input_grid import InputGrid
from sb3_sparse.nn.weight_grid import WeightGrid

#: Fewest and most bits of a weight: with two it is -1, 0 or 1 times the scale; more than eight do not fit into a byte.
BITS = range(2, 9)


def check_bits(bits: int, name: str = "bits", what: str = "a quantized weight") -> int:
    """
    :param bits: Bits of a quantized weight.
    :param name: Name of the argument, for the error.
    :param what: What has these bits, for the error.
    :return: The same as an int
    :raises ValueError: if it is not a whole number from 2 to 8
    """
    if not isinstance(bits, Integral) or isinstance(bits, bool) or bits not in BITS:
        raise ValueError(f"{name}={bits!r} is not a width of {what}: give an int from {BITS[0]} to {BITS[-1]}")
    return int(bits)


def _scale(weight: Tensor, bits: int) -> Tensor:
    """The scale in a shape to divide by."""
    rows = weight.dim() > 2
    dims = list(range(int(rows), weight.dim()))
    # Not abs().amax(): a second tensor of the weight's size costs more than a second pass.
    largest = th.maximum(weight.amax(dims, keepdim=rows), weight.amin(dims, keepdim=rows).neg_())
    # The scale of a weight of zeros would be zero, and 0 / 0 is NaN. torch.jit.script does not know th.finfo.
    tiny = 6.103515625e-05 if weight.dtype == th.float16 else 1.1754943508222875e-38
    return largest.div_(2 ** (bits - 1) - 1).clamp_(min=tiny)


@th.no_grad()
def quantize(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """
    The grid of :func:`fake_quantize`: ``scale = max|weight| / (2**(bits - 1) - 1)`` and ``q = round(weight / scale)``, so
    that ``scale * q`` is what the layer computes with, to the last bit.

    >>> scale, q = quantize(th.tensor([[-1.27, 0.5, 0.004]]), 8)
    >>> round(scale.item(), 6), q.tolist()
    (0.01, [[-127, 50, 0]])

    :param weight: Weight of a linear layer, ``[out, in]``, or of a convolution, ``[out, in / groups, ...]``.
    :param bits: Bits of an integer, from 2 to 8.
    :return: The scale, of shape ``[]`` (linear) or ``[out]`` (convolution) and positive, and the integers in
        [-(2**(bits - 1) - 1), 2**(bits - 1) - 1], an int8 tensor of the weight's shape
    :raises ValueError: if bits is not a whole number from 2 to 8
    """
    scale = _scale(weight, check_bits(bits))
    return scale.reshape(-1 if scale.dim() else ()), (weight / scale).round_().to(th.int8)


def fake_quantize(weight: Tensor, bits: int) -> Tensor:
    """
    The weight on its grid, with the straight-through gradient: the gradient of the result is that of the weight.

    It consists of plain operations, so it can be differentiated twice (TRPO), traced and exported. Its cost in a training step
    is measured by ``benchmarks/speed/overhead.py``.

    :param weight: As in :func:`quantize`.
    :param bits: Bits of an integer, from 2 to 8; not checked.
    :return: A tensor of the weight's shape
    """
    fixed = weight.detach()
    scale = _scale(fixed, bits)
    # Nothing to clip: the largest weight divided by the scale rounds to the largest integer.
    quantized = (fixed / scale).round_().mul_(scale)
    # The sum equals the quantized weight to the last bit: that is either 0 or between half and twice the weight, and then the
    # difference of the two is exact (Sterbenz's lemma).
    return weight + quantized.sub_(fixed)


class QuantizableLayer(nn.Module):
    """
    A layer that can compute with a quantized weight and rounded inputs: it has a number of bits, and a grid of its inputs,
    which may be set at any time.

    The ``Parameter`` always holds the float weight: optimizers, target networks and files see no other.
    """

    weight: Tensor
    #: Bits of a weight in the forward pass; None for the float weight.
    bits: int | None
    #: The grid of these bits, if somebody has chosen it; None for that of :func:`fake_quantize`. It is not in state dicts.
    weight_grid: WeightGrid | None
    #: Rounds the inputs in the forward pass; None for inputs as they are.
    input_grid: InputGrid | None
    _saves_bits: bool

    def _init_bits(self, persistent: bool) -> None:
        self.bits = None
        self.weight_grid = None
        self.input_grid = None
        self._saves_bits = persistent

    def set_bits(self, bits: int | None) -> None:
        """
        Compute with a quantized weight from now on, or with the float weight again.

        :param bits: Bits of a weight, from 2 to 8; None for the float weight.
        :raises ValueError: if it is not a whole number from 2 to 8
        """
        self.bits = None if bits is None else check_bits(bits)
        self.weight_grid = None

    def set_grid(self, grid: WeightGrid) -> None:
        """
        Compute with the values of a grid from now on, which stays as it is.

        :param grid: The grid, on the weight's device.
        """
        self.set_bits(grid.bits)
        self.weight_grid = grid

    def _forward_weight(self) -> Tensor:
        if self.weight_grid is not None:
            return self.weight_grid(self.weight)
        return self.weight if self.bits is None else fake_quantize(self.weight, self.bits)

    def _forward_input(self, input: Tensor) -> Tensor:
        return input if self.input_grid is None else self.input_grid(input)

    # The bits are a plain number, so that the forward pass does not wait for a device; state dicts hold them as a tensor, and
    # the numbers of the grid as another.

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self._saves_bits and self.bits is not None:
            destination[f"{prefix}bits"] = th.tensor(self.bits, dtype=th.uint8)
        if self._saves_bits and self.input_grid is not None:
            destination[f"{prefix}input_grid"] = th.tensor(self.input_grid.numbers(), dtype=th.float64)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if self._saves_bits:
            bits = state_dict.pop(f"{prefix}bits", None)
            self.set_bits(None if bits is None else int(bits))
            grid = state_dict.pop(f"{prefix}input_grid", None)
            self.input_grid = None if grid is None else InputGrid.from_numbers(grid.tolist()).to(self.weight.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.bits is None else f", bits={self.bits}")


def quantized_bits(module: nn.Module, prefix: str = "") -> dict[str, int]:
    """
    :param module: Root of the search.
    :param prefix: Name of the root, to begin the names with.
    :return: By full name: bits of the layers that compute with quantized weights at present
    """
    layers = named_modules(module, prefix)
    return {name: layer.bits for name, layer in layers if isinstance(layer, QuantizableLayer) and layer.bits is not None}
