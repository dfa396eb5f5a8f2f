"""
How each algorithm uses samples: one table by class.

A model is looked up by its class. A zip does not name its algorithm, but it holds the algorithm's attributes: it is looked up
by an attribute that tells the algorithms apart. Nothing is guessed for an algorithm that is not in the table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from sb3_contrib import TRPO, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from sb3_sparse.offline import ALGORITHMS, OfflineAlgorithm

Settings = Mapping[str, object]

_MOST = 2**53


@dataclass(frozen=True)
class Training:
    """
    How a model uses samples.

    :param batch_size: Samples per gradient update.
    :param updates_per_step: Gradient updates per environment step; None if the settings do not say.
    :param delays: By network: it is updated once in so many updates; a network that is not named, every time.
    :param extra_forward: By network, or part of one: additional forward passes per sample and update.
    :param clock: What a step is: "environment steps" or "gradient updates".
    """

    batch_size: int
    updates_per_step: float | None = None
    delays: Mapping[str, int] = field(default_factory=dict)
    extra_forward: Mapping[str, float] = field(default_factory=dict)
    clock: str = "environment steps"


@dataclass(frozen=True)
class Rule:
    """
    How one class of algorithms, and its subclasses, use samples.

    :param attribute: The attribute that tells their zips from those of the classes below it in the table.
    :param read: From the attributes, and the class if it is known, to how they use samples; None if that is unknown.
    """

    attribute: str
    read: Callable[[Settings, type | None], Training | None]


def read_training(settings: Settings, algorithm: type | None = None) -> Training | None:
    """
    How a model uses samples, from its attributes or from the plain values in the JSON of its zip.

    >>> read_training({"batch_size": 64, "n_epochs": 10, "n_steps": 2048, "n_envs": 1})
    Training(batch_size=64, updates_per_step=0.15625, delays={}, extra_forward={}, clock='environment steps')

    :param settings: ``vars(model)``, or such values by name; others are ignored.
    :param algorithm: Class of the model; by default the one whose attributes these are.
    :return: None if the algorithm is not in the table, or its updates cannot be counted
    """
    if algorithm is None:
        rule = next((rule for rule in RULES.values() if rule.attribute in settings), None)
    else:
        rule = next((RULES[cls] for cls in algorithm.__mro__ if cls in RULES), None)
    return None if rule is None else rule.read(settings, algorithm)


def _off_policy(settings: Settings, _: type | None) -> Training | None:
    """gradient_steps / (train_freq * n_envs) updates per step, one if gradient_steps is -1; unknown for whole episodes."""
    updates, freq, n_envs = (settings.get(name) for name in ("gradient_steps", "train_freq", "n_envs"))
    per_step = None
    if isinstance(updates, int) and isinstance(n_envs, int) and isinstance(freq, TrainFreq):
        if updates < 0:
            per_step = 1.0
        elif freq.unit == TrainFrequencyUnit.STEP:
            per_step = updates / (freq.frequency * n_envs)
    return _in_minibatches(settings, per_step)


def _ppo(settings: Settings, _: type | None) -> Training | None:
    """Every sample n_epochs times; a smaller last minibatch counts for its part, and target_kl never stops early."""
    numbers = _whole(settings)
    batch_size, epochs = numbers.get("batch_size"), numbers.get("n_epochs")
    return _in_minibatches(settings, epochs / batch_size if batch_size and epochs is not None else None)


def _a2c(settings: Settings, _: type | None) -> Training | None:
    """Every sample once, in one batch per rollout."""
    numbers = _whole(settings)
    rollout = numbers.get("n_steps", 0) * numbers.get("n_envs", 0)
    return Training(rollout, 1 / rollout) if rollout > 0 and "batch_size" not in settings else None


def _offline(settings: Settings, algorithm: type | None) -> Training | None:
    """One update per step. Each offline algorithm knows the forward passes that the targets of its losses need."""
    known = [algorithm] if algorithm is not None and issubclass(algorithm, OfflineAlgorithm) else ALGORITHMS.values()
    passes = (cls.extra_forward(settings) for cls in known)
    training = _in_minibatches(settings, 1.0)
    extra = next((found for found in passes if found is not None), {})
    return training and replace(training, extra_forward=extra, clock="gradient updates")


def _uncounted(settings: Settings, _: type | None) -> None:
    """An algorithm without gradient steps of its own, such as TRPO, which finds its steps by conjugate gradients."""


def _in_minibatches(settings: Settings, updates_per_step: float | None) -> Training | None:
    """Minibatches of batch_size; the actor is updated once in policy_delay updates."""
    numbers = _whole(settings)
    batch_size, delay = numbers.get("batch_size", 0), numbers.get("policy_delay", 1)
    delays = {"actor": delay} if "policy_delay" in numbers else {}
    return Training(batch_size, updates_per_step, delays) if batch_size > 0 and delay > 0 else None


def _whole(settings: Settings) -> dict[str, int]:
    """The integers in [0, 2**53]. A file can hold any value; larger ones would overflow a float."""
    return {name: value for name, value in settings.items() if type(value) is int and 0 <= value <= _MOST}


#: How each class of algorithms uses samples. A zip is matched from top to bottom.
RULES: dict[type, Rule] = {
    OfflineAlgorithm: Rule("draw_seed", _offline),
    TRPO: Rule("cg_max_steps", _uncounted),
    PPO: Rule("n_epochs", _ppo),
    MaskablePPO: Rule("n_epochs", _ppo),
    RecurrentPPO: Rule("n_epochs", _ppo),
    OffPolicyAlgorithm: Rule("gradient_steps", _off_policy),
    A2C: Rule("n_steps", _a2c),
}
