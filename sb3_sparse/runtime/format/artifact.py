"""
The compact file: :class:`Network` to bytes and back. ``docs/guide/format.md`` describes it byte by byte.

Reading trusts nothing. The checksum is checked first, then every length against the bytes that are left before anything is
allocated, and every number against its range. Any damage raises a :class:`ValueError`. Nothing is unpickled or executed.
"""

import struct
import zlib

from sb3_sparse.runtime.format.bytestream import Reader, Writer, require
from sb3_sparse.runtime.format.deflate import deflate
from sb3_sparse.runtime.format.head_bytes import HEADS
from sb3_sparse.runtime.format.layer_bytes import ACTIVATIONS
from sb3_sparse.runtime.format.limits import check_size
from sb3_sparse.runtime.format.network_bytes import oldest_version, read_network, write_network
from sb3_sparse.runtime.format.weight_bytes import LAYOUT_VERSION
from sb3_sparse.runtime.network.capabilities import Capabilities, require_known
from sb3_sparse.runtime.network.records import (
    Activation,
    Fixed,
    Grid,
    Head,
    Layer,
    Minifloats,
    Network,
    Norm,
    Normalize,
    Part,
    Pool,
    Stack,
)

MAGIC = b"SB3S"
#: The newest version. A file gets the oldest version that can hold its network, or the one with layouts if it is smaller.
VERSION = 6
#: The parts of a network that a file can hold.
COMPACT = Capabilities(
    "the compact file",
    instead="use to_c or to_onnx, or export the policy without it",
    records={
        Network: "shape image normalize layers head ranges parts stack view",
        Stack: "frames normalize",
        Part: "key shape sizes encoder",
        Normalize: "mean scale limit",
        Layer: "weight bias activation scale gain stride padding rectify residual pool lstm norm grid",
        Activation: "name low high slopes",
        Norm: "epsilon scale shift",
        Pool: "kernel stride padding mean",
        Grid: "unit low top",
        Minifloats: "codes unit",
        Fixed: "codes unit",
        Head: "kind shape low high groups",
    },
    activations=ACTIVATIONS,
    heads=HEADS,
)
#: Magic, version, flags, zero, length of the payload. A checksum of these 12 bytes and of the payload follows.
_HEADER = struct.Struct("<4sBBHI")
_DEFLATED = 1
#: A payload that would deflate further than this is stored as it is: a short file never expands into a huge payload.
_MAX_RATIO = 32


def encode(network: Network) -> bytes:
    """
    :param network: The network.
    :return: The bytes of its file
    :raises ValueError: if it is larger than the format allows, or the format cannot hold a part of it
    """
    require_known(network, COMPACT)
    oldest = oldest_version(network)
    data = min((encode_as(network, version) for version in sorted({oldest, max(oldest, LAYOUT_VERSION)})), key=len)
    check_size(network, len(data))
    return data


def encode_as(network: Network, version: int) -> bytes:
    """
    :param network: The network.
    :param version: A version that can hold it.
    :return: The bytes of its file in that version
    """
    writer = Writer()
    write_network(writer, network, version)
    payload, packed = b"".join(writer.parts), deflate(writer.parts)
    deflated = len(packed) < len(payload) <= _MAX_RATIO * len(packed)
    header = _HEADER.pack(MAGIC, version, _DEFLATED if deflated else 0, 0, len(payload))
    body = packed if deflated else payload
    return header + struct.pack("<I", zlib.crc32(body, zlib.crc32(header))) + body


def decode(data: bytes) -> Network:
    """
    :param data: The bytes of a file.
    :return: The network
    :raises ValueError: if they are damaged, of another version, or not a compact file
    """
    try:
        return _decode(data)
    except (struct.error, zlib.error) as error:
        raise ValueError(f"this compressed policy is damaged ({error}); copy or export it again") from error


def _decode(data: bytes) -> Network:
    data = bytes(data)
    if data[:4] != MAGIC:
        raise ValueError("this is not a compressed policy of sb3_sparse: it does not begin with 'SB3S'")
    _, version, flags, zero, length = _HEADER.unpack_from(data)
    if not 1 <= version <= VERSION:
        raise ValueError(
            f"this compressed policy has format version {version}, not 1 to {VERSION}: update sb3_sparse to read it"
        )
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
    network = read_network(reader, version, len(data))
    reader.end()
    check_size(network, len(data))
    return network
