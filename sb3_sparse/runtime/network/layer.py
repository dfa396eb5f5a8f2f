"""One linear, recurrent or convolutional layer."""

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.elements import (
    IDENTITY,
    Activation,
    Fixed,
    Floats,
    Grid,
    Minifloats,
    Norm,
    Pool,
    Shape,
    count_windows,
)


@dataclass(frozen=True, eq=False)
class Layer:
    """
    A linear or convolutional layer with its activation: ``activation(scale * (weight @ (gain * x)) + bias)``. Where training
    has rounded its inputs, it is ``activation(scale * (weight @ grid(x)) + bias)``.

    An LSTM layer is a linear layer that reads its own last output h behind its input, ``[x, h]``, and whose rows are the gates
    of the units, first all input gates, then the forget gates, the cell gates and the output gates. The outputs are

        c = sigmoid(forget) * c + sigmoid(input) * tanh(cell),    h = sigmoid(output) * tanh(c)

    With a norm, ``activation(norm(scale * (weight @ (gain * x)) + bias))``.

    A residual block ``x + conv2(relu(conv1(relu(x))))`` is two layers: the first rectifies its input, and the second is
    residual and adds x as it was.

    :param weight: ``[out, in]``, ``[out, in, height, width]``, or of an LSTM ``[4 * out, in + out]``; int8 if quantized, else
        float32. Zeros are pruned weights.
    :param bias: One per row of the weight.
    :param activation: The function of each output.
    :param scale: Size of one step of each row; float32 where training has fixed it; None for a float layer.
    :param gain: Multiplies the inputs of a linear layer, one per column, so that one scale fits a whole row; None for ones.
    :param stride: Of a convolution, vertical and horizontal.
    :param padding: Zeros around the input of a convolution, vertical and horizontal.
    :param rectify: Whether a convolution takes ``max(x, 0)`` for its input.
    :param residual: Whether a convolution adds the input of the layer before it (not rectified) ahead of its activation. Then
        it does not rectify its own input: the layer before can end in a ReLU.
    :param pool: The pool after the activation of a convolution.
    :param lstm: Whether it is an LSTM layer.
    :param norm: The layer norm of the sums, ahead of the activation.
    :param grid: The grid that training has rounded its inputs to; None for inputs as they are.
    """

    weight: NDArray[np.int8] | Floats
    bias: Fixed | Floats
    activation: Activation = IDENTITY
    scale: Minifloats | Floats | None = None
    gain: Minifloats | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    rectify: bool = False
    residual: bool = False
    pool: Pool | None = None
    lstm: bool = False
    norm: Norm | None = None
    grid: Grid | None = None

    @property
    def quantized(self) -> bool:
        """Whether the weights are int8."""
        return self.scale is not None

    @property
    def convolution(self) -> bool:
        """Whether it is a convolution."""
        return self.weight.ndim == 4

    @property
    def rows(self) -> int:
        """Number of rows of the weight: one for each output, or its four gates."""
        return len(self.weight)

    @property
    def outputs(self) -> int:
        """Number of units or channels."""
        return self.rows // 4 if self.lstm else self.rows

    @property
    def inputs(self) -> int:
        """Number of units or channels that it reads, without the last outputs of an LSTM."""
        inputs: int = self.weight.shape[1]
        return inputs - self.outputs if self.lstm else inputs

    @property
    def biases(self) -> Floats:
        """The biases as float32, ``[rows]``."""
        return self.bias.values if isinstance(self.bias, Fixed) else self.bias

    @property
    def scales(self) -> Floats:
        """The scales as float32, ``[rows]``, ones for a float layer."""
        if self.scale is None:
            return np.ones(self.rows, np.float32)
        return self.scale.values if isinstance(self.scale, Minifloats) else self.scale

    def dense(self) -> Floats:
        """
        :return: ``scale * weight * gain`` in float32, of the weight's shape: the matrix for inputs without a gain
        """
        dense = self.weight.astype(np.float32, copy=False)
        if self.scale is not None:
            dense = dense * self.scales.reshape(-1, *[1] * (self.weight.ndim - 1))
        return dense if self.gain is None else dense * self.gain.values

    def output_shape(self, shape: Shape) -> Shape:
        """
        :param shape: Shape of the input, without batch.
        :return: Shape of the output
        :raises ValueError: if the input does not fit
        """
        shape = self.sum_shape(shape)
        return shape if self.pool is None else self.pool.output_shape(shape)

    def sum_shape(self, shape: Shape) -> Shape:
        """
        :param shape: Shape of the input, without batch.
        :return: Shape of the output before the pool
        :raises ValueError: if the input does not fit
        """
        sums = self._sum_shape(shape)
        if self.norm is not None and (self.lstm or self.residual or self.norm.scale.shape != sums):
            raise ValueError(f"a norm of shape {self.norm.scale.shape} does not fit sums of shape {sums}")
        slopes = self.activation.slopes
        if (self.activation.name == "prelu") != (slopes is not None) or (slopes is not None and len(slopes) != self.outputs):
            raise ValueError("a prelu has a slope for each unit or channel, and no other activation has slopes")
        if self.grid is not None and (self.rectify or self.residual or self.lstm or self.gain is not None):
            raise ValueError(
                "a layer with rounded inputs does not rectify, is not residual, has no gain and is not an LSTM layer"
            )
        return sums

    def _sum_shape(self, shape: Shape) -> Shape:
        if not self.convolution:
            if self.rectify or self.residual or self.pool is not None:
                raise ValueError("a linear layer does not rectify its input, is not residual and has no pool")
            if self.lstm and (self.rows % 4 != 0 or self.activation != IDENTITY):
                raise ValueError("an LSTM layer has four gates for each unit, and no activation behind them")
            if prod(shape) != self.inputs:
                raise ValueError(f"a linear layer of {self.inputs} inputs does not fit an input of shape {shape}")
            return (self.outputs,)
        if self.lstm:
            raise ValueError("a convolution is not an LSTM layer")
        if self.gain is not None:
            raise ValueError("a convolution does not have a gain")
        if len(shape) != 3 or shape[0] != self.weight.shape[1]:
            raise ValueError(f"a convolution of {self.weight.shape[1]} channels does not fit an input of shape {shape}")
        return (self.outputs, *count_windows(shape[1:], self.weight.shape[2:], self.stride, self.padding))
