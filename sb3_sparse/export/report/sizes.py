"""
Bytes of a policy in several formats. Every size is that of a real file, but for the two that are named as a count and a bound.

All formats but the compact file hold the network as it was trained, with its dead neurons: the table compares how formats
store a sparse network, not the passes before them. Only the compact file includes the statistics of ``VecNormalize``.
"""

import io
from collections.abc import Sequence
from math import ceil

import numpy as np
import torch as th
from numpy.typing import NDArray

from sb3_sparse.runtime.network.records import Floats, Layer

DENSE, COMPACT_FILE = "dense float32", "compact file"


def sizes(layers: Sequence[Layer], compact: int, bits: int = 8) -> dict[str, int]:
    """
    :param layers: The layers of the network as it was trained.
    :param compact: Bytes of the compact file of the network that was exported.
    :param bits: Bits per weight, that the entropy bound rounds to as well.
    :return: Bytes by the name of the format
    """
    weights = [layer.dense() for layer in layers]
    biases = [layer.biases for layer in layers]
    total, rows = sum(weight.size for weight in weights), sum(bias.size for bias in biases)
    return {
        DENSE: 4 * (total + rows),
        "dense int8 (with float32 bias and scale per row)": total + 8 * rows,
        **({f"dense {bits}-bit (packed, likewise)": ceil(total * bits / 8) + 8 * rows} if bits < 8 else {}),
        "torch COO float32": _coo_bytes(weights, biases),
        "npz compressed float32": _npz_bytes(weights, biases),
        COMPACT_FILE: compact,
        "papers' value-only count": sum(int(np.count_nonzero(weight)) for weight in weights),
        "entropy bound": ceil(sum(entropy_bound(layer, bits) for layer in layers)),
    }


def entropy_bound(layer: Layer, bits: int = 8) -> float:
    """
    Bytes of a layer whose mask and values are each coded as well as their frequencies alone allow:

        n * H(d) / 8  +  d * n * H(values) / 8  +  4 * out        H(p) = -sum p * log2 p

    with n weights, a share of d that are not zero, and a bias of 16 bits and a scale of 16 bits (fp16) per row. By Shannon's
    source coding theorem no code does better for zeros that are scattered at random and values that do not depend on each
    other (Shannon 1948, theorem 9). A code that knows more, or that removes neurons first, may be shorter.

    :param layer: A layer; unless it is quantized, its rows are rounded plainly to ``scale = max|row| / (2**(bits - 1) - 1)``.
    :param bits: Bits per weight.
    :return: Bytes
    """
    integers = layer.weight if layer.quantized else _round_rows(layer.dense(), bits)
    values = integers[integers != 0]
    mask = _entropy(np.array([len(values), integers.size - len(values)]))
    content = _entropy(np.unique(values, return_counts=True)[1])
    return (integers.size * mask + len(values) * content) / 8 + 4 * layer.rows


def _round_rows(weight: Floats, bits: int) -> NDArray[np.int8]:
    matrix = weight.reshape(len(weight), -1)
    largest = np.abs(matrix).max(axis=1, keepdims=True)
    scale = np.where(largest > 0, largest, 1) / (2 ** (bits - 1) - 1)
    integers: NDArray[np.int8] = np.rint(matrix / scale).astype(np.int8)
    return integers


def _entropy(counts: NDArray[np.int64]) -> float:
    """Bits per symbol of the distribution that has these counts."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log2(shares)).sum())


def _coo_bytes(weights: list[Floats], biases: list[Floats]) -> int:
    """Bytes that ``torch.save`` writes for sparse matrices; kernels are flattened, which saves two of four indices."""
    tensors = {f"{i}.weight": th.from_numpy(weight.reshape(len(weight), -1)).to_sparse() for i, weight in enumerate(weights)}
    tensors.update({f"{i}.bias": th.from_numpy(bias) for i, bias in enumerate(biases)})
    file = io.BytesIO()
    th.save(tensors, file)
    return file.getbuffer().nbytes


def _npz_bytes(weights: list[Floats], biases: list[Floats]) -> int:
    arrays = {f"{i}.{name}": array for name, part in (("weight", weights), ("bias", biases)) for i, array in enumerate(part)}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getbuffer().nbytes
