"""The layers of the compact file to bytes and back; ``docs/guide/format.md`` describes them byte by byte."""

from enum import IntFlag
from math import prod

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.format.bytestream import MAX_ELEMENTS, Reader, Writer, require
from sb3_sparse.runtime.format.limits import check_weights
from sb3_sparse.runtime.format.weight_bytes import LAYOUT_VERSION, MAX_ENTRIES, fits_deltas, read_weights, write_weights
from sb3_sparse.runtime.network.elements import count_windows
from sb3_sparse.runtime.network.records import Activation, Fixed, Layer, Minifloats, Norm, Pool, Shape

#: Activations by their numbers in the file: a new one goes to the end.
ACTIVATIONS = (
    *("identity", "relu", "tanh", "clip", "leaky_relu", "elu", "sigmoid", "silu"),
    *("gelu", "gelu_tanh", "mish", "softplus", "softsign", "hardswish", "prelu"),
)
#: How many of them each version has.
_KNOWN = (0, 8, 8, 14, 14, 14, 15)
#: The version whose layers have a second byte for their parts.
_MORE_VERSION = 6
#: Activations whose two numbers are in the file.
_NUMBERS = ("clip", "leaky_relu", "elu")
_MAX_FLOAT = float(np.finfo(np.float32).max)


class _Kind(IntFlag):
    """The kind of a layer and its optional parts. All bits have a meaning: newer parts are in :class:`_More`."""

    CONVOLUTION = 1
    QUANTIZED = 2
    GAIN = 4
    FLOAT_SCALE = 8
    RECTIFY = 16
    RESIDUAL = 32
    POOL = 64
    LSTM = 128


class _More(IntFlag):
    """Parts of a layer in a byte that versions before the sixth do not have."""

    NORM = 1
    MEAN = 2


#: Parts that only a convolution can have.
_CONVOLUTIONS = _Kind.RECTIFY | _Kind.RESIDUAL | _Kind.POOL
#: Parts that only a linear layer can have.
_LINEAR = _Kind.GAIN | _Kind.LSTM


def needs_version(layer: Layer) -> int:
    """
    :param layer: A layer.
    :return: The oldest version of the format that can hold it
    """
    if _more(layer):
        return _MORE_VERSION
    weights = 1 if fits_deltas(layer.weight.reshape(layer.rows, -1)) else LAYOUT_VERSION
    parts = 3 if layer.lstm else 2 if layer.rectify or layer.residual or layer.pool is not None else 1
    activation = ACTIVATIONS.index(layer.activation.name)
    return max(weights, parts, next(version for version, known in enumerate(_KNOWN) if activation < known))


def write_layer(writer: Writer, layer: Layer, version: int) -> None:
    """
    :param writer: The file to write to.
    :param layer: A layer.
    :param version: Version of the file.
    :raises ValueError: if it is larger than the format allows
    """
    writer.pack("BBH", _kind(layer), ACTIVATIONS.index(layer.activation.name), layer.outputs)
    if version >= _MORE_VERSION:
        writer.pack("B", _more(layer))
    _write_activation(writer, layer.activation)
    if layer.convolution:
        writer.pack("6B", *layer.weight.shape[2:], *layer.stride, *layer.padding)
    if layer.pool is not None:
        writer.pack("6B", *layer.pool.kernel, *layer.pool.stride, *layer.pool.padding)
    if layer.norm is not None:
        writer.pack("f", layer.norm.epsilon)
        for numbers in (layer.norm.scale, layer.norm.shift):
            writer.array(numbers, "f4")
    if layer.gain is not None:
        writer.pack("f", layer.gain.unit)
        writer.array(layer.gain.codes, "u1")
    if layer.scale is not None:
        assert isinstance(layer.bias, Fixed)
        if isinstance(layer.scale, Minifloats):
            writer.pack("f", layer.scale.unit)
            writer.array(layer.scale.codes, "u1")
        else:
            writer.array(layer.scale, "f4")
        writer.pack("f", layer.bias.unit)
        writer.array(layer.bias.codes, "i2")
    else:
        writer.array(layer.biases, "f4")
    write_weights(writer, layer.weight.reshape(layer.rows, -1), version)


def _write_activation(writer: Writer, activation: Activation) -> None:
    if activation.slopes is not None:
        writer.array(activation.slopes, "f4")
    if activation.name in _NUMBERS:
        writer.pack("ff", activation.low, activation.high)


def _kind(layer: Layer) -> _Kind:
    has = {
        _Kind.CONVOLUTION: layer.convolution,
        _Kind.QUANTIZED: layer.quantized,
        _Kind.GAIN: layer.gain is not None,
        _Kind.FLOAT_SCALE: isinstance(layer.scale, np.ndarray),
        _Kind.RECTIFY: layer.rectify,
        _Kind.RESIDUAL: layer.residual,
        _Kind.POOL: layer.pool is not None,
        _Kind.LSTM: layer.lstm,
    }
    return _Kind(sum(kind for kind, present in has.items() if present))


def _more(layer: Layer) -> _More:
    mean = layer.pool is not None and layer.pool.mean
    return _More(_More.NORM * (layer.norm is not None) | _More.MEAN * mean)


