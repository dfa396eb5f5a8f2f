"""Finding layers, masking them in place, and stripping the masks off again."""

from torch import Tensor, nn

from sb3_sparse.nn.compiled import named_modules
from sb3_sparse.nn.layers import Layer, MaskedConv1d, MaskedConv2d, MaskedLayer, MaskedLinear, MaskedLSTMWeight
from sb3_sparse.nn.lstm import LSTMWeight, has_plain_weights, lstm_weights

#: Plain type -> masked type. A layer that is not of exactly one of these types is not pruned.
MASKED: dict[type[nn.Module], type[MaskedLayer]] = {
    masked.plain: masked for masked in (MaskedLinear, MaskedConv1d, MaskedConv2d, MaskedLSTMWeight)
}


def prunable_layers(module: nn.Module, prefix: str = "") -> dict[str, Layer]:
    """
    :param module: Root of the search.
    :param prefix: Name of the root, to begin the names with.
    :return: The root's linear and convolutional layers and the matrices of its LSTMs, masked or not. Left out are other
        subclasses, layers whose weight is computed (weight norm), and all but the first of layers with the same weight (tied
        weights). A matrix of an LSTM is a new object each time as long as it is not masked
    """
    layers: dict[str, Layer] = {}
    weights: set[Tensor] = set()
    for name, part in named_modules(module, prefix):
        own = {f"{name}.{key}" if name else key: layer for key, layer in lstm_weights(part).items()}
        found = {name: part} if isinstance(part, Layer) and is_plain(part) else own
        for path, layer in found.items():
            assert isinstance(layer, Layer)
            if layer.weight not in weights:
                layers[path] = layer
                weights.add(layer.weight)
    return layers


def is_plain(layer: nn.Module) -> bool:
    """Whether a module is of exactly one of these types or an LSTM, and its weights are parameters."""
    if isinstance(layer, LSTMWeight) or has_plain_weights(layer):
        return True
    return type(layer) in {*MASKED, *MASKED.values()} and "weight" in layer._parameters


def mask_layers(module: nn.Module, *, persistent: bool = True) -> None:
    """
    Turn every ``nn.Linear``, ``nn.Conv1d`` and ``nn.Conv2d`` of a module and every matrix of an ``nn.LSTM`` into its masked
    twin, in place, with a mask of ones.

    :param module: Root of the modules to convert; it may be such a layer itself.
    :param persistent: Whether state dicts hold the masks. If not, they are those of the plain layers.
    """
    for layer in prunable_layers(module).values():
        if type(layer) in MASKED:
            MASKED[type(layer)]._mask(layer, persistent=persistent)


def unmask_layers(module: nn.Module) -> None:
    """
    The inverse of :func:`mask_layers`: plain layers, the same ``Parameter`` objects, zeros where the mask was, no quantizer.

    :param module: Root of the modules to convert.
    """
    for layer in list(module.modules()):
        if isinstance(layer, MaskedLayer):
            layer._strip()
