"""
The compact file: :class:`Network` to bytes and back. ``docs/guide/format.md`` describes it byte by byte.

Reading trusts nothing. Every length is checked against what is there before anything is allocated, every number against
its range, and the checksum before all; whatever is wrong ends in one :class:`ValueError`. Nothing is unpickled or executed.
"""

import struct
import zlib
from math import prod

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.runtime.bytestream import MAX_ELEMENTS, Reader, Writer, require
from sb3_sparse.runtime.gaps import from_gaps, to_gaps, to_runs
from sb3_sparse.runtime.limits import check_size, check_weights
from sb3_sparse.runtime.records import (
    ACTIVATIONS,
    HEADS,
    Activation,
    Fixed,
    Head,
    Layer,
    Minifloats,
    Network,
    Normalize,
    Shape,
)

MAGIC = b"SB3S"
VERSION = 1
#: magic, version, flags, zero, length of the payload. Behind them stands the checksum of these 12 bytes and all that follow.
_HEADER = struct.Struct("<4sBBHI")
_DEFLATED = 1
_IMAGE, _NORMALIZED, _RANGES = 1, 2, 4
_CONVOLUTION, _QUANTIZED, _GAIN, _FLOAT_SCALE = 1, 2, 4, 8
_NAMES = tuple(ACTIVATIONS)
#: Activations with numbers of their own in the file.
_NUMBERS = ("clip", "leaky_relu", "elu")
#: A payload that deflates further than this is stored as it is, so that no file becomes a flood.
_MAX_RATIO = 32
#: Most entries of one row: their count has two bytes.
_MAX_ROW = (1 << 16) - 1
_MAX_FLOAT = float(np.finfo(np.float32).max)


def encode(network: Network) -> bytes:
    """
    :param network: The network.
    :return: The bytes of its file
    :raises ValueError: if it is larger than the format allows
    """
    writer = Writer()
    writer.shape(network.shape)
    flags = _IMAGE * network.image | _NORMALIZED * (network.normalize is not None) | _RANGES * (network.ranges is not None)
    writer.pack("B", flags)
    if network.normalize is not None:
        writer.pack("f", network.normalize.limit)
        writer.array(network.normalize.mean.reshape(-1), "f4")
        writer.array(network.normalize.scale.reshape(-1), "f4")
    writer.pack("B", len(network.layers))
    for index, layer in enumerate(network.layers):
        if network.ranges is not None:
            writer.pack("f", network.ranges[index])
        _write_layer(writer, layer)
    _write_head(writer, network.head)
    payload = writer.bytes()
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = compressor.compress(payload) + compressor.flush()
    deflated = len(packed) < len(payload) <= _MAX_RATIO * len(packed)
    header = _HEADER.pack(MAGIC, VERSION, _DEFLATED if deflated else 0, 0, len(payload))
    body = packed if deflated else payload
    check_size(network, len(header) + 4 + len(body))
    return header + struct.pack("<I", zlib.crc32(body, zlib.crc32(header))) + body


def decode(data: bytes) -> Network:
    """
    :param data: The bytes of a file.
    :return: The network
    :raises ValueError: if they are damaged, of another version, or no such file
    """
    try:
        return _decode(data)
    except (struct.error, zlib.error) as error:
        raise ValueError(f"this compressed policy is damaged ({error}); copy or export it again") from error