def read_layer(reader: Reader, version: int, shape: Shape, before: list[Layer], length: int) -> Layer:
    """
    :param reader: The file to read from.
    :param version: Version of the file.
    :param shape: Shape of its input.
    :param before: The layers before it.
    :param length: Bytes of the file.
    :return: The layer
    :raises ValueError: if it is damaged, or too large for the file
    """
    bits, name, outputs = reader.unpack("BBH")
    require(name < len(ACTIVATIONS) and outputs > 0, "a layer is of an unknown kind")
    kind = _Kind(bits)
    require(_Kind.FLOAT_SCALE not in kind or _Kind.QUANTIZED in kind, "a layer has scales without integers")
    require(_Kind.CONVOLUTION in kind or not kind & _CONVOLUTIONS, "a linear layer has something that only a convolution has")
    require(_Kind.CONVOLUTION not in kind or not kind & _LINEAR, "a convolution has something that only a linear layer has")
    lstm = _Kind.LSTM in kind
    require(not lstm or (name == 0 and 4 * outputs <= MAX_ENTRIES), "an LSTM layer has an activation, or too many units")
    require(name < _KNOWN[version], f"a layer is of a kind that version {version} does not have")
    more = _More(reader.integer("B")) if version >= _MORE_VERSION else _More(0)
    require(more <= sum(_More), "a layer has unknown parts")
    require(_Kind.POOL in kind or _More.MEAN not in more, "a layer has the mean of a pool without a pool")
    require(not lstm or _More.NORM not in more, "an LSTM layer has a norm")
    require(_Kind.RESIDUAL not in kind or _More.NORM not in more, "a residual layer has a norm")
    activation = _read_activation(reader, ACTIVATIONS[name], outputs)
    stride, padding, pool = (1, 1), (0, 0), None
    if _Kind.CONVOLUTION in kind:
        require(len(shape) == 3, "a convolution does not fit")
        kernel, stride, padding = _read_windows(reader)
        dimensions: Shape = (outputs, shape[0], *kernel)
        pool = Pool(*_read_windows(reader), mean=_More.MEAN in more) if _Kind.POOL in kind else None
    else:
        dimensions = (4 * outputs, prod(shape) + outputs) if lstm else (outputs, prod(shape))
    size = prod(dimensions)
    nbytes = sum(layer.weight.nbytes for layer in before) + size * (1 if _Kind.QUANTIZED in kind else 4)
    check_weights(sum(layer.weight.size for layer in before) + size, nbytes, length)
    sums = (outputs, *count_windows(shape[1:], dimensions[2:], stride, padding)) if _Kind.CONVOLUTION in kind else (outputs,)
    norm = _read_norm(reader, sums) if _More.NORM in more else None
    rows, columns = dimensions[0], prod(dimensions[1:])
    gain = Minifloats(codes=np.zeros(0, np.uint8), unit=1.0) if _Kind.GAIN in kind else None
    if gain is not None:
        gain = Minifloats(unit=reader.number(positive=True), codes=reader.array(columns, "u1"))
    scale: Minifloats | NDArray[np.float32] | None = None
    bias: Fixed | NDArray[np.float32]
    if _Kind.QUANTIZED in kind:
        if _Kind.FLOAT_SCALE in kind:
            scale = reader.array(rows, "f4")
        else:
            scale = Minifloats(unit=reader.number(positive=True), codes=reader.array(rows, "u1"))
        bias = Fixed(unit=reader.number(positive=True), codes=reader.array(rows, "i2"))
        largest = max(128 * _largest(scale) * (1.0 if gain is None else _largest(gain)), 32768 * bias.unit)
        require(largest <= _MAX_FLOAT, "a weight is too large")
    else:
        bias = reader.array(rows, "f4")
    weight = read_weights(reader, version, rows, columns, integers=_Kind.QUANTIZED in kind).reshape(dimensions)
    rectify, residual = _Kind.RECTIFY in kind, _Kind.RESIDUAL in kind
    layer = Layer(weight, bias, activation, scale, gain, stride, padding, rectify, residual, pool, lstm, norm)
    require(prod(layer.sum_shape(shape)) <= MAX_ELEMENTS, f"a layer gives {layer.sum_shape(shape)}")
    return layer


def _read_windows(reader: Reader) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Kernel, stride and padding."""
    height, width, down, right, top, side = reader.unpack("6B")
    require(min(height, width, down, right) > 0, "a kernel or a stride is 0")
    return (height, width), (down, right), (top, side)


def _largest(numbers: Minifloats | NDArray[np.float32]) -> float:
    if isinstance(numbers, Minifloats):
        code = int(numbers.codes.max(initial=0))
        return float((16 + code % 16) << code // 16) * numbers.unit
    return float(np.abs(numbers).max(initial=0))


def _read_norm(reader: Reader, sums: Shape) -> Norm:
    require(prod(sums) <= MAX_ELEMENTS, f"a layer gives {sums}")
    epsilon = reader.number(positive=True)
    return Norm(epsilon, *(reader.array(prod(sums), "f4").reshape(sums) for _ in range(2)))


def _read_activation(reader: Reader, name: str, outputs: int) -> Activation:
    if name == "prelu":
        return Activation(name, slopes=reader.array(outputs, "f4"))
    if name not in _NUMBERS:
        return Activation(name)
    low, high = (reader.number(infinite=name == "clip") for _ in range(2))
    require(low <= high or name != "clip", "an activation has a lower bound above the upper one")
    return Activation(name, low, high)
