"""Random networks of records, and files that were tampered with: what the tests of the runtime and its format share."""

import struct
import zlib
from dataclasses import replace

import numpy as np

from sb3_sparse.runtime import BACKENDS, Policy
from sb3_sparse.runtime.backends.families import FAMILIES
from sb3_sparse.runtime.backends.int8 import in_bytes
from sb3_sparse.runtime.format.artifact import encode_as
from sb3_sparse.runtime.format.network_bytes import oldest_version
from sb3_sparse.runtime.network.assemble import assemble
from sb3_sparse.runtime.network.records import (
    HEADS,
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
from sb3_sparse.runtime.network.reference import apply_layer, layer_inputs

ACTIVATIONS = (
    Activation(),
    Activation("relu"),
    Activation("tanh"),
    Activation("clip", -0.5, 0.8),
    Activation("leaky_relu", 0.1),
    Activation("elu", 1.3),
    Activation("sigmoid"),
    Activation("silu"),
    Activation("gelu"),
    Activation("gelu_tanh"),
    Activation("mish"),
    Activation("softplus"),
    Activation("softsign"),
    Activation("hardswish"),
)


def draw_minifloats(rng, count, size):
    """``count`` numbers within a factor of 30, of about the given size."""
    codes = rng.integers(11 << 4, 256, count).astype(np.uint8)
    return Minifloats(codes, float(np.float32(size / (24 << 13))))


def draw_layer(rng, shape, outputs, activation, *, convolution=False, quantized=False, density=0.3, first=False):
    """A layer for inputs of this shape; some of its rows and columns are empty."""
    stride, padding = (1, 1), (0, 0)
    dimensions = (outputs, int(np.prod(shape)))
    if convolution:
        padding = tuple(map(int, rng.integers(0, 3, 2)))
        limits = [min(5, size + 2 * pad) for size, pad in zip(shape[1:], padding, strict=True)]
        kernel = [int(rng.integers(1, limit + 1)) for limit in limits]
        stride = tuple(map(int, rng.integers(1, 4, 2)))
        dimensions = (outputs, shape[0], *kernel)
    exists = rng.random(dimensions) < density
    exists[rng.random(outputs) < 0.1] = False
    exists[:, rng.random(dimensions[1]) < 0.1] = False
    fan = max(1.0, density * np.prod(dimensions[1:]))
    if not quantized:
        weight = np.where(exists, rng.normal(size=dimensions) / np.sqrt(fan), 0).astype(np.float32)
        bias = (rng.normal(size=outputs) * 0.5).astype(np.float32)
        return Layer(weight, bias, activation, stride=stride, padding=padding)
    weight = (rng.integers(-127, 128, dimensions) * exists).astype(np.int8)
    gain = draw_minifloats(rng, dimensions[1], 1.0) if first and not convolution else None
    scale = draw_minifloats(rng, outputs, 0.01 / np.sqrt(fan))
    bias = Fixed(rng.integers(-32767, 32768, outputs).astype(np.int16), float(np.float32(1 / 32767)))
    return Layer(weight, bias, activation, scale.values if rng.random() < 0.3 else scale, gain, stride, padding)


def draw_head(rng, kind=None):
    kind = kind or str(rng.choice(HEADS))
    if kind == "argmax":
        groups = tuple(map(int, rng.integers(1, 6, rng.integers(1, 4))))
        return Head(kind, () if len(groups) == 1 and rng.random() < 0.5 else (len(groups),), groups=groups)
    shape = tuple(map(int, rng.integers(1, 4, rng.integers(1, 3))))
    if kind == "positive":
        return Head(kind, shape)
    size = int(np.prod(shape))
    middle, half = rng.normal(size=size), rng.random(size) + 0.1
    low, high = (middle - half).astype(np.float32), (middle + half).astype(np.float32)
    if rng.random() < 0.5:
        low[:], high[:] = -1.5, 2.5
    elif kind == "clip":
        low[0], high[-1] = -np.inf, np.inf
    return Head(kind, shape, low, high)


def draw_network(rng, *, image=None, quantized=None, head=None, activation=None, width=40, density=None, shape=None):
    """
    :param rng: Where the numbers come from.
    :param image: Whether the observation has three dimensions and convolutions come first.
    :param quantized: Whether the layers are int8; by default each as it comes.
    :param head: Kind of the head.
    :param activation: Activation of the hidden layers; by default each another one.
    :param width: Most units of a layer.
    :param density: Share of weights that exist.
    :param shape: Shape of the observation.
    :return: A network of one to four layers
    """
    image = rng.random() < 0.3 if image is None else image
    drawn = tuple(map(int, rng.integers(3, 12, 3))) if image else tuple(map(int, rng.integers(1, 12, rng.integers(1, 3))))
    shape = shape or drawn
    head = draw_head(rng, head)
    hidden = int(rng.integers(0, 4)) + image
    layers, current = [], shape
    for index in range(hidden + 1):
        last = index == hidden
        layer = draw_layer(
            rng,
            current,
            head.inputs if last else int(rng.integers(1, 8 if image else width)),
            Activation() if last else activation or ACTIVATIONS[rng.integers(len(ACTIVATIONS))],
            convolution=image and not last and index < 2,
            quantized=bool(rng.random() < 0.5) if quantized is None else quantized,
            density=rng.choice([0.05, 0.3, 1.0]) if density is None else density,
            first=index == 0,
        )
        layers.append(layer)
        current = layer.output_shape(current)
    normalize = None
    if rng.random() < 0.5:
        limit = float(rng.choice([1.5, 10.0, np.inf]))
        normalize = Normalize(*(rng.random((2, *shape)).astype(np.float32) + np.float32(0.5)), limit)
    ranges = tuple(map(float, rng.random(len(layers)).astype(np.float32) + 1)) if rng.random() < 0.5 else None
    return Network(shape, bool(image), normalize, tuple(layers), head, ranges)


def draw_rounded_network(rng, **kwargs):
    """A network of integers without gains, all or most of whose layers round their inputs to a few bits."""
    network = draw_network(rng, quantized=True, **kwargs)
    layers = tuple(replace(layer, gain=None) for layer in network.layers)
    x = rng.normal(size=(16, *network.shape)).astype(np.float32)
    return with_grids(replace(network, layers=layers), x, int(rng.integers(2, 9)), first=bool(rng.random() < 0.7))


def with_grids(network, x, bits=8, *, first=True):
    """
    :param network: A network without gains.
    :param x: Observations, ``[n, *shape]``.
    :param bits: Bits of the inputs of hidden layers.
    :param first: Whether observations are rounded as well, to 16 bits.
    :return: The network with inputs that are rounded as in training
    """
    layers = []
    for index, (layer, inputs) in enumerate(zip(network.layers, layer_inputs(network, x), strict=False)):
        signed = bool((inputs < 0).any()) or index == 0
        top = 32767 if index == 0 else 2 ** (bits - 1) - 1 if signed else 2**bits - 1
        unit = float(np.float32(max(1.5 * np.abs(inputs).max(), 1e-3) / top))
        layers.append(replace(layer, grid=Grid(unit, -top if signed else 0, top) if index or first else None))
    return replace(network, layers=tuple(layers))


def draw_parted_network(rng, **kwargs):
    """
    A network whose observation is a dict of one to five arrays, or classes alone.

    :param rng: Where the numbers come from.
    :param kwargs: As of :func:`draw_network`; ``quantized`` holds for encoders as well.
    :return: The network
    """
    whole = rng.random() < 0.2
    keys = [""] if whole else rng.permutation(["goal", "a b", "ümlaut", "class", "9"])[: rng.integers(1, 6)].tolist()
    parts = tuple(draw_part(rng, key, kwargs.get("quantized")) for key in keys)
    size = sum(part.width for part in parts)
    network = draw_network(rng, image=False, shape=(size,), **kwargs)
    if network.normalize is not None and rng.random() < 0.5:
        limits = rng.choice([1.5, 10.0, np.inf], size).astype(np.float32)
        network = replace(network, normalize=replace(network.normalize, limit=limits))
    return replace(network, parts=parts)


def draw_stacked_network(rng, **kwargs):
    """
    A network that stacks two to four frames of an image or another array, which may be normalized one by one.

    :param rng: Where the numbers come from.
    :param kwargs: As of :func:`draw_network`.
    :return: The network
    """
    frames, image = int(rng.integers(2, 5)), bool(rng.random() < 0.3)
    frame = tuple(map(int, rng.integers(1, 5, 3 if image else rng.integers(1, 4))))
    shape = (frames * frame[0], *frame[1:]) if image else (*frame[:-1], frames * frame[-1])
    network, normalize = draw_network(rng, image=image, shape=shape, **kwargs), None
    if not image and rng.random() < 0.5:
        limit = 1.5 if rng.random() < 0.5 else rng.choice([1.5, np.inf], frame).astype(np.float32)
        normalize = Normalize(*(rng.random((2, *frame)).astype(np.float32) + np.float32(0.5)), limit)
    return replace(network, stack=Stack(frames, normalize))


def draw_part(rng, key, quantized=None):
    kind = rng.integers(3) if key else 1
    shape = tuple(map(int, rng.integers(1, 4, rng.integers(0, 3))))
    if kind == 0:
        return Part(key, shape)
    if kind == 1:
        return Part(key, shape, tuple(map(int, rng.integers(1, 7, int(np.prod(shape))))))
    encoder = draw_network(rng, quantized=quantized, head="clip")
    free = np.full(encoder.head.inputs, np.inf, np.float32)
    return Part(key, encoder.shape, encoder=replace(encoder, head=Head("clip", free.shape, -free, free)))


def draw_arrays(rng, network, count):
    """Observations of a network with parts, by key."""
    arrays = {}
    for part in network.parts:
        if part.sizes:
            arrays[part.key] = rng.integers(0, part.sizes, (count, len(part.sizes))).reshape(count, *part.shape)
        elif part.encoder is not None and part.encoder.image:
            arrays[part.key] = rng.integers(0, 256, (count, *part.shape), dtype=np.uint8)
        else:
            arrays[part.key] = rng.normal(size=(count, *part.shape)).astype(np.float32)
    return arrays


def draw_pool(rng, shape):
    """A pool for images of this shape."""
    kernel = [int(rng.integers(1, min(4, size + 1))) for size in shape[1:]]
    padding = [int(rng.integers(0, size // 2 + 1)) for size in kernel]
    return Pool(tuple(kernel), tuple(map(int, rng.integers(1, 4, 2))), tuple(padding))


def same_size(layer):
    """A convolution whose outputs have the height and width of its inputs."""
    kernel = [2 * pad + 1 for pad in layer.padding]
    return replace(layer, weight=np.resize(layer.weight, (*layer.weight.shape[:2], *kernel)), stride=(1, 1))


def draw_residual_network(rng, *, quantized=None, head=None, density=None):
    """
    One or two stacks, each a convolution with up to two residual blocks, and pools here and there; odder than those that are
    trained.

    :param rng: Where the numbers come from.
    :param quantized: Whether the layers are int8; by default each as it comes.
    :param head: Kind of the head.
    :param density: Share of weights that exist.
    :return: A network of two to eleven layers
    """
    shape, head = tuple(map(int, rng.integers(3, 12, 3))), draw_head(rng, head)
    layers, current = [], shape

    def draw(inputs, outputs, *, convolution=True):
        return draw_layer(
            rng,
            inputs,
            outputs,
            ACTIVATIONS[rng.integers(len(ACTIVATIONS))],
            convolution=convolution,
            quantized=bool(rng.random() < 0.5) if quantized is None else quantized,
            density=rng.choice([0.05, 0.3, 1.0]) if density is None else density,
        )

    def add(layer):
        nonlocal current
        pool = draw_pool(rng, layer.sum_shape(current)) if rng.random() < 0.4 else None
        layers.append(replace(layer, pool=pool))
        current = layers[-1].output_shape(current)

    for _ in range(rng.integers(1, 3)):
        add(draw(current, int(rng.integers(1, 8))))
        for _ in range(rng.integers(0, 3)):
            inner = replace(same_size(draw(current, int(rng.integers(1, 8)))), rectify=bool(rng.random() < 0.7))
            layers.append(inner)
            channels, current = current[0], (inner.outputs, *current[1:])
            add(replace(same_size(draw(current, channels)), residual=True))
    if rng.random() < 0.5:
        linear = draw(current, int(rng.integers(1, 20)), convolution=False)
        layers.append(linear)
        current = (linear.outputs,)
    layers.append(replace(draw(current, head.inputs, convolution=False), activation=Activation()))
    return Network(shape, True, None, tuple(layers), head)


def draw_recurrent_network(rng, *, quantized=None, head=None, density=None):
    """
    One or two LSTM layers among others, behind a convolution if the observation is an image.

    :param rng: Where the numbers come from.
    :param quantized: Whether the layers are int8; by default each as it comes.
    :param head: Kind of the head.
    :param density: Share of weights that exist.
    :return: A network of two to five layers
    """
    shape, head = tuple(map(int, rng.integers(1, 8, rng.choice([1, 2, 3])))), draw_head(rng, head)
    layers, current = [], shape

    def draw(outputs, *, kind, activation=None):
        own = outputs if kind == "lstm" else 0
        layer = draw_layer(
            rng,
            (int(np.prod(current)) + own,) if own else current,
            4 * own or outputs,
            activation or (Activation() if own else ACTIVATIONS[rng.integers(len(ACTIVATIONS))]),
            convolution=kind == "convolution",
            quantized=bool(rng.random() < 0.5) if quantized is None else quantized,
            density=rng.choice([0.05, 0.3, 1.0]) if density is None else density,
            first=not layers,
        )
        layers.append(replace(layer, lstm=bool(own)))
        return layers[-1].output_shape(current)

    kinds = ["convolution"] * (len(shape) == 3) + ["linear"] * bool(rng.random() < 0.3) + ["lstm"] * int(rng.integers(1, 3))
    for kind in [*kinds, *["linear"] * int(rng.integers(0, 2))]:
        current = draw(int(rng.integers(1, 24)), kind=kind)
    draw(head.inputs, kind="linear", activation=Activation())
    normalize = None
    if rng.random() < 0.5:
        normalize = Normalize(*(rng.random((2, *shape)).astype(np.float32) + np.float32(0.5)), 1.5)
    return Network(shape, len(shape) == 3, normalize, tuple(layers), head)


def narrowed(rng, network):
    """The network with quantized weights of 2 to 8 bits, each layer as it comes."""

    def narrow(layer):
        return np.sign(layer.weight) * (abs(layer.weight) >> int(rng.integers(0, 7)))

    layers = [replace(layer, weight=narrow(layer)) if layer.quantized else layer for layer in network.layers]
    parts = (replace(part, encoder=part.encoder and narrowed(rng, part.encoder)) for part in network.parts)
    return replace(network, layers=tuple(layers), parts=tuple(parts))


def draw_signal_network(rng, *, quantized=None, head=None, density=None):
    """
    Convolutions over the time of a signal, and linear layers; with layer norms, average pools and a slope for each channel
    here and there.

    :param rng: Where the numbers come from.
    :param quantized: Whether the layers are int8; by default each as it comes.
    :param head: Kind of the head.
    :param density: Share of weights that exist.
    :return: A network of two to five layers
    """
    shape, head = tuple(map(int, rng.integers(3, 12, rng.choice([1, 2])))), draw_head(rng, head)
    view = (*shape[:-1], *[1] * (3 - len(shape)), shape[-1])
    layers, current = [], view

    def add(outputs, *, convolution, activation=None):
        nonlocal current
        activation = activation or ACTIVATIONS[rng.integers(len(ACTIVATIONS))]
        if rng.random() < 0.2:
            activation = Activation("prelu", slopes=rng.uniform(-0.5, 1.2, outputs).astype(np.float32))
        quantize = bool(rng.random() < 0.5) if quantized is None else quantized
        thin = rng.choice([0.05, 0.3, 1.0]) if density is None else density
        layer = draw_layer(rng, current, outputs, activation, convolution=convolution, quantized=quantize, density=thin)
        sums = layer.sum_shape(current)
        if rng.random() < 0.5:
            scale, shift = rng.normal(size=(2, *sums)).astype(np.float32)
            layer = replace(layer, norm=Norm(float(np.float32(10.0 ** -rng.integers(1, 6))), scale, shift))
        if convolution and rng.random() < 0.6:
            layer = replace(layer, pool=draw_pool(rng, sums)._replace(mean=bool(rng.random() < 0.7)))
        layers.append(layer)
        current = layer.output_shape(current)

    for _ in range(rng.integers(1, 3)):
        add(int(rng.integers(1, 8)), convolution=True)
    for _ in range(rng.integers(0, 2)):
        add(int(rng.integers(1, 20)), convolution=False)
    add(head.inputs, convolution=False, activation=Activation())
    normalize = None
    if rng.random() < 0.5:
        normalize = Normalize(*(rng.random((2, *shape)).astype(np.float32) + np.float32(0.5)), 1.5)
    return Network(shape, False, normalize, tuple(layers), head, view=view)


def draw_observations(rng, network, count):
    return rng.normal(size=(count, *network.frame_shape)).astype(np.float32)


def has(backend):
    """Whether this machine can have a backend."""
    try:
        Policy(draw_network(np.random.default_rng(0)), backend)
    except RuntimeError:
        return False
    return True


AVAILABLE = [name for name in BACKENDS if has(name)]
#: Those that round hidden activations, each by its own name, and the others.
FAMILY_NAMES = [name for name in AVAILABLE if name in FAMILIES]
EXACT = [name for name in AVAILABLE if name not in ("int8", *FAMILIES)]


def rounding(network, x):
    """
    How far two orders of summation may lie apart: a sum of ``n`` products that comes to ``s`` is off by about
    ``2**-24 * sqrt(n) * s``, and the errors of the layers add up as independent ones do.
    """
    if network.parts:
        x = assemble(network, x)
    # Images may come with their channels last.
    x = x if x.shape[1:] == network.shape else np.moveaxis(x, -1, 1)
    sums = zip(network.layers, layer_inputs(network, x)[1:], strict=True)
    return 2.0**-24 * np.sqrt(sum(np.prod(layer.weight.shape[1:]) * np.square(outputs).max() for layer, outputs in sums))


def expect_close(actions, expected, network, x, slack=0.0):
    """Equal to float rounding, or within the slack; discrete actions but where the best values are that close."""
    __tracebackhide__ = True
    assert actions.dtype == expected.dtype and actions.shape == expected.shape
    if actions.dtype == np.int64 or network.head.kind == "positive":
        differ = [index for index in range(len(x)) if not np.array_equal(actions[index], expected[index])]
        for row in layer_inputs(network, x[differ])[-1] if differ else ():
            parts = np.split(row, np.cumsum(network.head.groups)[:-1]) if network.head.groups else [np.append(row, 0)]
            assert any(np.abs(np.subtract.outer(part, part))[~np.eye(len(part), dtype=bool)].min() < 1e-5 for part in parts)
    else:
        size = 1.0
        if network.head.kind == "unscale":
            size = max(1.0, float((network.head.high - network.head.low).max()) / 2)
        np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=max(1e-5, slack) * size)


def quantized_inputs(x):
    """Inputs as the kernels round them: 8 bits between the smallest and largest number of each observation, or 0."""
    axes = tuple(range(1, x.ndim))
    lowest = np.minimum(x.min(axis=axes, keepdims=True), 0)
    unit = (np.maximum(x.max(axis=axes, keepdims=True), 0) - lowest) * np.float32(1 / 255)
    steps = np.rint((x - lowest) * np.where(unit > 0, 1 / np.where(unit > 0, unit, 1), 0).astype(np.float32))
    return steps * unit + lowest, unit


def int8_actions(network, x):
    """The layers with inputs in 8 bits, and by how much rounding may move each output of the last one."""
    slack = np.zeros((len(x), 1))
    x = before = x if network.normalize is None else network.normalize(x)
    for index, layer in enumerate(network.layers):
        assert not (layer.residual and slack.any()), "what is added has no slack of its own"
        weight = np.abs(layer.dense().reshape(layer.outputs, -1))
        if in_bytes(network, index):
            x, unit = quantized_inputs(x)
            # A number in the middle between two steps may go either way, more so if it is a little off already.
            slack = slack + unit.reshape(-1, 1)
        before, x = x, apply_layer(layer, x.astype(np.float32), before)
        # No activation is steeper than 1.5, and a convolution sums no more than its weights.
        slack = slack * weight.sum(axis=1).max() * 1.5
    return x, slack


HEADER = struct.Struct("<4sBBHI")


def unpack(data):
    """The payload of a file."""
    flags, body = data[5], data[16:]
    return zlib.decompress(body, -15) if flags else body


def pack(payload, *, deflate=True, length=None, version=1):
    """A file with this payload and a right checksum, right or not otherwise."""
    body = payload
    if deflate:
        compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
        body = compressor.compress(payload) + compressor.flush()
    return seal(HEADER.pack(b"SB3S", version, int(deflate), 0, len(payload) if length is None else length) + bytes(4) + body)


def seal(data):
    """The same bytes with a right checksum."""
    return data[:12] + struct.pack("<I", zlib.crc32(data[16:], zlib.crc32(data[:12]))) + data[16:]


def mutate(rng, data):
    """One to three changes: bits, bytes, fields of two or four bytes, cuts, insertions and repetitions."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(data))) if data else 0
        end = at + int(rng.integers(1, 9))
        change = rng.integers(7)
        if change == 0 and data:
            data[at] ^= 1 << int(rng.integers(8))
        elif change == 1 and data:
            data[at] = int(rng.integers(256))
        elif change == 2:
            size = int(rng.choice([1, 2, 4]))
            number = int(rng.choice([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800000, 0x10000]))
            data[at : at + size] = (number & (256**size - 1)).to_bytes(size, "little")
        elif change == 3:
            del data[at : end if rng.random() < 0.7 else len(data)]
        elif change == 4:
            data[at:at] = rng.integers(0, 256, end - at).astype(np.uint8).tobytes()
        elif change == 5:
            data[at:at] = data[at:end] * int(rng.integers(1, 5))
        elif data:
            data[at] = (data[at] + int(rng.choice([-1, 1]))) % 256
    return bytes(data)


def tampered(seed, count):
    """Files that somebody has tampered with: a quarter has a wrong checksum, half was changed inside of what is compressed."""
    rng = np.random.default_rng(seed)
    kinds = (draw_network, draw_residual_network, draw_recurrent_network, draw_parted_network)
    kinds += (draw_stacked_network, draw_signal_network)
    networks = [draw(rng) for draw in kinds for _ in range(12)]
    originals = [encode_as(network, oldest_version(network)) for network in networks[::2]]
    originals += [encode_as(narrowed(rng, network), max(5, oldest_version(network))) for network in networks[1::2]]
    for index in range(count):
        original = originals[rng.integers(len(originals))]
        if index % 4 == 0:
            yield mutate(rng, original)
        elif index % 4 == 1:
            yield seal(mutate(rng, original))
        else:
            yield pack(mutate(rng, unpack(original)), deflate=bool(rng.random() < 0.5), version=original[4])
