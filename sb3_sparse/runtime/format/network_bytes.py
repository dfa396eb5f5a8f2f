"""
A network in the compact file to bytes and back, without the file's header; ``docs/guide/format.md`` describes it byte by byte.
The encoder of a part is a network in a network.
"""

from dataclasses import replace
from math import prod

import numpy as np

from sb3_sparse.runtime.format.bytestream import MAX_ELEMENTS, Reader, Writer, require
from sb3_sparse.runtime.format.head_bytes import read_head, write_head
from sb3_sparse.runtime.format.layer_bytes import needs_version, read_layer, write_layer
from sb3_sparse.runtime.network.records import Floats, Grid, Layer, Network, Normalize, Part, Shape, Stack

_IMAGE, _NORMALIZED, _RANGES, _PARTS, _LIMITS, _STACK, _VIEW, _GRIDS = 1, 2, 4, 8, 16, 32, 64, 128
#: The first number that is too large for the flags of each version.
_FLAGS = (0, 8, 8, 32, 64, 64, 256)
#: The version that has parts, and one limit per element; the one that has stacks; and the one that has a view and grids.
_PARTS_VERSION, _STACK_VERSION, _VIEW_VERSION = 3, 4, 6
#: Kinds of parts by their numbers in the file: a new one goes to the end.
_NUMBERS, _CLASSES, _ENCODED = range(3)


def oldest_version(network: Network) -> int:
    """
    :param network: A network.
    :return: The oldest version of the format that can hold it
    """
    limits = network.normalize is not None and np.ndim(network.normalize.limit)
    parts = {
        _VIEW_VERSION: network.view is not None or any(layer.grid is not None for layer in network.layers),
        _STACK_VERSION: network.stack is not None,
        _PARTS_VERSION: bool(network.parts or limits),
    }
    own = next((version for version, present in parts.items() if present), 1)
    return max([own, *map(needs_version, network.layers), *map(oldest_version, network.encoders.values())])


def write_network(writer: Writer, network: Network, version: int) -> None:
    """
    :param writer: The file to write to.
    :param network: A network.
    :param version: Version of the file.
    :raises ValueError: if it is larger than the format allows
    """
    normalize, ranges = network.normalize, network.ranges
    limits = normalize is not None and bool(np.ndim(normalize.limit))
    writer.shape(network.shape)
    flags = _IMAGE * network.image | _NORMALIZED * (normalize is not None) | _RANGES * (ranges is not None)
    flags |= _PARTS * bool(network.parts) | _LIMITS * limits | _STACK * (network.stack is not None)
    grids = any(layer.grid is not None for layer in network.layers)
    writer.pack("B", flags | _VIEW * (network.view is not None) | _GRIDS * grids)
    if network.stack is not None:
        _write_stack(writer, network.stack)
    if network.parts:
        writer.pack("B", len(network.parts))
        for part in network.parts:
            _write_part(writer, part, version)
    if normalize is not None:
        _write_normalize(writer, normalize)
    if network.view is not None:
        writer.shape(network.view)
    writer.pack("B", len(network.layers))
    for index, layer in enumerate(network.layers):
        if ranges is not None:
            writer.pack("f", ranges[index])
        if grids:
            _write_grid(writer, layer.grid)
        write_layer(writer, layer, version)
    write_head(writer, network.head)


def _write_grid(writer: Writer, grid: Grid | None) -> None:
    writer.pack("H", 0 if grid is None else grid.top)
    if grid is not None:
        writer.pack("Bf", grid.low < 0, grid.unit)


def _write_stack(writer: Writer, stack: Stack) -> None:
    normalize = stack.normalize
    writer.pack("BB", stack.frames, 0 if normalize is None else 1 + bool(np.ndim(normalize.limit)))
    if normalize is not None:
        _write_normalize(writer, normalize)


def _write_normalize(writer: Writer, normalize: Normalize) -> None:
    for numbers in (normalize.limit, normalize.mean, normalize.scale):
        writer.array(np.asarray(numbers).reshape(-1), "f4")


def _write_part(writer: Writer, part: Part, version: int) -> None:
    key = part.key.encode()
    writer.pack("B", len(key))
    writer.array(np.frombuffer(key, np.uint8), "u1")
    writer.pack("B", _ENCODED if part.encoder is not None else _CLASSES if part.sizes else _NUMBERS)
    if part.encoder is not None:
        write_network(writer, part.encoder, version)
        return
    writer.shape(part.shape)
    writer.array(np.array(part.sizes, np.int64), "u4")


