"""What a recurrent policy remembers in C: a struct of the caller's, and the steps of an LSTM layer around its sums."""

from math import prod

from sb3_sparse.export.c.tables import Tables, fill, literal
from sb3_sparse.export.c.windows import Buffers
from sb3_sparse.runtime.network.records import Network

_STATE = """
typedef struct {
    float h[@MEMORY@], c[@MEMORY@];
} @NAME@_state;

/* An episode begins. */
static inline void @NAME@_reset(@NAME@_state *state) {
    int i;
    for (i = 0; i < @MEMORY@; i++) state->h[i] = state->c[i] = 0.0f;
}
"""
_NOTE = """\

   A recurrent policy: keep one @NAME@_state for each environment, and call @NAME@_reset(&state) where an episode begins. The
   test vectors are one episode.
"""


def state_parts(network: Network, name: str) -> dict[str, str]:
    """
    :param network: A network.
    :param name: Prefix of all names.
    :return: The parts of a header that are about its state; empty if the network does not remember anything
    """
    parts = {
        "NOTE": _NOTE,
        "KEPT": "\n   but the one that you pass",
        "STATE": _STATE,
        "REMEMBER": "@NAME@_state *state, ",
        "GIVE": "&state, ",
        "BEGIN": "\n    @NAME@_state state;\n    @NAME@_reset(&state);",
    }
    names = {"NAME": name, "MEMORY": prod(network.state_shape[1:])}
    return {key: fill(part, names) if network.lstms else "" for key, part in parts.items()}


def recall(tables: Tables, buffers: Buffers, network: Network, index: int, x: str) -> list[str]:
    """
    :param tables: Where the tables are.
    :param buffers: The buffers.
    :param network: A network.
    :param index: Number of a layer.
    :param x: Name of the one that holds its input.
    :return: Lines that put the last outputs of an LSTM behind its input; none for other layers
    """
    layer = network.layers[index]
    if not layer.lstm:
        return []
    buffers.widen(x, layer.weight.shape[1])
    value = f"state->h[{_place(network, index)} + i]"
    if layer.gain is not None:
        # The table of all gains is that of the observation.
        value += f" * ((float){tables.minifloat()}({tables.name}_gain[{layer.inputs} + i]) * {literal(layer.gain.unit)})"
    return [f"for (i = 0; i < {layer.outputs}; i++) {x}[{layer.inputs} + i] = {value};"]


def remember(network: Network, index: int, y: str) -> list[str]:
    """
    :param network: A network.
    :param index: Number of a layer.
    :param y: Name of the buffer with its sums.
    :return: The line that makes outputs of the gates of an LSTM; none for other layers
    """
    layer, place = network.layers[index], _place(network, index)
    return [f"sb3s_lstm({layer.outputs}, state->h + {place}, state->c + {place}, {y});"] * layer.lstm


def _place(network: Network, index: int) -> int:
    return sum(layer.lstm for layer in network.layers[:index]) * network.state_shape[2]
