"""
Post-training quantization of weights to int8 (2 to 8 bits), layer after layer, without training.

One scale per row is wrong for a first layer, whose inputs differ in scale by orders of magnitude, and rounding every weight
for itself is not the best that a row can do. Hence:

- **Equalized inputs** (first layer, if linear). Column i of the weight is divided by a gain g_i, one over the standard
  deviation of input i, and the observation multiplied by it, which changes nothing but the rounding.
- **Error feedback** (all layers): columns are rounded one after the other, and the error of each is made up for by those
  still to come, as the covariance of the inputs says (optimal brain surgeon; GPTQ, Frantar et al. 2022,
  arXiv:2210.17323, algorithm 1). A weight that does not exist takes no part.
- **Bias correction** (all layers, with observations): what rounding does to the mean input goes into the bias.

Both look at inputs. Without observations of the environment the first layer's own weights say what they may look like: a
trained layer multiplies what is large by what is small, so input i is drawn from a normal distribution with a standard
deviation of one over the largest absolute weight of column i. What that cannot give is the range of the activations,
which integer arithmetic needs, nor images: the layers of a network that begins with a convolution are rounded plainly.

Scales are stored in one byte each (:class:`~sb3_sparse.runtime.network.records.Minifloats`) and rounded to that before the
weights are, so storing them loses nothing. A layer that was trained with fake quantization has its own grid and is left alone.
"""

from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.network.elements import one_scale
from sb3_sparse.runtime.network.records import Fixed, Floats, Layer, Minifloats, Network, Normalize
from sb3_sparse.runtime.network.reference import apply_layer, columns

#: Largest and smallest integer that a minifloat can hold.
_TOP, _BOTTOM = 31 << 15, 16
#: How many inputs are drawn where there are no observations.
_DRAWN = 16384
#: Gains that differ by more than this are kept as floats.
_WIDEST = 1 << 15
#: Error feedback needs a triangular factor for each set of inputs; sparse rows of more inputs than this are rounded plainly.
_MAX_ROW = 1024
_MAX_INPUTS = 4096
#: Most numbers in the windows of a convolution that are looked at together: 128 MiB as floats.
_MAX_NUMBERS = 1 << 25
#: Share of the mean variance that is added to each, so that the matrix can be inverted.
_DAMPING = 0.01


def quantize(network: Network, bits: int, observations: Floats | None = None) -> Network:
    """
    Round all weights to int8; weights that round to 0 do not exist any more. Biases stay float: see :func:`round_biases`.

    :param network: A network; layers that are quantized already stay as they are.
    :param bits: Bits per weight, 2 to 8.
    :param observations: Observations as the environment gives them, ``[n, *shape]``; None draws them as said above.
    :return: The quantized network, with ``ranges`` if there are observations
    """
    top = 2 ** (bits - 1) - 1
    if observations is None:
        x = _draw_inputs(network.layers[0])
    else:
        x = observations.astype(np.float32)
        x = x if network.normalize is None else network.normalize(x)
    before: Floats | None = None
    layers: list[Layer] = []
    ranges: list[float] = []
    normalize = network.normalize
    for index, layer in enumerate(network.layers):
        if index == 0 and x is not None and not layer.convolution and not layer.quantized:
            layer, normalize, x = _equalize(layer, normalize, x)
        if not layer.quantized:
            inputs = None if x is None else columns(layer, _enough(layer, x))
            # The means of inputs that are guessed are not to be relied on.
            mean = np.zeros(1) if inputs is None or observations is None else inputs.mean(axis=0, dtype=np.float64)
            layer = _round(layer, top, inputs, mean)
        if x is not None:
            gained = x.reshape(len(x), -1) * layer.gain.values if layer.gain is not None else x
            ranges.append(max(float(np.abs(gained).max()), 1e-6))
            before, x = x, _apply(layer, x, before)
        layers.append(layer)
    known = None if observations is None else tuple(ranges)
    return replace(network, normalize=normalize, layers=tuple(layers), ranges=known)


