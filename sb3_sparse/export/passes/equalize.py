"""
Equalize the inputs of a first layer before its rows get one scale each: column i of the weight is divided by a gain g_i, one
over the standard deviation of input i, and the observation is multiplied by it. This changes nothing but the rounding.

Without observations the layer's own weights say how its inputs may look. A trained layer multiplies large inputs by small
weights, so input i is drawn from a normal distribution with a standard deviation of one over the largest absolute weight of
column i.
"""

from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.export.passes.storage import to_minifloats
from sb3_sparse.runtime.network.records import Floats, Layer, Normalize
from sb3_sparse.runtime.network.reference import columns

#: How many inputs are drawn where there are no observations, and most numbers in them: 128 MiB as floats.
_DRAWN, _NUMBERS = 16384, 1 << 25
#: How many are drawn at a time.
_PART = 256
#: Gains that differ by more than this factor are kept as floats.
_WIDEST = 1 << 15


def guess_inputs(layer: Layer) -> Floats | None:
    """
    :param layer: The first layer of a network.
    :return: Inputs, ``[n, in]``, guessed from its weights, without the last outputs of an LSTM; None for a convolution
    """
    if layer.convolution:
        return None
    largest = np.abs(layer.dense()).max(axis=0)[: layer.inputs]
    deviation = np.divide(1, largest, out=np.zeros_like(largest), where=largest > 0)
    inputs = np.empty((max(1, min(_DRAWN, _NUMBERS // len(largest))), len(largest)), np.float32)
    generator = np.random.default_rng(0)
    for start in range(0, len(inputs), _PART):
        part = inputs[start : start + _PART]
        part[:] = generator.standard_normal(part.shape) * deviation
    return inputs


def equalize(
    layer: Layer, normalize: Normalize | None, x: Floats, starts: NDArray[np.bool_] | None = None
) -> tuple[Layer, Normalize | None, Floats]:
    """
    Find gains for the inputs. The layer holds them, or a normalization does if they differ by more than one byte can say.

    :param layer: A linear layer.
    :param normalize: The normalization before it, if there is one.
    :param x: Its inputs, ``[n, ...]``.
    :param starts: Which of them begin an episode, if the layer is an LSTM.
    :return: The layer, still float, the normalization before it, and its inputs
    """
    largest = np.abs(layer.weight).max(axis=0).astype(np.float64)
    deviation = columns(layer, x, starts).std(axis=0, dtype=np.float64)
    # A deviation too small for an ordinary float counts as 0.
    known = (deviation > np.finfo(np.float32).tiny) & (largest > 0)
    if not known.any():
        return layer, normalize, x
    # The level is the largest contribution of the median input. An input that hardly moved in the observations counts as at
    # least a 256th of it, or its gain would leave the others no room.
    level = np.median((largest * deviation)[known])
    gain = np.where(largest > 0, np.minimum(1 / np.where(known, deviation, np.inf), 256 * largest / level), 0)
    gain = np.where(known | (largest == 0), gain, largest / level)
    if normalize is None and gain.max() > _WIDEST * gain[gain > 0].min():
        gain = np.where(gain > 0, gain, 1).astype(np.float32)
        # The last outputs of an LSTM, which it reads behind the observation, pass no normalization.
        gain[prod(x.shape[1:]) :] = 1
        scale = gain[: prod(x.shape[1:])].reshape(x.shape[1:])
        normalize = Normalize(np.zeros(x.shape[1:], np.float32), scale, float("inf"))
        return replace(layer, weight=(layer.weight / gain).astype(np.float32)), normalize, normalize(x)
    codes = to_minifloats(gain.astype(np.float32), up=False)
    return replace(layer, weight=(layer.weight / codes.values).astype(np.float32), gain=codes), normalize, x
