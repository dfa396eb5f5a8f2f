"""
Post-training quantization of weights to int8 (2 to 8 bits), layer after layer, without training.

Plain rounding costs trained agents up to half of their return, nearly all of it in the first layer, whose inputs differ in
scale by orders of magnitude. Two remedies, both of them cheap:

- **Equalized inputs** (first layer, if linear). Column i of the weight is divided by a gain g_i, one over the root mean square
  of input i, and the observation multiplied by it, which changes nothing but the rounding.
- **Error feedback** (all layers): columns are rounded one after the other, and the error of each is made up for by those
  still to come, as the second moments of the inputs say (optimal brain surgeon; GPTQ, Frantar et al. 2022,
  arXiv:2210.17323, algorithm 1). A weight that does not exist takes no part.

Both look at inputs. Without observations of the environment the first layer's own weights say what they may look like: a
trained layer multiplies what is large by what is small, so input i is drawn from a normal distribution with a standard
deviation of one over the largest absolute weight of column i. What that cannot give is the range of the activations,
which integer arithmetic needs, nor images: the layers of a network that begins with a convolution are rounded plainly.

Scales are stored in one byte each (:class:`~sb3_sparse.runtime.records.Minifloats`) and rounded to that before the weights
are, so storing them loses nothing. A layer that was trained with fake quantization has its own grid and is left alone.
"""

from dataclasses import replace

import numpy as np

from sb3_sparse.runtime.records import Fixed, Floats, Layer, Minifloats, Network
from sb3_sparse.runtime.reference import apply_layer, columns

#: Largest and smallest integer that a minifloat can hold.
_TOP, _BOTTOM = 31 << 15, 16
#: Error feedback needs a triangular factor for each set of inputs; sparse rows of more inputs than this are rounded plainly.
_MAX_ROW = 1024
_MAX_INPUTS = 4096
#: Share of the mean second moment that is added to each, so that the matrix can be inverted.
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
    layers: list[Layer] = []
    ranges: list[float] = []
    for index, layer in enumerate(network.layers):
        if not layer.quantized:
            inputs = None if x is None else columns(layer, x)
            if index == 0 and not layer.convolution:
                assert inputs is not None
                layer, inputs = _equalize(layer, inputs)
            layer = _round(layer, top, inputs)
        if x is not None:
            gained = x.reshape(len(x), -1) * layer.gain.values if layer.gain is not None else x
            ranges.append(max(float(np.abs(gained).max()), 1e-6))
            x = apply_layer(layer, x)
        layers.append(layer)
    return replace(network, layers=tuple(layers), ranges=None if observations is None else tuple(ranges))


def round_biases(network: Network) -> Network:
    """
    Round the biases of quantized layers to 16 bits, the last step.

    :param network: A quantized network.
    :return: The same with biases of type :class:`~sb3_sparse.runtime.records.Fixed`
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
    """Inputs of a first layer, ``[4096, in]``, guessed from its weights."""
    if layer.convolution:
        return None
    largest = np.abs(layer.dense()).max(axis=0)
    deviation = np.divide(1, largest, out=np.zeros_like(largest), where=largest > 0)
    inputs: Floats = (np.random.default_rng(0).standard_normal((4096, len(largest))) * deviation).astype(np.float32)
    return inputs


def _equalize(layer: Layer, inputs: Floats) -> tuple[Layer, Floats]:
    """
    Gains for the inputs.

    :param layer: A linear layer.
    :param inputs: Its inputs, ``[n, in]``.
    :return: The layer, still float, and its inputs with their gains
    """
    largest = np.abs(layer.weight).max(axis=0)
    power = np.sqrt(np.mean(np.square(inputs, dtype=np.float64), axis=0))
    # A power that is no ordinary float is none.
    known = (power > np.finfo(np.float32).tiny) & (largest > 0)
    if not known.any():
        return layer, inputs
    # An input that never moved in the observations is taken to matter as much as the median one.
    level = np.median(largest[known] * power[known])
    ideal = np.where(known, 1 / np.where(known, power, 1), largest / level)
    gain = to_minifloats(np.where(largest > 0, ideal, 0).astype(np.float32), up=False)
    weight = (layer.weight / gain.values).astype(np.float32)
    return replace(layer, weight=weight, gain=gain), inputs * gain.values


def _round(layer: Layer, top: int, inputs: Floats | None) -> Layer:
    matrix = layer.weight.reshape(layer.outputs, -1).astype(np.float64)
    scale = to_minifloats((np.abs(matrix).max(axis=1) / top).astype(np.float32), up=True)
    steps = scale.values.astype(np.float64)[:, None]
    if inputs is None or not _can_feed_back(matrix):
        integers = np.rint(matrix / steps)
    else:
        integers = _error_feedback(matrix, steps, top, inputs)
    weight = np.clip(integers, -top, top).astype(np.int8).reshape(layer.weight.shape)
    return replace(layer, weight=weight, scale=scale)


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
