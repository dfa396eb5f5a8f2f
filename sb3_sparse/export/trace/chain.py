"""Modules that follow each other as layers: an activation and a pool belong to the layer before them."""

from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from sb3_sparse.export.trace.graph import Affine, ends_in_sums
from sb3_sparse.export.trace.modules import Bits, records, refuse
from sb3_sparse.runtime.network.records import IDENTITY, Activation, Layer, Pool

#: Activations that do not fall anywhere, whatever their numbers are: they may change places with a max pool.
_RISING = ("relu", "tanh", "clip", "sigmoid", "softplus", "softsign")


def chain(modules: Iterable[tuple[str, nn.Module]], bits: Bits) -> tuple[list[Layer | Affine], list[str]]:
    """
    :param modules: Modules with their full names, in the order in which they are called, without their containers.
    :param bits: See :data:`~sb3_sparse.export.trace.modules.Bits`.
    :return: What they compute, and the names of the layers among it
    :raises ValueError: if something in them cannot be exported
    """
    operations: list[Layer | Affine] = []
    found: list[str] = []
    for name, module in modules:
        for part, record in records(module, name, bits):
            last = operations[-1] if operations else None
            if isinstance(record, Activation):
                if not isinstance(last, Layer) or last.lstm or last.activation != IDENTITY or _falls(last, record):
                    refuse(f"the activation '{name}' ({module}), which does not follow a layer,")
                operations[-1] = replace(last, activation=record)
            elif isinstance(record, Pool):
                # The largest number stays the largest where all are multiplied by a positive one.
                passed = isinstance(last, Affine) and len(operations) > 1 and bool((last.scale > 0).all())
                before = operations[-2] if passed else last
                if not isinstance(before, Layer) or not before.convolution or before.pool is not None:
                    refuse(f"the pool '{name}' ({module}), which does not follow a convolution,")
                operations[-2 if passed else -1] = replace(before, pool=record)
            elif isinstance(record, Affine) and last is not None and ends_in_sums(last):
                assert isinstance(last, Layer)
                operations[-1] = record.after(last)
            else:
                operations.append(record)
                found += [part] * isinstance(record, Layer)
    return operations, found


def _falls(layer: Layer, activation: Activation) -> bool:
    """Whether an activation cannot change places with the max pool of the layer before it."""
    return layer.pool is not None and activation.name not in _RISING
