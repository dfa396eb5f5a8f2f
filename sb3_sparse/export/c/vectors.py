"""The test vectors of a header: observations, and the actions that its code must give."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sb3_sparse.export.c.integer import simulate_integers
from sb3_sparse.export.c.tables import literal
from sb3_sparse.runtime.backends.vbmi import simulate_vbmi
from sb3_sparse.runtime.network.records import Floats, Head, Network
from sb3_sparse.runtime.network.reference import layer_inputs

#: Number of test vectors.
COUNT = 8
#: For discrete actions, the number of observations drawn for each that is used.
_DRAWN = 8


def vectors(network: Network, name: str, *, integers: bool, vbmi: bool) -> str:
    """
    :param network: A network.
    :param name: Prefix of all names.
    :param integers: Whether there is integer code.
    :param vbmi: Whether there is VBMI code.
    :return: Observations, and for each arithmetic the actions and how far they may be off
    """
    observations = _observations(network)
    upper, kind = name.upper(), "uint8_t" if network.image else "float"
    # Tolerances: sums are added in another order, and a number between two steps may be rounded to either of them. The second
    # holds for all inputs in bytes; in integers where the compiler contracts products and sums, or after an activation other
    # than ReLU.
    arithmetics: list[tuple[str, Callable[[Network, Floats], Floats], float]] = []
    arithmetics += [(f"defined({upper}_VBMI)", simulate_vbmi, 0.03)] * vbmi
    arithmetics += [(f"defined({upper}_INTEGER)", simulate_integers, 1e-3)] * integers
    arithmetics += [("1", _outputs, 1e-5)]
    lines = [_matrix(f"static const {kind} {name}_observations", observations, kind)]
    for index, (condition, compute, share) in enumerate(arithmetics):
        expected = network.head(compute(network, observations).astype(np.float32)).astype(np.float32)
        tolerance = 0.5 if _discrete(network.head) else share * (1 + float(np.abs(expected).max()))
        lines += [f"#{'elif' if index else 'if'} {condition}", f"#define {upper}_TOLERANCE {literal(tolerance)}"]
        lines += [_matrix(f"static const float {name}_expected", expected, "float")]
    return "\n".join([*lines, "#endif"])


def _outputs(network: Network, observations: Floats) -> Floats:
    if not network.lstms:
        return layer_inputs(network, observations)[-1]
    # One episode.
    state = np.zeros((1, *network.state_shape), np.float32)
    return np.concatenate([layer_inputs(network, observation[None], state)[-1] for observation in observations])


def _discrete(head: Head) -> bool:
    return head.kind in ("argmax", "positive")


def _observations(network: Network) -> Floats:
    """Observations of the size that the gains expect; for discrete actions those with the clearest decisions."""
    drawn = _draw(network, COUNT * _DRAWN if _discrete(network.head) else COUNT)
    if not _discrete(network.head):
        return drawn
    if network.lstms:
        episodes = drawn.reshape(_DRAWN, COUNT, *network.shape)
        clearest = [float(_margins(network.head, _outputs(network, episode)).min()) for episode in episodes]
        best: Floats = episodes[int(np.argmax(clearest))]
        return best
    margins = _margins(network.head, _outputs(network, drawn))
    return drawn[np.sort(np.argsort(-margins, kind="stable")[:COUNT])]


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
