"""
The families of kernels for vectors, and how each wants weights laid out.

Most of the kernels round hidden activations to 8 bits. Of finite observations all families compute the same, to the bit:
sums of integers are exact in any order, and the few steps in floats are the same fused operations in the same order.
"""

from dataclasses import dataclass

from sb3_sparse.runtime.backends.build import NATIVE


@dataclass(frozen=True)
class Family:
    """
    One family. What is compiled says which one it is.

    :param name: Its name in ``c/kernels.h``, and of the backend.
    :param needs: What the processor and the compiler must have, in words.
    :param macros: The macros that a compiler predefines where they have it.
    :param options: Options of the compiler.
    :param rows: Rows of a slice of a linear layer, one 32-bit lane each.
    :param taps: Weights of a lane, whose products one instruction adds up: four of 8 bits or two of 16.
    :param block: Inputs that one instruction picks from.
    :param dense: Inputs of a step of the dense kernel.
    :param registers: How many times 16 lanes a convolution sums up at a time.
    :param cache: Bytes of a convolution's inputs that stay in the first cache.
    :param floats: Inputs that a step of the kernel for sparse layers of floats picks from.
    :param permutes: Whether a first layer of floats picks its inputs too; else it goes through them all.
    """

    name: str
    needs: str
    macros: tuple[str, ...]
    options: tuple[str, ...]
    rows: int
    taps: int
    block: int
    dense: int
    registers: int
    cache: int
    floats: int
    permutes: bool


VBMI = Family(
    name="vbmi",
    needs="AVX-512 VBMI and VNNI",
    macros=("__AVX512F__", "__AVX512BW__", "__AVX512VL__", "__AVX512VBMI__", "__AVX512VNNI__"),
    options=NATIVE,
    rows=16,
    taps=4,
    block=64,
    dense=64,
    registers=8,
    cache=40 << 10,
    floats=16,
    permutes=True,
)
#: Products of 16 bits: the sum of two products of 8 bits does not always fit into the 16 bits that AVX2 has for it.
AVX2 = Family(
    name="avx2",
    needs="AVX2 and FMA",
    macros=("__AVX2__", "__FMA__"),
    options=("-mavx2", "-mfma"),
    rows=8,
    taps=2,
    block=16,
    dense=16,
    registers=6,
    cache=32 << 10,
    floats=8,
    permutes=False,
)
NEON = Family(
    name="neon",
    needs="NEON of 64-bit ARM",
    macros=("__AARCH64EL__", "__ARM_NEON"),
    options=NATIVE,
    rows=4,
    taps=4,
    block=64,
    dense=16,
    registers=6,
    cache=32 << 10,
    # No instruction picks floats: they are loaded one by one, from anywhere.
    floats=1 << 16,
    permutes=False,
)
#: By name, the fastest first.
FAMILIES = {family.name: family for family in (VBMI, AVX2, NEON)}
