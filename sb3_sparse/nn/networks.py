"""
The networks of a policy and their prunable layers.

A network is a child of ``model.policy`` that holds linear, convolutional or LSTM layers: "actor", "critic", "q_net",
"mlp_extractor", ... A child named ``<network>_target`` is that network's target twin; a twin follows its network and is never
pruned on its own. A layer that two networks share (a features extractor) belongs to the first of them.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

from sb3_sparse.nn.compiled import named_children, named_modules, original
from sb3_sparse.nn.layers import Layer
from sb3_sparse.nn.masking import is_plain, prunable_layers

_TARGET = "_target"
_NOISE = "log_std"


def find_networks(policy: nn.Module) -> dict[str, dict[str, Layer]]:
    """
    :param policy: The policy of an SB3 model.
    :return: By network, in the policy's order: the prunable layers by full name, such as "actor.latent_pi.0"
    """
    networks: dict[str, dict[str, Layer]] = {}
    owned: set[Tensor] = set()
    for name, child in named_children(policy):
        layers = {path: layer for path, layer in prunable_layers(child, prefix=name).items() if layer.weight not in owned}
        if layers and not name.endswith(_TARGET):
            networks[name] = layers
            owned.update(layer.weight for layer in layers.values())
    return networks


def check_names(argument: str, names: str | Iterable[str]) -> list[str]:
    """
    :param argument: Name of the argument, for the error.
    :param names: What a user gave: a name, or several.
    :return: The names
    :raises ValueError: if one of them is not a string
    """
    listed = [names] if isinstance(names, str) else list(names) if isinstance(names, Iterable) else [names]
    if not all(isinstance(name, str) for name in listed):
        raise ValueError(f"{argument} is a name or a list of names, got {names!r}")
    return listed


def select_networks(
    policy: nn.Module, network: str | Sequence[str], exclude: Iterable[str] = ()
) -> dict[str, dict[str, Layer]]:
    """
    :param policy: The policy of an SB3 model.
    :param network: Name of a network, a list of them, or "all", which may also stand in the list.
    :param exclude: Names of layers to leave out, full ("actor.mu") or without the network ("mu"), as shell patterns
        ("qf*.4").
    :return: The chosen part of :func:`find_networks`
    :raises ValueError: if a network or a layer to leave out is not a string or does not exist, or if nothing is left
    """
    networks = find_networks(policy)
    exclude, chosen = check_names("exclude", exclude), check_names("network", network)
    known = f"it has: {', '.join(networks) or 'none'}"
    if not chosen:
        raise ValueError(f"network={network!r} names no network of {type(original(policy)).__name__}; {known}")
    everything = "all" in chosen
    unknown = [name for name in chosen if name not in networks and name != "all"]
    names = list(networks) if everything else chosen
    if unknown or not names:
        raise ValueError(
            f"{type(original(policy)).__name__} has no network {', '.join(map(repr, unknown or chosen))} with linear or "
            f"convolutional layers; {known}"
        )
    selected = {}
    unused = set(exclude)
    for name in dict.fromkeys(names):
        selected[name] = dict(networks[name])
        for layer in networks[name]:
            matching = {p for p in exclude if fnmatchcase(layer, p) or fnmatchcase(layer, f"{name}.{p}")}
            if matching:
                del selected[name][layer]
                unused -= matching
        if not selected[name] and everything:
            del selected[name]
    if not all(selected.values()) or not selected:
        raise ValueError(f"exclude={exclude} leaves no layer of {', '.join(names)}")
    if unused:
        layers = [layer for name in names for layer in networks[name]]
        raise ValueError(f"exclude={sorted(unused)} matches none of the layers: {', '.join(layers)}")
    return selected


def find_parts(policy: nn.Module, network: str, layers: Iterable[str]) -> list[list[str]]:
    """
    The parts of a network, each of which is ranked alone. The network's class names them, as children of the network:

        class VAE(nn.Module):
            parts: ClassVar[tuple[str, ...]] = ("encoder", "decoder")

    :param policy: The policy of an SB3 model.
    :param network: Name of a network.
    :param layers: Full names of its layers.
    :return: The layers by part, in the order of the parts; layers outside all parts come last. One list if there are no parts
    :raises ValueError: if the network has no child of the name of a part
    """
    module = dict(named_children(policy))[network]
    parts = getattr(type(module), "parts", ())
    # A user's own class may have an attribute of this name that means something else.
    parts = parts if isinstance(parts, tuple) else ()
    unknown = [part for part in parts if part not in dict(named_children(module))]
    if unknown:
        raise ValueError(
            f"{type(module).__name__}.parts names {', '.join(unknown)}, and network '{network}' has no such child"
        )
    grouped: dict[str, list[str]] = {part: [] for part in (*parts, "")}
    for layer in layers:
        child = layer.removeprefix(f"{network}.").split(".")[0]
        grouped[child if child in parts else ""].append(layer)
    return [group for group in grouped.values() if group]


def find_twins(policy: nn.Module) -> dict[nn.Module, list[Layer]]:
    """
    :param policy: The policy of an SB3 model.
    :return: By layer, the layers of target networks that follow it; layers without one are left out
    """
    children = dict(named_children(policy))
    twins: dict[nn.Module, list[Layer]] = {}
    for name, target in children.items():
        if not name.endswith(_TARGET) or name.removesuffix(_TARGET) not in children:
            continue
        network = children[name.removesuffix(_TARGET)]
        online = {**prunable_layers(network), **dict(named_modules(network, remove_duplicate=False))}
        for path, twin in prunable_layers(target).items():
            twins.setdefault(online[path], []).append(twin)
    return twins


def overlooked_layers(policy: nn.Module) -> list[str]:
    """
    :param policy: The policy of an SB3 model.
    :return: Names of the layers with a matrix of weights that cannot be pruned, because of their class or a computed weight;
        those of target networks are left out
    """
    found: list[str] = []
    for name, layer in named_modules(policy):
        # The matrix of gSDE's noise is not a layer.
        matrices = [key for key, value in layer._parameters.items() if value is not None and value.dim() > 1 and key != _NOISE]
        # What computes a weight is a part of the layer that has it.
        is_part = name.startswith(tuple(f"{other}." for other in found)) or name.split(".")[0].endswith(_TARGET)
        if (matrices or isinstance(layer, Layer)) and not is_plain(layer) and not is_part:
            found += [name] if name else matrices
    return found