def _decode(data: bytes) -> Network:
    data = bytes(data)
    if data[:4] != MAGIC:
        raise ValueError("this is no compressed policy of sb3_sparse: it does not begin with 'SB3S'")
    _, version, flags, zero, length = _HEADER.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"this compressed policy has format version {version}, not {VERSION}: update sb3_sparse to read it")
    (checksum,) = struct.unpack_from("<I", data, _HEADER.size)
    body = data[_HEADER.size + 4 :]
    require(checksum == zlib.crc32(body, zlib.crc32(data[: _HEADER.size])), "its checksum is wrong")
    require(zero == 0 and flags in (0, _DEFLATED), "it has unknown flags")
    if flags == _DEFLATED:
        require(length <= _MAX_RATIO * len(body), f"its length cannot be {length}")
        decompressor = zlib.decompressobj(-15)
        body = decompressor.decompress(body, length + 1)
        require(decompressor.eof and not decompressor.unused_data, "its compressed part does not end where it should")
    require(len(body) == length, f"its length is {len(body)} instead of {length}")

    reader = Reader(body)
    shape = reader.shape()
    require(len(shape) > 0, "its observation has no shape")
    flags = reader.integer("B")
    require(flags < 8, "it has unknown flags")
    normalize = None
    if flags & _NORMALIZED:
        limit = reader.number(positive=True, infinite=True)
        mean, scale = (reader.array(prod(shape), "f4").reshape(shape) for _ in range(2))
        normalize = Normalize(mean, scale, limit)
    layers: list[Layer] = []
    ranges: list[float] = []
    current = shape
    count = reader.integer("B")
    require(count > 0, "it has no layer")
    for _ in range(count):
        if flags & _RANGES:
            ranges.append(reader.number(positive=True))
        layers.append(layer := _read_layer(reader, current, layers, len(data)))
        current = layer.output_shape(current)
        require(prod(current) <= MAX_ELEMENTS, f"a layer gives {current}")
    head = _read_head(reader, current)
    reader.end()
    network = Network(shape, bool(flags & _IMAGE), normalize, tuple(layers), head, tuple(ranges) if flags & _RANGES else None)
    check_size(network, len(data))
    return network


def _write_layer(writer: Writer, layer: Layer) -> None:
    kind = _CONVOLUTION * layer.convolution | _QUANTIZED * layer.quantized | _GAIN * (layer.gain is not None)
    kind |= _FLOAT_SCALE * isinstance(layer.scale, np.ndarray)
    writer.pack("BBH", kind, _NAMES.index(layer.activation.name), layer.outputs)
    if layer.activation.name in _NUMBERS:
        writer.pack("ff", layer.activation.low, layer.activation.high)
    if layer.convolution:
        writer.pack("6B", *layer.weight.shape[2:], *layer.stride, *layer.padding)
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
    counts, gaps, values = to_gaps(layer.weight.reshape(layer.outputs, -1))
    if counts.max(initial=0) > _MAX_ROW:
        row = f"a layer of shape {layer.weight.shape} has a row of {counts.max()} weights"
        raise ValueError(f"{row}, and the compact file has room for {_MAX_ROW}: prune it first")
    runs = to_runs(counts)
    writer.pack("H", len(runs))
    writer.array(runs, "u2")
    writer.array(gaps, "u1")
    writer.array(values, "i1" if layer.quantized else "f4")


