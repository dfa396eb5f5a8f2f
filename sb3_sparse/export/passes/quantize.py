"""
Post-training quantization of weights to int8 (2 to 8 bits), layer after layer, without training.

One scale per row is wrong for a first layer, whose inputs differ in scale by orders of magnitude, and rounding every weight
to the nearest integer is not the best that a row can do. Hence:

- **Equalized inputs** (first layer, if linear): a gain per input, see :mod:`~sb3_sparse.export.passes.equalize`.
- **Error feedback** (all layers): later weights of a row make up for the rounding of earlier ones, see
  :mod:`~sb3_sparse.export.passes.feedback`.
- **Shared errors** (last layer of discrete actions): of their values only the differences count. The row with the largest
  weights, whose integers lie furthest apart, is rounded first, and the others of its group take over its errors.
- **Bias correction** (all layers, with observations): the change that rounding makes to the mean output goes into the bias.

The first two need inputs. Without observations of the environment they are guessed from the first layer's weights. That gives
neither the range of the activations, which integer arithmetic needs, nor images: then the layers of a network that begins with
a convolution are rounded plainly.

Scales are stored in one byte each (:class:`~sb3_sparse.runtime.network.records.Minifloats`) and rounded to that before the
weights are, so storing them loses nothing. A layer that was trained with fake quantization has its own grid and stays as it
is.
"""

from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.export.passes.center import action_groups, share_errors
from sb3_sparse.export.passes.equalize import equalize, guess_inputs
from sb3_sparse.export.passes.feedback import can_feed_back, round_with_feedback
from sb3_sparse.export.passes.storage import to_minifloats
from sb3_sparse.runtime.network.elements import one_scale
from sb3_sparse.runtime.network.records import Floats, Layer, Network
from sb3_sparse.runtime.network.reference import apply_layer, columns, run_lstm

#: Most numbers in the windows of a convolution that are looked at together: 128 MiB as floats.
_MAX_NUMBERS = 1 << 25


def round_weights(
    network: Network, bits: int, observations: Floats | None = None, starts: NDArray[np.bool_] | None = None
) -> Network:
    """
    Round all weights to int8; a weight that rounds to 0 is removed. Biases stay float until
    :func:`~sb3_sparse.export.passes.round_biases`.

    :param network: A network; layers that are quantized already stay as they are.
    :param bits: Bits per weight, 2 to 8.
    :param observations: Observations as the environment gives them, ``[n, *shape]``, in the order of time if the network
        remembers; None guesses inputs as said above.
    :param starts: Which of them begin an episode, ``[n]``, if the network remembers; by default only the first.
    :return: The quantized network, with ``ranges`` if there are observations
    """
    top = 2 ** (bits - 1) - 1
    if observations is None:
        x = guess_inputs(network.layers[0])
    else:
        x = network.read(observations)
    before: Floats | None = None
    layers: list[Layer] = []
    ranges: list[float] = []
    peak = 0.0
    normalize = network.normalize
    for index, layer in enumerate(network.layers):
        if layer.grid is not None and x is not None:
            x = layer.grid(x)
        equal = layer.convolution or layer.quantized or layer.grid is not None or _selects(layer)
        if index == 0 and x is not None and not equal:
            layer, normalize, x = equalize(layer, normalize, x, starts)
        if not layer.quantized:
            inputs = None if x is None else columns(layer, _enough(layer, x), starts)
            # The means of guessed inputs mean nothing.
            mean = np.zeros(1) if inputs is None or observations is None else inputs.mean(axis=0, dtype=np.float64)
            layer = _round(layer, top, inputs, mean, action_groups(network) if index == len(network.layers) - 1 else ())
        if x is not None:
            gained = columns(layer, x, starts) if layer.lstm or layer.gain is not None else x
            gained = gained if layer.gain is None else gained * layer.gain.values
            ranges.append(max(float(np.abs(gained).max()), peak, 1e-6))
            peak = _peak(layer, x, before, starts)
            before, x = x, _apply(layer, x, before, starts)
        layers.append(layer)
    known = None if observations is None else tuple(ranges)
    return replace(network, normalize=normalize, layers=tuple(layers), ranges=known)


def _round(layer: Layer, top: int, inputs: Floats | None, mean: NDArray[np.float64], groups: tuple[int, ...] = ()) -> Layer:
    """
    The layer with integers; ``inputs`` are those of its matrix, ``[n, in]``, before the gain, and ``mean`` is theirs. Of the
    outputs of each group only the differences count.
    """
    matrix = layer.weight.reshape(layer.rows, -1).astype(np.float64)
    if _selects(layer):
        # A unit layer only carries an activation, a norm or a pool: its weights stay what they are.
        sizes = np.abs(matrix).max(axis=1).astype(np.float32)
        scales = one_scale(layer.rows, float(sizes[0])) if (sizes == sizes[0]).all() else sizes
        return replace(layer, weight=np.sign(layer.weight).astype(np.int8), scale=scales)
    scale = to_minifloats((np.abs(matrix).max(axis=1) / top).astype(np.float32), up=True)
    steps = scale.values.astype(np.float64)[:, None]
    gain = 1.0 if layer.gain is None else layer.gain.values

    def to_integers(weights: NDArray[np.float64], steps: NDArray[np.float64]) -> NDArray[np.float64]:
        if inputs is None or not can_feed_back(weights):
            return np.clip(np.rint(weights / steps), -top, top)
        return round_with_feedback(weights, steps, top, inputs, mean, gain)

    integers = to_integers(matrix, steps)
    if groups:
        targets, others = share_errors(matrix, integers * steps, groups)
        integers[others] = to_integers(targets[others], steps[others])
    errors = (matrix - integers * steps) * (mean * gain)
    bias = (layer.biases + errors.sum(axis=1)).astype(np.float32)
    return replace(layer, weight=integers.astype(np.int8).reshape(layer.weight.shape), scale=scale, bias=bias)


def _selects(layer: Layer) -> bool:
    """Whether each row has one weight, and each column one at most."""
    exists = layer.weight.reshape(layer.rows, -1) != 0
    return bool((exists.sum(axis=1) == 1).all() and (exists.sum(axis=0) <= 1).all())


def _peak(layer: Layer, x: Floats, before: Floats | None, starts: NDArray[np.bool_] | None) -> float:
    """The largest absolute number that a layer takes means of: these are smaller. 0 of other layers."""
    if layer.pool is None or not layer.pool.mean:
        return 0.0
    return float(np.abs(_apply(replace(layer, pool=None), x, before, starts)).max())


def _enough(layer: Layer, x: Floats) -> Floats:
    """As many of the inputs, evenly chosen, as the windows of a convolution leave room for in memory."""
    numbers = prod(layer.sum_shape(x.shape[1:])[1:]) * layer.weight[0].size
    return x[:: -(-len(x) * numbers // _MAX_NUMBERS)] if layer.convolution else x


def _apply(layer: Layer, x: Floats, before: Floats | None, starts: NDArray[np.bool_] | None) -> Floats:
    """The outputs of a layer, for as many inputs at a time as :func:`_enough` takes."""
    if layer.lstm:
        return run_lstm(layer, x, starts)[1]
    size = len(_enough(layer, x))
    parts = [slice(start, start + size) for start in range(0, len(x), size)]
    return np.concatenate([apply_layer(layer, x[part], None if before is None else before[part]) for part in parts])
