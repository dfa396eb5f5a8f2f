"""
Deflate with its blocks where the numbers change. Each block has a code of its own, and indices, values, scales and biases are
distributed so differently that one code for all of them would make files up to a sixth larger. Any inflate reads the result.
"""

import zlib
from collections.abc import Sequence

#: Shorter parts share a block with the next one.
_SHORT = 16
#: Most parts in a block, and most bytes of several: from there on the code of a block costs too little to share it.
_PARTS, _LONG = 4, 1 << 16


def deflate(parts: Sequence[bytes]) -> bytes:
    """
    :param parts: Parts of a payload, in order; each holds numbers of one kind.
    :return: All of them, deflated (RFC 1951)
    """
    compressor = _compressor()
    blocks = [compressor.compress(block) + compressor.flush(zlib.Z_BLOCK) for block in _blocks(_joined(parts))]
    return b"".join([*blocks, compressor.flush()])


def deflated_size(part: bytes) -> int:
    """
    :param part: Numbers of one kind.
    :return: How many bytes they take in a block of their own
    """
    compressor = _compressor()
    return len(compressor.compress(part)) + len(compressor.flush())


def _compressor() -> "zlib._Compress":
    # Filtered: matches of a few bytes are an accident among weights, and codes without them are shorter.
    return zlib.compressobj(6, zlib.DEFLATED, -15, 9, zlib.Z_FILTERED)


def _joined(parts: Sequence[bytes]) -> list[bytes]:
    joined: list[bytes] = []
    for part in parts:
        if joined and len(joined[-1]) < _SHORT:
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def _blocks(parts: Sequence[bytes]) -> list[bytes]:
    """The parts in blocks of the least size together, by dynamic programming."""
    best: list[tuple[int, list[bytes]]] = [(0, [])]
    for end in range(1, len(parts) + 1):
        options = []
        for start in range(max(0, end - _PARTS), end):
            block = b"".join(parts[start:end])
            if start == end - 1 or len(block) <= _LONG:
                options.append((best[start][0] + deflated_size(block), [*best[start][1], block]))
        best.append(min(options, key=lambda option: option[0]))
    return best[-1][1]
