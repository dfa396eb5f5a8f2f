"""How a policy acts: the modules between an observation and the deterministic action."""

from dataclasses import dataclass
from typing import TypeGuard

from torch import nn

#: What happens when a module is called.
_CALLED = ("__call__", "forward", "__iter__")


@dataclass(frozen=True)
class ActionPath:
    """
    The modules that an observation passes on its way to the deterministic action. The exporter reads it.

    A policy that is not one of SB3's returns its path from a method, in the class that also defines ``_predict``:

        def action_path(self) -> ActionPath:
            return ActionPath(self.actor.features_extractor, (self.actor.mlp,))

    The last output is a Box action (scaled to [-1, 1] if the policy says ``squash_output``), or one value per discrete action,
    of which the largest wins.

    :param features_extractor: Makes features of the observation.
    :param modules: What the features pass next, in order; a container among them must be an ``nn.Sequential``.
    :param calls: Methods of the policy and its networks that ``_predict`` calls, in addition to SB3's own. The exporter
        refuses a subclass that overrides one of them.
    :param tanh: Whether a tanh follows that is not one of the modules.
    :param estimates: The last module gives this many estimates of every output, ``[estimates, outputs]``; their mean counts.
    :param zero_inputs: Inputs of the first module, behind the features, that are always 0.
    :param zero_reason: Why they are 0: "The VAE's latent variable is 0, its mean".
    """

    features_extractor: nn.Module
    modules: tuple[nn.Module, ...]
    calls: tuple[str, ...] = ()
    tanh: bool = False
    estimates: int = 1
    zero_inputs: int = 0
    zero_reason: str = ""


def is_sequential(module: nn.Module) -> TypeGuard[nn.Sequential]:
    """
    :param module: A module.
    :return: Whether it passes its input through its children one after the other: an ``nn.Sequential``, or a subclass that
        does not override how it is called
    """
    kind, own = type(module), nn.Sequential
    return issubclass(kind, own) and all(getattr(kind, name) is getattr(own, name) for name in _CALLED)
