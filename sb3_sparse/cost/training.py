"""
FLOPs of a training run, by the accounting of the papers on sparse training.

An update of a network on one sample costs three times its forward pass: the pass itself, and twice as much backward (Evci
et al. 2020, "Rigging the Lottery", appendix). A run of T environment steps then costs

    T * updates_per_step * batch_size * sum over networks of (update / delay)

What is not counted: activations, biases and optimizers; collecting experience; and, unless ``extra_forward`` says so, target
networks and the passes of one network inside the loss of another (Sokar et al. 2022, "Dynamic Sparse Training for Deep
Reinforcement Learning"). ``learning_starts`` is ignored, as it is there: every environment step counts.

Of BCQ and its discrete form these passes are counted unless ``extra_forward`` says otherwise: with ten samples for every
target they are most of the work. The clock of offline algorithms counts updates, so a step is an update there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from sb3_sparse.cost.counts import LayerSummary, NetworkSummary

Value = TypeVar("Value")
#: Progress of a run in [0, 1] -> sparsity.
Schedule = Callable[[float], float]

#: Points of the mean over a schedule.
_POINTS = 10_000
_MOST = 2**53


@dataclass(frozen=True)
class Training:
    """
    How a model uses samples.

    :param batch_size: Samples per gradient update.
    :param updates_per_step: Gradient updates per environment step; None if that cannot be told.
    :param delays: By network: it is updated once in so many updates; a network that is not named, every time.
    :param extra_forward: By network, or part of one: forward passes besides, per sample and update.
    :param clock: What is counted as a step.
    """

    batch_size: int
    updates_per_step: float | None = None
    delays: Mapping[str, int] = field(default_factory=dict)
    extra_forward: Mapping[str, float] = field(default_factory=dict)
    clock: str = "environment steps"


def read_training(settings: Mapping[str, object]) -> Training | None:
    """
    How a model uses samples, from its attributes or from the plain values in the JSON of its zip.

    An off-policy algorithm makes gradient_steps / (train_freq * n_envs) updates per environment step, one if gradient_steps
    is -1, an unknown number if train_freq is in episodes. PPO sees every sample n_epochs times, in minibatches (a last
    one that is smaller counts for its part, stopping early at target_kl does not), A2C once, in one batch. An offline
    algorithm makes one update per step.

    >>> read_training({"batch_size": 64, "n_epochs": 10, "n_steps": 2048, "n_envs": 1})
    Training(batch_size=64, updates_per_step=0.15625, delays={}, extra_forward={}, clock='environment steps')

    :param settings: ``vars(model)``, or such values by name; others are ignored.
    :return: None if the algorithm is of another kind, such as TRPO, whose steps are found by conjugate gradients
    """
    # A file may say anything: what overflows a float is no number of samples.
    whole = {name: value for name, value in settings.items() if type(value) is int and 0 <= value <= _MOST}
    batch_size, delay = whole.get("batch_size", 0), whole.get("policy_delay", 1)
    if "cg_max_steps" in settings:
        return None
    # What an offline algorithm draws its minibatches with.
    if batch_size > 0 and "draw_seed" in settings:
        return Training(batch_size, 1.0, extra_forward=_offline_passes(settings), clock="gradient updates")
    if batch_size > 0 and delay > 0:
        delays = {"actor": delay} if "policy_delay" in whole else {}
        epochs = whole.get("n_epochs")
        return Training(batch_size, _updates_per_step(settings) if epochs is None else epochs / batch_size, delays)
    rollout = whole.get("n_steps", 0) * whole.get("n_envs", 0)
    return Training(rollout, 1 / rollout) if "batch_size" not in settings and rollout > 0 else None


def _offline_passes(settings: Mapping[str, object]) -> Mapping[str, float]:
    """
    Passes of an offline algorithm besides those of an update, per sample. Of BCQ with n samples for every target: decoder,
    actor and both Q-networks for n actions; for the actor's loss, the decoder for one, and the first Q-network forward and
    back to its input, which costs another forward pass. Features are extracted once, however many the samples.
    """
    samples = settings.get("n_target_actions")
    if type(samples) is int and 0 < samples <= _MOST:
        extractors = {"vae.features_extractor": 2, "critic.features_extractor": 2, "actor.features_extractor": 1}
        return extractors | {
            "vae.decoder": samples + 1,
            "critic.qf0": samples + 2,
            "critic.qf1": samples,
            "actor.mlp": samples,
        }
    # Discrete BCQ values the next action with the target network, and finds it with the other two.
    return {"q_net": 2, "imitation": 1} if {"threshold", "tau", "gamma"} <= settings.keys() else {}


def _updates_per_step(settings: Mapping[str, object]) -> float | None:
    updates, freq, n_envs = (settings.get(name) for name in ("gradient_steps", "train_freq", "n_envs"))
    if not isinstance(updates, int) or not isinstance(n_envs, int) or not isinstance(freq, TrainFreq):
        return None
    if updates < 0:
        return 1.0
    return updates / (freq.frequency * n_envs) if freq.unit == TrainFrequencyUnit.STEP else None


def update_flops(
    name: str,
    network: NetworkSummary,
    *,
    extra_forward: Mapping[str, float],
    grow_freq: int | None,
    schedule: Schedule | None,
) -> float:
    """
    FLOPs of one update of one network on one sample. With f_S the forward pass of what is connected now, f_D that of the
    dense twin and DT = ``grow_freq``:

        3 f_S                                   static, SET
        (3 f_S DT + 2 f_S + f_D) / (DT + 1)     RigL: every DT updates a dense gradient, and no step
        3 f_D * mean(1 - s)                     gradual pruning along a schedule s

    and for each extra forward pass f_S, or f_D * mean(1 - s), of the network or of a part of it.

    :param name: Name of the network, for errors.
    :param network: Its counts.
    :param extra_forward: Further forward passes, by the name of the network or of a part; other names are ignored.
    :param grow_freq: Updates between two growths by gradient; None if there are none.
    :param schedule: Sparsity along the run; None if it stays as it is.
    :return: FLOPs
    :raises ValueError: if the FLOPs of the network are unknown, or a number makes no sense, or two exclude each other
    """
    sparse, dense = network.flops, network.dense_flops
    if sparse is None or dense is None:
        raise ValueError(
            f"the FLOPs of '{name}' are unknown: the size of what its convolutions put out is not in their weights; "
            "summarize the model, with its convolutions in a features extractor, instead of the state dict"
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