def _enough(layer: Layer, x: Floats) -> Floats:
    """So many of the inputs, evenly chosen, that the windows of a convolution do not fill the memory."""
    numbers = prod(layer.sum_shape(x.shape[1:])[1:]) * layer.weight[0].size
    return x[:: -(-len(x) * numbers // _MAX_NUMBERS)] if layer.convolution else x


def _apply(layer: Layer, x: Floats, before: Floats | None) -> Floats:
    """The outputs of a layer, for as many inputs at a time as :func:`_enough` takes."""
    size = len(_enough(layer, x))
    parts = [slice(start, start + size) for start in range(0, len(x), size)]
    return np.concatenate([apply_layer(layer, x[part], None if before is None else before[part]) for part in parts])


def round_biases(network: Network) -> Network:
    """
    Round the biases of quantized layers to 16 bits, the last step.

    :param network: A quantized network.
    :return: The same with biases of type :class:`~sb3_sparse.runtime.network.records.Fixed`
    """
    layers = []
    for layer in network.layers:
        unit = float(np.float32(np.abs(layer.biases).max() / 32767)) or 1.0
        codes = np.clip(np.rint(layer.biases / np.float32(unit)), -32767, 32767).astype(np.int16)
        layers.append(replace(layer, bias=Fixed(codes, unit)) if layer.quantized else layer)
    return replace(network, layers=tuple(layers))


def to_minifloats(values: Floats, *, up: bool) -> Minifloats:
    """
    :param values: Numbers that are not negative, ``[n]``.
    :param up: Whether to round up always, so that nothing exceeds what it is a bound of; else to the nearest.
    :return: Their codes; the largest is met exactly, and what is too small for the rest takes the smallest there is
    """
    largest = float(values.max(initial=0.0))
    unit = float(np.float32(largest / _TOP)) or 1.0
    # Rounded to float32, the unit may be a hair too small.
    integers = np.clip(values.astype(np.float64) / unit * (1 - 1e-6 * up), _BOTTOM, _TOP)
    exponents = np.clip(np.floor(np.log2(integers)) - 4, 0, 15).astype(np.int64)
    mantissas = integers / 2.0**exponents
    rounded = (np.ceil(mantissas) if up else np.rint(mantissas)).astype(np.int64)
    carried = rounded == 32
    exponents, rounded = exponents + carried, np.where(carried, 16, rounded)
    over = exponents > 15
    exponents, rounded = np.where(over, 15, exponents), np.where(over, 31, rounded)
    return Minifloats((exponents << 4 | (rounded - 16)).astype(np.uint8), unit)


def _draw_inputs(layer: Layer) -> Floats | None:
    """Inputs of a first layer, ``[n, in]``, guessed from its weights."""
    if layer.convolution:
        return None
    largest = np.abs(layer.dense()).max(axis=0)
    deviation = np.divide(1, largest, out=np.zeros_like(largest), where=largest > 0)
    inputs: Floats = (np.random.default_rng(0).standard_normal((_DRAWN, len(largest))) * deviation).astype(np.float32)
    return inputs


def _equalize(layer: Layer, normalize: Normalize | None, x: Floats) -> tuple[Layer, Normalize | None, Floats]:
    """
    Gains for the inputs: in the layer, or, if they differ by more than one byte can say, in a normalization.

    :param layer: A linear layer.
    :param normalize: The normalization before it, if there is one.
    :param x: Its inputs, ``[n, ...]``.
    :return: The layer, still float, with what stands before it and its inputs
    """
    largest = np.abs(layer.weight).max(axis=0).astype(np.float64)
    deviation = x.reshape(len(x), -1).std(axis=0, dtype=np.float64)
    # A deviation that is no ordinary float is none.
    known = (deviation > np.finfo(np.float32).tiny) & (largest > 0)
    if not known.any():
        return layer, normalize, x
    # What an input contributes at most, and what the median one does. One that hardly moved in the observations is not taken
    # to matter less than a 256th of it, or its gain would leave the others no room.
    level = np.median((largest * deviation)[known])
    gain = np.where(largest > 0, np.minimum(1 / np.where(known, deviation, np.inf), 256 * largest / level), 0)
    gain = np.where(known | (largest == 0), gain, largest / level)
    if normalize is None and gain.max() > _WIDEST * gain[gain > 0].min():
        gain = np.where(gain > 0, gain, 1).astype(np.float32)
        normalize = Normalize(np.zeros(x.shape[1:], np.float32), gain.reshape(x.shape[1:]), float("inf"))
        return replace(layer, weight=(layer.weight / gain).astype(np.float32)), normalize, normalize(x)
    codes = to_minifloats(gain.astype(np.float32), up=False)
    return replace(layer, weight=(layer.weight / codes.values).astype(np.float32), gain=codes), normalize, x


def _round(layer: Layer, top: int, inputs: Floats | None, mean: NDArray[np.float64]) -> Layer:
    """The layer with integers; ``inputs`` are those of its matrix, ``[n, in]``, before the gain, and ``mean`` is theirs."""
    if np.array_equal(layer.weight, np.eye(*layer.weight.shape[:2])):
        # What only carries an activation is not to be rounded.
        return replace(layer, weight=layer.weight.astype(np.int8), scale=one_scale(layer.outputs, 1.0))
    matrix = layer.weight.reshape(layer.outputs, -1).astype(np.float64)
    scale = to_minifloats((np.abs(matrix).max(axis=1) / top).astype(np.float32), up=True)
    steps = scale.values.astype(np.float64)[:, None]
    gain = 1.0 if layer.gain is None else layer.gain.values
    if inputs is None or not _can_feed_back(matrix):
        integers = np.clip(np.rint(matrix / steps), -top, top)
    else:
        integers = _error_feedback(matrix, steps, top, ((inputs - mean) * gain).astype(np.float32))
    errors = (matrix - integers * steps) * (mean * gain)
    bias = (layer.biases + errors.sum(axis=1)).astype(np.float32)
    return replace(layer, weight=integers.astype(np.int8).reshape(layer.weight.shape), scale=scale, bias=bias)


def _can_feed_back(matrix: np.ndarray) -> bool:
    counts = np.count_nonzero(matrix, axis=1)
    return matrix.shape[1] <= _MAX_INPUTS and bool((matrix != 0).all() or counts.max() <= _MAX_ROW)


def _error_feedback(matrix: np.ndarray, steps: np.ndarray, top: int, inputs: Floats) -> np.ndarray:
    """Integers of a matrix ``[out, in]``; rows with the same columns are done together."""
    moments = np.zeros((matrix.shape[1],) * 2)
    for part in np.array_split(inputs, max(1, len(inputs) // 4096)):
        moments += part.T.astype(np.float64) @ part
    moments /= len(inputs)
    moments += np.eye(len(moments)) * max(_DAMPING * float(np.trace(moments)) / len(moments), 1e-12)
    # The inputs that matter most come first: the others can make up for them.
    energy = np.argsort(-np.diag(moments), kind="stable")
    integers = np.zeros_like(matrix)
    if (matrix != 0).all():
        groups = [(np.arange(len(matrix)), energy)]
    else:
        groups = [(np.array([row]), energy[matrix[row, energy] != 0]) for row in range(len(matrix))]
    for rows, present in groups:
        if len(present):
            factor = np.linalg.cholesky(np.linalg.inv(moments[np.ix_(present, present)])).T
            integers[np.ix_(rows, present)] = _feed_back(matrix[np.ix_(rows, present)], steps[rows, 0], top, factor)
    return integers


def _feed_back(matrix: np.ndarray, steps: np.ndarray, top: int, factor: np.ndarray) -> np.ndarray:
    """Algorithm 1 of GPTQ without its blocks: ``factor`` is the upper Cholesky factor of the inverse second moments."""
    rest, integers = matrix.copy(), np.empty_like(matrix)
    for column in range(matrix.shape[1]):
        integers[:, column] = np.clip(np.rint(rest[:, column] / steps), -top, top)
        error = (rest[:, column] - integers[:, column] * steps) / factor[column, column]
        rest[:, column + 1 :] -= np.outer(error, factor[column, column + 1 :])
    return integers