def read_network(reader: Reader, version: int, length: int, before: list[Layer] | None = None) -> Network:
    """
    :param reader: The file to read from.
    :param version: Version of the file.
    :param length: Bytes of the file.
    :param before: The layers before it in the file, if it is an encoder.
    :return: The network
    :raises ValueError: if it is damaged, or too large for the file
    """
    shape = reader.shape()
    require(len(shape) > 0, "its observation has no shape")
    flags = reader.integer("B")
    require(flags < _FLAGS[version], "it has unknown flags")
    stack = None
    if flags & _STACK:
        require(before is None and not flags & _PARTS, "frames are stacked in a part or of parts")
        stack = _read_stack(reader, shape, image=bool(flags & _IMAGE))
    parts: tuple[Part, ...] = ()
    layers = [] if before is None else before
    if flags & _PARTS:
        require(before is None, "an encoder has parts")
        parts = _read_parts(reader, shape, version, length, layers)
        require(not flags & _IMAGE, "an image has parts")
    normalize = _read_normalize(reader, shape, limits=bool(flags & _LIMITS)) if flags & _NORMALIZED else None
    require(normalize is not None or not flags & _LIMITS, "it has limits without a normalization")
    view = reader.shape() if flags & _VIEW else None
    require(view is None or (len(view) == 3 and prod(view) == prod(shape) and not flags & _IMAGE), f"it is read as {view}")
    start, ranges, current = len(layers), [], shape if view is None else view
    count = reader.integer("B")
    require(count > 0, "it has no layer")
    for _ in range(count):
        if flags & _RANGES:
            ranges.append(reader.number(positive=True))
        grid = _read_grid(reader) if flags & _GRIDS else None
        layer = read_layer(reader, version, current, layers, length)
        require(not (flags & _GRIDS and layer.residual), "a network with residual layers rounds its inputs")
        layers.append(layer if grid is None else _with_grid(layer, grid))
        require(needs_version(layer) <= version, f"a layer is of a kind that version {version} does not have")
        current = layer.output_shape(current)
    head, known = read_head(reader, current), tuple(ranges) if flags & _RANGES else None
    return Network(shape, bool(flags & _IMAGE), normalize, tuple(layers[start:]), head, known, parts, stack, view)


def _read_grid(reader: Reader) -> Grid | None:
    top = reader.integer("H")
    if top == 0:
        return None
    signed = reader.integer("B")
    require(signed < 2, "a grid is of an unknown kind")
    grid = Grid(reader.number(positive=True), -top if signed else 0, top)
    # One over a smaller number is infinite.
    require(grid.unit >= float(np.finfo(np.float32).tiny), "the unit of a grid is too small")
    return grid


def _with_grid(layer: Layer, grid: Grid) -> Layer:
    changed = layer.rectify or layer.residual or layer.lstm or layer.gain is not None
    require(not changed, "a layer of this kind does not round its inputs")
    return replace(layer, grid=grid)


def _read_normalize(reader: Reader, shape: Shape, *, limits: bool) -> Normalize:
    limit: float | Floats
    if limits:
        limit = reader.array(prod(shape), "f4", infinite=True).reshape(shape)
        require(bool((limit > 0).all()), "a limit is not positive")
    else:
        limit = reader.number(positive=True, infinite=True)
    mean, scale = (reader.array(prod(shape), "f4").reshape(shape) for _ in range(2))
    return Normalize(mean, scale, limit)


def _read_stack(reader: Reader, shape: Shape, *, image: bool) -> Stack:
    frames, normalized = reader.unpack("BB")
    axis = 0 if image else len(shape) - 1
    require(frames > 1 and shape[axis] % frames == 0, f"its observation is not a stack of {frames} frames")
    require(normalized < (1 if image else 3), "the normalization of its frames is of an unknown kind")
    if not normalized:
        return Stack(frames)
    frame = (*shape[:axis], shape[axis] // frames, *shape[axis + 1 :])
    return Stack(frames, _read_normalize(reader, frame, limits=normalized == 2))


def _read_parts(reader: Reader, shape: Shape, version: int, length: int, layers: list[Layer]) -> tuple[Part, ...]:
    count = reader.integer("B")
    require(count > 0, "it has no part")
    parts = []
    for _ in range(count):
        parts.append(_read_part(reader, version, length, layers))
        require(sum(part.width for part in parts) <= MAX_ELEMENTS, "its parts are too many numbers")
    keys = [part.key for part in parts]
    require(len(set(keys)) == count and ("" not in keys or count == 1), "its parts have the wrong keys")
    require(shape == (sum(part.width for part in parts),), "its parts do not add up")
    return tuple(parts)


def _read_part(reader: Reader, version: int, length: int, layers: list[Layer]) -> Part:
    try:
        key = reader.take(reader.integer("B")).decode()
    except UnicodeDecodeError:
        require(False, "a key is not text")
    kind = reader.integer("B")
    require(kind <= _ENCODED, "a part is of an unknown kind")
    if kind == _ENCODED:
        encoder = read_network(reader, version, length, layers)
        require(encoder.head.changes_nothing, "an encoder ends in an action")
        require(not encoder.lstms, "an encoder remembers")
        return Part(key, encoder.shape, encoder=encoder)
    shape = reader.shape()
    sizes = tuple(map(int, reader.array(prod(shape), "u4"))) if kind == _CLASSES else ()
    require(all(0 < size <= MAX_ELEMENTS for size in sizes), "a part has a wrong number of classes")
    return Part(key, shape, sizes)
