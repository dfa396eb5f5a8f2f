"""
The structs and enums of ``c/interface.h`` in Python.

A program is an array of :class:`Instruction`. The library keeps nothing: who makes a struct keeps the arrays alive whose
addresses are in it. Addresses of floats that operands and layers name are multiples of 64 bytes, and so are the panels.
"""

import ctypes
from ctypes import c_double, c_int32, c_int64, c_void_p
from enum import IntEnum, IntFlag

#: Samples of a panel, and panels of a block.
LANES, BLOCK = 32, 4
#: Version of the interface. The library has the same.
INTERFACE = 7


class Kind(IntEnum):
    """How a layer stores its weights. HALF is dense, with products of bfloat16."""

    DENSE, SPARSE, HALF = range(3)


class ElementType(IntEnum):
    """Types of a source's elements. Booleans are read as int8."""

    FLOAT32, FLOAT64, UINT8, INT64, INT32, INT8 = range(6)


class Flag(IntFlag):
    """Bits of an instruction's flags. Their names say for which instruction a bit is."""

    #: LINEAR: the output's ReLU.
    RELU_OUTPUT = 1
    #: LINEAR: all lanes of a panel hold the same sample.
    SAME_LANES = 2
    #: LINEAR_INPUT_GRADIENT: zero where ``c`` is not positive.
    MASK_BY_INPUT = 1
    #: LINEAR_WEIGHT_GRADIENT, SUM_BATCH, SQUARE_SUM: add to what the result holds.
    ADD = 1


class Op(IntEnum):
    """
    Instructions. Those before LINEAR_WEIGHT_GRADIENT run for each panel, on ``n`` features where nothing else is said, it
    itself for each block, and those behind it once. In formulas ``dst``, ``a``, ``b`` and ``c`` are operands and ``x`` the
    constants.
    """

    #: Gathers ``n`` columns of the :class:`Source` in ``data``; lanes behind the last sample repeat it.
    LOAD = 1
    #: ``dst = W a + bias``, with the flags for it.
    LINEAR = 2
    #: ``dst[j] = sum_i W[i, first + j] a[i]`` by the layer's transposed values, with the flags for it.
    LINEAR_INPUT_GRADIENT = 3
    COPY = 4
    EXP = 5
    LOG = 6
    TANH = 7
    RELU = 8
    SQUARE = 9
    ABS = 10
    SIGN = 11
    SIGMOID = 12
    ADD = 13
    SUB = 14
    MUL = 15
    DIV = 16
    MIN = 17
    MAX = 18
    #: 1 or 0.
    GREATER_EQUAL = 19
    LESS = 20
    #: ``a != 0 ? b : c``
    SELECT = 21
    #: ``a * x[0] + x[1]``
    AFFINE = 22
    #: ``min(max(a, x[0]), x[1])``
    CLAMP = 23
    #: ``c > 0 ? a : 0``
    RELU_GRADIENT = 24
    #: ``a * (1 - c * c)``
    TANH_GRADIENT = 25
    #: ``dst[j] = sum_i a[i * k + j]``, i < n, j < k.
    SUM = 26
    #: ``dst[0] = max_i a[i]``
    REDUCE_MAX = 27
    #: ``dst[0]`` = index of the first maximum.
    ARGMAX = 28
    #: ``dst[i] = a[i * k + b[0]]``; the index is cut to [0, k).
    TAKE = 29
    #: ``dst[i * k + j] = j == b[0] ? a[i] : 0``
    PUT = 30
    #: Ascending, n up to 1024.
    SORT = 31
    #: Quantiles ``a[n]`` and targets ``b[k]``: the loss to ``c[0]``, its gradient to ``dst[n]``, sums over the pairs.
    QUANTILE_HUBER = 32
    #: ``dst[f] = data[f]`` in all lanes.
    ROWS = 33
    ZERO = 34
    #: The layer's gradients from those of its output, ``a``, and its input, ``b``. ``data``: scratch of
    #: ``32 * BLOCK * 32`` floats for a dense layer.
    LINEAR_WEIGHT_GRADIENT = 35
    #: ``data[f] = sum of a[f]`` over the batch.
    SUM_BATCH = 36
    #: torch's Adam on ``dst`` by the moments ``a``, ``b`` and the gradient ``c``; n floats, a multiple of 16. ``data``: eight
    #: doubles, step, lr, beta1, beta2, eps, weight_decay, whether decoupled, none; it counts the step.
    ADAM = 37
    #: ``dst = dst * (1 - x[0]) + a * x[0]``, n floats.
    POLYAK = 38
    #: The layer's transposed values from its values.
    REFRESH = 39
    #: ``data = sum of a^2``, n floats, a double.
    SQUARE_SUM = 40
    #: ``dst *= min(1, x[0] / (sqrt(data) + 1e-6))``, n floats, a double.
    CLIP = 41
    #: ``dst *= a``, n floats, a multiple of 16.
    MASK = 42
    #: ``dst[i] = index[i] < 0 ? 0 : a[index[i]]``, n floats; ``data`` is the index, or 0 for a plain copy.
    GATHER = 43
    #: ``dst[index[i]] = a[i]`` where the index is not negative.
    SCATTER = 44
    #: ``dst[0]`` += how many of ``a[index[i]]`` are not ``b[i]``.
    DIFFER = 45
    #: ``dst[i] = dst[i] * (1 - x[0]) + (index[i] < 0 ? 0 : a[index[i]]) * x[0]``, n floats; ``data`` is the index.
    POLYAK_INDEXED = 46
    #: Zeroes the smallest of the n floats ``dst`` until as many are left as there are nonzero ones among the k floats ``a``;
    #: of equal ones that with the lower index stays. ``data`` has the indices, ``b`` 16 + 2 n floats of memory between two
    #: runs, zeros at first.
    KEEP_LARGEST = 47
    #: ``dst = round(a / scale) * scale``, ``scale = max|a| / k``, n floats, a multiple of 16.
    FAKE_QUANTIZE = 48
    #: ``dst[0]`` += how many of the n floats ``a`` are not zero, without those that the k indices in ``data`` name.
    OUTSIDE = 49
    #: torch's RMSprop, not centered, without momentum, on ``dst`` by the mean square ``a`` and the gradient ``b``; n floats, a
    #: multiple of 16. ``data``: eight doubles, step, lr, alpha, none, eps, weight_decay, none, none; it counts the step.
    RMSPROP = 50
    #: ``dst = round(clip(a / b, -k, k)) * b``, n floats, a multiple of 16.
    TO_STEPS = 51


