"""The test vectors of a header: observations, and the actions that its code must give."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.export.c.ends import Argument, arguments
from sb3_sparse.export.c.integer.simulation import simulate_integers
from sb3_sparse.export.c.tables import literal
from sb3_sparse.runtime.backends.int8 import simulate_int8
from sb3_sparse.runtime.network.assemble import assemble
from sb3_sparse.runtime.network.records import Floats, Head, Network
from sb3_sparse.runtime.network.reference import layer_inputs
from sb3_sparse.runtime.network.stacking import stack_axis, unroll

#: From a network and observations to the outputs of its last layer.
Arithmetic = Callable[[Network, Floats], Floats]
#: Observations by key, ``[n, *shape]``.
Drawn = dict[str, Floats]
#: Number of test vectors.
COUNT = 8
#: For discrete actions, the number of observations drawn for each that is used.
_DRAWN = 8
#: How far the actions of float code may be off, as a share of one more than the largest.
_FLOAT = 1e-5


def vectors(network: Network, name: str, *, integers: bool, simd: bool) -> str:
    """
    :param network: A network.
    :param name: Prefix of all names.
    :param integers: Whether there is integer code.
    :param simd: Whether there is code for vector registers.
    :return: Observations, and for each arithmetic the actions and how far they may be off
    """
    drawn, upper = _observations(network), name.upper()
    # Tolerances: sums are added in another order, and a number between two steps may be rounded to either of them. The second
    # holds for all inputs in bytes; in integers where the compiler contracts products and sums, or after an activation other
    # than ReLU.
    arithmetics: list[tuple[str, Arithmetic, float]] = []
    arithmetics += [(f"defined({upper}_SIMD)", simulate_int8, 0.03)] * simd
    arithmetics += [(f"defined({upper}_INTEGER)", simulate_integers, 1e-3)] * integers
    arithmetics += [("1", _outputs, _FLOAT)]
    lines = [
        _matrix(f"static const {argument.kind} SB3S_FLASH {_name(name, argument)}", drawn[_key(argument)], argument.kind)
        for argument in arguments(network, name)
    ]
    for index, (condition, compute, share) in enumerate(arithmetics):
        expected = network.head(_compute(compute, network, drawn).astype(np.float32)).astype(np.float32)
        tolerance = _tolerance(network.head, expected, share)
        lines += [f"#{'elif' if index else 'if'} {condition}", f"#define {upper}_TOLERANCE {literal(tolerance)}"]
        lines += [_matrix(f"static const float SB3S_FLASH {name}_expected", expected, "float")]
    return "\n".join([*lines, "#endif"])


def draw_examples(network: Network) -> tuple[Floats, NDArray[np.generic], float]:
    """
    :param network: A network whose observation is one array, and which stacks no frames.
    :return: Observations, ``[n, *shape]``, which are one episode of a recurrent network; its actions, ``[n, *action_shape]``;
        and how far those of a float backend may be off
    """
    observations = _observations(network)[""]
    actions = network.head(_outputs(network, observations).astype(np.float32))
    return observations, actions, _tolerance(network.head, actions, _FLOAT)


def copy_parts(network: Network, name: str) -> dict[str, str]:
    """
    :param network: A network.
    :param name: Prefix of all names.
    :return: The parts of the self test that copy a test vector to where the policy can read it: on AVR that is not the flash
    """
    storage, declarations, loops, given = f"{name.upper()}_STORAGE", [], [], []
    for argument in arguments(network, name):
        size = prod(network.frame_shape if argument.part is None else argument.part.shape)
        copy = f"given_{argument.name}"
        declarations.append(f"    {storage} {argument.kind} {copy}[{size}];\n")
        loops.append(f"        for (j = 0; j < {size}; j++) {copy}[j] = {_name(name, argument)}[i][j];\n")
        given.append(copy)
    return {"COPIES": "".join(declarations), "COPY": "".join(loops), "TESTED": ", ".join(given)}


def _name(name: str, argument: Argument) -> str:
    """Name of the table of test vectors of an argument."""
    return f"{name}_observations{f'_{argument.name}' if _key(argument) else ''}"


def _key(argument: Argument) -> str:
    return "" if argument.part is None else argument.part.key


def _compute(compute: Arithmetic, network: Network, drawn: Drawn) -> Floats:
    """The outputs of the last layer; encoders are computed in the same arithmetic."""
    if network.stack is not None:
        # One episode.
        stacks = unroll(network, drawn[""], None, np.arange(len(drawn[""])))
        return compute(replace(network, stack=None), stacks)
    if not network.parts:
        return compute(network, drawn[""])
    encoders = {key: partial(compute, encoder) for key, encoder in network.encoders.items()}
    return compute(network, assemble(network, drawn, encoders))


def _outputs(network: Network, observations: Floats) -> Floats:
    if not network.lstms:
        return layer_inputs(network, observations)[-1]
    # One episode.
    state = np.zeros((1, *network.state_shape), np.float32)
    return np.concatenate([layer_inputs(network, observation[None], state)[-1] for observation in observations])


def _tolerance(head: Head, actions: NDArray[np.generic], share: float) -> float:
    return 0.5 if _discrete(head) else share * (1 + float(np.abs(actions).max()))


def _discrete(head: Head) -> bool:
    return head.kind in ("argmax", "positive")


def _observations(network: Network) -> Drawn:
    """Observations of the size that the gains expect, by key; for discrete actions those with the clearest decisions."""
    drawn = _draw_parts(network, COUNT * _DRAWN if _discrete(network.head) else COUNT)
    if not _discrete(network.head):
        return drawn
    if network.remembers:
        count = len(drawn[next(iter(drawn))]) // COUNT
        episodes = [{key: array[COUNT * index :][:COUNT] for key, array in drawn.items()} for index in range(count)]
        return max(episodes, key=lambda episode: float(_margins(network.head, _compute(_outputs, network, episode)).min()))
    margins = _margins(network.head, _compute(_outputs, network, drawn))
    chosen = np.sort(np.argsort(-margins, kind="stable")[:COUNT])
    return {key: array[chosen] for key, array in drawn.items()}


def _draw_parts(network: Network, count: int) -> Drawn:
    x, start, drawn = _draw(network, count), 0, {}
    if network.stack is not None:
        return {"": _newest(network, x)}
    if not network.parts:
        return {"": x}
    generator = np.random.default_rng(1)
    for part in network.parts:
        if part.encoder is not None:
            drawn[part.key] = _draw(part.encoder, count)
        elif part.sizes:
            classes = generator.integers(0, part.sizes, (count, len(part.sizes)))
            drawn[part.key] = classes.reshape(count, *part.shape).astype(np.float32)
        else:
            drawn[part.key] = x[:, start : start + part.width].reshape(count, *part.shape)
        start += part.width
    return drawn


def _newest(network: Network, stacks: Floats) -> Floats:
    """The newest frames of stacks, as the environment gives them."""
    assert network.stack is not None
    frames = np.split(stacks, network.stack.frames, axis=stack_axis(network))[-1]
    normalize = network.stack.normalize
    return frames if normalize is None else (frames / normalize.scale + normalize.mean).astype(np.float32)


def _draw(network: Network, count: int) -> Floats:
    generator = np.random.default_rng(0)
    if network.image:
        return generator.integers(0, 256, (count, *network.shape)).astype(np.float32)
    x = generator.standard_normal((count, *network.shape))
    gain = network.layers[0].gain
    if gain is not None:
        live = network.layers[0].weight.any(axis=0)
        x = x * np.where(live, 1 / gain.values, 1)[: x[0].size].reshape(network.shape)
    if network.normalize is not None:
        x = x / network.normalize.scale + network.normalize.mean
    return x.astype(np.float32)


def _margins(head: Head, outputs: Floats) -> Floats:
    """How far each observation, ``[n]``, is from another discrete action."""
    if head.kind == "positive":
        nearest: Floats = np.abs(outputs).min(axis=1)
        return nearest
    margins = np.full(len(outputs), np.inf, np.float32)
    for group in np.split(outputs, np.cumsum(head.groups)[:-1], axis=1):
        if group.shape[1] > 1:
            ordered = np.sort(group, axis=1)
            margins = np.minimum(margins, ordered[:, -1] - ordered[:, -2])
    return margins


def _matrix(declaration: str, values: NDArray[np.generic], kind: str) -> str:
    rows = [
        ", ".join(literal(float(value)) if kind == "float" else str(int(value)) for value in row)
        for row in values.reshape(COUNT, -1).tolist()
    ]
    return f"{declaration}[{COUNT}][{values[0].size}] = {{\n    {{" + "},\n    {".join(rows) + "}};"