def _read_layer(reader: Reader, shape: Shape, before: list[Layer], length: int) -> Layer:
    kind, name, outputs = reader.unpack("BBH")
    require(kind < 16 and name < len(_NAMES) and outputs > 0, "a layer is of an unknown kind")
    require(not kind & _FLOAT_SCALE or bool(kind & _QUANTIZED), "a layer has scales without integers")
    activation = _read_activation(reader, _NAMES[name])
    stride, padding = (1, 1), (0, 0)
    if kind & _CONVOLUTION:
        height, width, *rest = reader.unpack("6B")
        stride, padding = tuple(rest[:2]), tuple(rest[2:])
        require(min(height, width, *stride) > 0 and len(shape) == 3, "a convolution does not fit")
        dimensions: Shape = (outputs, shape[0], height, width)
    else:
        dimensions = (outputs, prod(shape))
    size = prod(dimensions)
    nbytes = sum(layer.weight.nbytes for layer in before) + size * (1 if kind & _QUANTIZED else 4)
    check_weights(sum(layer.weight.size for layer in before) + size, nbytes, length)
    columns = prod(dimensions[1:])
    gain = Minifloats(codes=np.zeros(0, np.uint8), unit=1.0) if kind & _GAIN else None
    if gain is not None:
        require(not kind & _CONVOLUTION, "a convolution has gains")
        gain = Minifloats(unit=reader.number(positive=True), codes=reader.array(columns, "u1"))
    scale: Minifloats | NDArray[np.float32] | None = None
    bias: Fixed | NDArray[np.float32]
    if kind & _QUANTIZED:
        if kind & _FLOAT_SCALE:
            scale = reader.array(outputs, "f4")
        else:
            scale = Minifloats(unit=reader.number(positive=True), codes=reader.array(outputs, "u1"))
        bias = Fixed(unit=reader.number(positive=True), codes=reader.array(outputs, "i2"))
        largest = max(128 * _largest(scale) * (1.0 if gain is None else _largest(gain)), 32768 * bias.unit)
        require(largest <= _MAX_FLOAT, "a weight is too large")
    else:
        bias = reader.array(outputs, "f4")
    runs = reader.array(2 * reader.integer("H"), "u2").astype(np.int64).reshape(-1, 2)
    require(int(runs[:, 1].sum()) == outputs, "its rows do not add up")
    require(bool((runs[:, 0] <= columns).all()), "a row has more weights than columns")
    counts = np.repeat(runs[:, 0], runs[:, 1])
    entries = int(counts.sum())
    gaps = reader.array(entries, "u1")
    values = reader.array(entries, "i1" if kind & _QUANTIZED else "f4")
    weight = from_gaps(counts, gaps, values, columns).reshape(dimensions)
    return Layer(weight, bias, activation, scale, gain, stride, padding)


def _largest(numbers: Minifloats | NDArray[np.float32]) -> float:
    if isinstance(numbers, Minifloats):
        code = int(numbers.codes.max(initial=0))
        return float((16 + code % 16) << code // 16) * numbers.unit
    return float(np.abs(numbers).max(initial=0))


def _read_activation(reader: Reader, name: str) -> Activation:
    if name not in _NUMBERS:
        return Activation(name)
    low, high = (reader.number(infinite=name == "clip") for _ in range(2))
    require(low <= high or name != "clip", "an activation has a lower bound above the upper one")
    return Activation(name, low, high)


def _write_head(writer: Writer, head: Head) -> None:
    writer.pack("B", HEADS.index(head.kind))
    writer.shape(head.shape)
    if head.kind == "argmax":
        writer.pack(f"H{len(head.groups)}H", len(head.groups), *head.groups)
    elif head.low is not None and head.high is not None:
        # Bounds that are all the same are written once.
        uniform = len(set(head.low.tolist())) == len(set(head.high.tolist())) == 1
        writer.pack("B", uniform)
        for bound in (head.low, head.high):
            writer.array(bound[:1] if uniform else bound, "f4")


def _read_head(reader: Reader, inputs: Shape) -> Head:
    kind = reader.integer("B")
    require(kind < len(HEADS), "its action is of an unknown kind")
    shape = reader.shape()
    if HEADS[kind] == "argmax":
        groups = reader.unpack(f"{reader.integer('H')}H")
        require(len(groups) == prod(shape) and min(groups, default=0) > 0, "its action does not fit its groups")
        return Head("argmax", shape, groups=groups)
    require(prod(shape) == prod(inputs), f"its action of shape {shape} does not fit {prod(inputs)} outputs")
    if HEADS[kind] == "positive":
        return Head("positive", shape)
    uniform = reader.integer("B")
    require(uniform < 2, "its bounds are of an unknown kind")
    low, high = (
        np.broadcast_to(reader.array(1 if uniform else prod(shape), "f4", infinite=HEADS[kind] == "clip"), prod(shape)).copy()
        for _ in range(2)
    )
    require(bool((low <= high).all()), "its action has a lower bound above the upper one")
    return Head(HEADS[kind], shape, low, high)
