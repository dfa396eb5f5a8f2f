"""
FLOPs of a training run, by the accounting of the papers on sparse training.

An update of a network on one sample costs three times its forward pass: the pass itself, and twice as much backward (Evci
et al. 2020, "Rigging the Lottery", appendix). A run of T environment steps then costs

    T * updates_per_step * batch_size * sum over networks of (update / delay)

Not counted are activations, biases, optimizers and the collection of experience, nor, unless ``extra_forward`` names them,
target networks and the passes of one network inside the loss of another (Sokar et al. 2022, "Dynamic Sparse Training for Deep
Reinforcement Learning"). As in that paper, every environment step counts, also those before ``learning_starts``.

BCQ and its discrete form count these passes by default: with ten sampled actions per target they are most of the work. The
clock of offline algorithms counts updates, so a step is an update there.
"""

from collections.abc import Mapping
from typing import TypeVar

from sb3_sparse.cost.counts import LayerSummary, NetworkSummary
from sb3_sparse.sparsity import Schedule

Value = TypeVar("Value")

#: Points of the mean over a schedule.
_POINTS = 10_000


def update_flops(
    name: str,
    network: NetworkSummary,
    *,
    extra_forward: Mapping[str, float],
    grow_freq: int | None,
    schedule: Schedule | None,
) -> float:
    """
    FLOPs of one update of one network on one sample. With f_S the forward pass of the present connections, f_D that of the
    dense network and DT = ``grow_freq``:

        3 f_S                                   static, SET
        (3 f_S DT + 2 f_S + f_D) / (DT + 1)     RigL: every DT updates a dense gradient, and no step
        3 f_D * mean(1 - s)                     gradual pruning along a schedule s

    and for each extra forward pass f_S, or f_D * mean(1 - s), of the network or of a part of it.

    :param name: Name of the network, for errors.
    :param network: Its counts.
    :param extra_forward: Additional forward passes, by the name of the network or of a part; other names are ignored.
    :param grow_freq: Updates between two growths by gradient; None if there are none.
    :param schedule: Sparsity along the run; None if it stays as it is.
    :return: FLOPs
    :raises ValueError: if the FLOPs of the network are unknown, a number is out of range, or both ``grow_freq`` and
        ``schedule`` are given
    """
    sparse, dense = network.flops, network.dense_flops
    if sparse is None or dense is None:
        raise ValueError(
            f"the FLOPs of '{name}' are unknown: they depend on the output size of its convolutions, which the weights do not "
            "tell; summarize the model, with its convolutions in a features extractor, instead of the state dict"
        )
    if negative := [part for part, passes in extra_forward.items() if not passes >= 0]:
        part = negative[0]
        raise ValueError(f"extra_forward of '{part}' must not be negative, got {extra_forward[part]}")
    extra = dense_extra = 0.0
    for part, passes in extra_forward.items():
        for layer in layers_of(network, part):
            extra += passes * (layer.flops or 0)
            dense_extra += passes * (layer.dense_flops or 0)
    if schedule is not None:
        if grow_freq is not None:
            raise ValueError(f"'{name}' is either pruned along a schedule or grown by gradient: give schedule or grow_freq")
        return (3.0 * dense + dense_extra) * _mean_density(schedule)
    if grow_freq is None:
        return 3.0 * sparse + extra
    if not grow_freq >= 1:
        raise ValueError(f"grow_freq of '{name}' must be at least 1 update, got {grow_freq}")
    return (3.0 * sparse * grow_freq + 2.0 * sparse + dense) / (grow_freq + 1) + extra


def layers_of(network: NetworkSummary, part: str) -> list[LayerSummary]:
    """
    :param network: A network.
    :param part: Full name of one of its modules, such as "vae.decoder", or of the network itself.
    :return: The layers in it; none if it has no such module
    """
    return [layer for path, layer in network.layers.items() if path == part or path.startswith(f"{part}.")]


def _mean_density(schedule: Schedule) -> float:
    """1 - s, averaged over a run by the midpoint rule."""
    sparsities = [schedule((i + 0.5) / _POINTS) for i in range(_POINTS)]
    if not all(0.0 <= sparsity <= 1.0 for sparsity in sparsities):
        raise ValueError(f"a schedule of sparsity must stay in [0, 1], got {min(sparsities)} to {max(sparsities)}")
    return 1.0 - sum(sparsities) / _POINTS


def by_network(argument: str, values: Mapping[str, Value] | None, networks: Mapping[str, object]) -> Mapping[str, Value]:
    """
    :param argument: Name of the argument, for errors.
    :param values: Values by network, or None.
    :param networks: The networks by name.
    :return: The values
    :raises ValueError: if a network does not exist
    """
    if unknown := [name for name in values or {} if name not in networks]:
        raise ValueError(f"{argument} names {', '.join(map(repr, unknown))}, but the networks are: {', '.join(networks)}")
    return values or {}
