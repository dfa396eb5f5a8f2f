"""What a policy remembers in C: a struct of the caller's, the stack of frames, and the steps of an LSTM around its sums."""

from math import prod

from sb3_sparse.export.c.ends import normalize_code
from sb3_sparse.export.c.tables import Tables, fill, literal
from sb3_sparse.export.c.windows import Buffers
from sb3_sparse.runtime.network.records import Network

_STATE = """
typedef struct {
@MEMBERS@
} @NAME@_state;

/* An episode begins. */
static inline void @NAME@_reset(@NAME@_state *state) {
    int i;
@RESET@
}
"""
_NOTE = """\

   The policy remembers@WHAT@: keep one @NAME@_state for each environment, and call
   @NAME@_reset(&state) where an episode begins. The test vectors are one episode.
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
    members, reset, what = [], [], ""
    if network.lstms:
        memory = prod(network.state_shape[1:])
        members.append(f"    float h[{memory}], c[{memory}];")
        reset.append(f"    for (i = 0; i < {memory}; i++) state->h[i] = state->c[i] = 0.0f;")
    if network.stack is not None:
        size, kind = prod(network.shape), "uint8_t" if network.image else "float"
        members.append(f"    {kind} frames[{size}];")
        reset.append(f"    for (i = 0; i < {size}; i++) state->frames[i] = 0;")
        what = f" the last {network.stack.frames} observations"
    names = {"NAME": name, "MEMBERS": "\n".join(members), "RESET": "\n".join(reset), "WHAT": what}
    return {key: fill(part, names) if network.remembers else "" for key, part in parts.items()}


def stack_code(network: Network, name: str) -> str:
    """
    :param network: A network with a stack of frames.
    :param name: Prefix of all names.
    :return: The function that puts an observation behind the last ones and calls ``<name>_vector_act()`` with all of them
    """
    assert network.stack is not None
    tables, axis = Tables(name), 0 if network.image else -1
    # Numbers in memory that belong together: those of a frame, or along its last dimension.
    step = prod(network.frame_shape) if network.image else network.frame_shape[axis]
    length = step * network.stack.frames
    kept, size = length - step, prod(network.shape)
    place = f"{kept} + i" if size == length else f"i / {step} * {length} + {kept} + i % {step}"
    # Where there are several rows, what moves from one row to the next is overwritten.
    code = [f"for (i = 0; i < {size - step}; i++) state->frames[i] = state->frames[i + {step}];"]
    if network.stack.normalize is None:
        code += [f"for (i = 0; i < {prod(network.frame_shape)}; i++) state->frames[{place}] = observation[i];"]
    else:
        code += [f"for (i = 0; i < {prod(network.frame_shape)}; i++) {{", "    float v = observation[i];"]
        code += [f"    {line}" for line in normalize_code(network.stack.normalize, tables)]
        code += [f"    state->frames[{place}] = v;", "}"]
    code.append(f"{name}_vector_act({'state, ' * bool(network.lstms)}state->frames, action);")
    return tables.act([], code, remembers=True)


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
