"""
One table of torch modules: how each becomes records.

Another layer or activation that is to be exported comes in here: a function from the module to its records, and a row in
:data:`MODULES`. Modules that are not in the table are refused by name.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

from sb3_contrib.common.torch_layers import BatchRenorm1d
from torch import nn

from sb3_sparse.export.trace.functions import activation, celu, gelu, prelu, selu, softplus
from sb3_sparse.export.trace.record import At, Record, Refusal
from sb3_sparse.export.trace.shapes import (
    adaptive_pool,
    batch_norm,
    flatten,
    layer_norm,
    max_pool,
    mean_pool,
    nothing,
    unflatten,
)
from sb3_sparse.export.trace.weights import convolution, linear, lstm
from sb3_sparse.nn import MaskedConv1d, MaskedConv2d, MaskedLinear, MaskedLSTM
from sb3_sparse.policies.extractors import ResidualBlock
from sb3_sparse.runtime.network.records import Activation, Layer


def refuse(what: str, instead: str = "") -> NoReturn:
    """
    :param what: What cannot be exported, with its name.
    :param instead: What can be, if there is something close to it.
    :raises ValueError: always
    """
    raise ValueError(
        f"{what} cannot be exported: known are the networks of Stable-Baselines3 and sb3-contrib, modules whose forward() is "
        f"a chain and policies with an action_path(), made of the modules {', '.join(kind.__name__ for kind in MODULES)}"
        + (f". In its place, {instead} can be exported" if instead else "")
    )


#: Type of a module that cannot be exported -> one close to it that can be.
_INSTEAD: dict[type[nn.Module], str] = {
    nn.GroupNorm: "a LayerNorm over channels, height and width, or a BatchNorm2d,",
    nn.InstanceNorm1d: "a BatchNorm1d",
    nn.InstanceNorm2d: "a BatchNorm2d",
    nn.RMSNorm: "a LayerNorm",
    nn.GRU: "the LSTM of RecurrentPPO",
}


def records(module: nn.Module, at: At) -> list[Record]:
    """
    :param module: A module that an observation passes.
    :param at: Where it stands.
    :return: What it computes, in order; nothing if it changes nothing
    :raises ValueError: if it cannot be exported
    """
    what = f"the layer '{at.name}' ({module})"
    if type(module) not in MODULES:
        refuse(what, _INSTEAD.get(type(module), ""))
    if not all(bool(tensor.isfinite().all()) for tensor in (*module.parameters(), *module.buffers())):
        raise ValueError(f"the layer '{at.name}' has numbers that are not finite: training has diverged")
    try:
        return MODULES[type(module)](module, at)
    except Refusal as refusal:
        why, instead = refusal.why, refusal.instead
    refuse(f"{what}, {why}," if why else what, instead)


def _residual_block(block: ResidualBlock, at: At) -> list[Record]:
    parts = {f"{at.name}.{part}": module for part, module in (("conv1", block.conv1), ("conv2", block.conv2))}
    found = [record for part, module in parts.items() for record in records(module, at._replace(name=part))]
    if [type(record) for _, record in found] != [Layer, Layer]:
        refuse(f"the residual block '{at.name}' ({block})")
    (first_name, first), (second_name, second) = found
    assert isinstance(first, Layer) and isinstance(second, Layer)
    return [
        (first_name, replace(first, rectify=True, activation=Activation("relu"))),
        (second_name, replace(second, residual=True)),
    ]


#: Type of a module, exactly -> its records, in the order in which they are computed.
MODULES: dict[type[nn.Module], Callable[[Any, At], list[Record]]] = {
    nn.Linear: linear,
    MaskedLinear: linear,
    nn.Conv1d: convolution,
    MaskedConv1d: convolution,
    nn.Conv2d: convolution,
    MaskedConv2d: convolution,
    nn.LSTM: lstm,
    MaskedLSTM: lstm,
    ResidualBlock: _residual_block,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    BatchRenorm1d: batch_norm,
    nn.LayerNorm: layer_norm,
    nn.MaxPool1d: max_pool,
    nn.MaxPool2d: max_pool,
    nn.AvgPool1d: mean_pool,
    nn.AvgPool2d: mean_pool,
    nn.AdaptiveMaxPool1d: adaptive_pool,
    nn.AdaptiveMaxPool2d: adaptive_pool,
    nn.AdaptiveAvgPool1d: adaptive_pool,
    nn.AdaptiveAvgPool2d: adaptive_pool,
    nn.ReLU: activation("relu"),
    nn.ReLU6: activation("clip", "min_val", "max_val"),
    nn.LeakyReLU: activation("leaky_relu", "negative_slope"),
    nn.ELU: activation("elu", "alpha"),
    nn.SiLU: activation("silu"),
    nn.SELU: selu,
    nn.CELU: celu,
    nn.PReLU: prelu,
    nn.GELU: gelu,
    nn.Mish: activation("mish"),
    nn.Softplus: softplus,
    nn.Softsign: activation("softsign"),
    nn.Hardswish: activation("hardswish"),
    nn.Tanh: activation("tanh"),
    nn.Sigmoid: activation("sigmoid"),
    nn.Hardtanh: activation("clip", "min_val", "max_val"),
    nn.Flatten: flatten,
    nn.Unflatten: unflatten,
    nn.Identity: nothing,
    nn.Dropout: nothing,
}