#: Instructions that run for each panel, or for each block of panels.
PANEL = frozenset(op for op in Op if op <= Op.LINEAR_WEIGHT_GRADIENT)


class Operand(ctypes.Structure):
    """
    Feature f of panel p begins at ``base + (p & mask) * panel + f * feature``, in floats. A feature of 0 is one row for all
    features. The mask is -1, or ``BLOCK - 1`` for the memory of one block, ``2 * BLOCK - 1`` for that of two threads.
    """

    _fields_ = [("base", c_void_p), ("panel", c_int64), ("feature", c_int64), ("mask", c_int64)]


class Source(ctypes.Structure):
    """Sample s is row rows[s], or s without rows. A row begins at data + row * stride bytes."""

    _fields_ = [("data", c_void_p), ("rows", c_void_p), ("count", c_int64), ("stride", c_int64), ("type", c_int64)]


class Layer(ctypes.Structure):
    """A linear layer; ``c/interface.h`` says how it is stored."""

    _fields_ = [
        *((name, c_int32) for name in ("kind", "outputs", "inputs", "first")),
        *((name, c_void_p) for name in ("start", "row", "offset", "t_start", "t_row", "t_offset", "t_index")),
        *((name, c_void_p) for name in ("values", "bias", "gradient", "bias_gradient", "transposed", "pairs")),
        ("second", c_int64),
    ]


class Instruction(ctypes.Structure):
    """One instruction. Members that it does not use may hold anything."""

    _fields_ = [
        *((name, c_int32) for name in ("op", "flags", "n", "k")),
        *((name, Operand) for name in ("dst", "a", "b", "c")),
        ("layer", c_void_p),
        ("data", c_void_p),
        ("x", c_double * 4),
    ]
