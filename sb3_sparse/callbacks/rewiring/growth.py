"""The masks of a rewiring: weights grow at random places (SET), or where the dense gradient is largest (RigL)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import Tensor
from torch.optim import Optimizer

from sb3_sparse.nn import DenseGradients, MaskedLayer
from sb3_sparse.sparsity import MOMENTS, SALIENCIES, SAMPLES, Named, magnitude, random, rewire
from sb3_sparse.state import draw_generator

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

GROW = ("random", "gradient")
#: Number of calls of ``train()`` within which an off-policy algorithm trains every network at least once.
PATIENCE = 20


def check_drop(drop: str) -> str:
    """
    :param drop: A user's score by which weights are dropped.
    :return: The same
    :raises ValueError: if there is no such score, or a rewiring cannot compute it
    """
    if not isinstance(drop, str) or drop not in SALIENCIES:
        raise ValueError(f"unknown drop='{drop}': use one of {', '.join(SALIENCIES)}")
    if drop in SAMPLES:
        raise ValueError(f"drop='{drop}' needs data, and a rewiring has none: use 'magnitude' or 'magnitude_by_sign'")
    if drop in MOMENTS:
        raise ValueError(
            f"drop='{drop}' would drop the weights that have just been grown, because Adam's second moments start at zero: "
            "use 'magnitude' or 'magnitude_by_sign'"
        )
    return drop


class Growth:
    """
    Chooses the masks of a rewiring.

    :param model: The model.
    :param layers: Its layers to rewire, by network and full name.
    :param optimizers: Optimizers to look for the layers' weights in.
    :param drop: Name of the score whose lowest weights are dropped.
    :param grow: A name in ``GROW``.
    """

    def __init__(
        self,
        model: "BaseAlgorithm",
        layers: dict[str, dict[str, MaskedLayer]],
        optimizers: Iterable[Optimizer],
        drop: str,
        grow: str,
    ) -> None:
        self._model = model
        self._layers = layers
        self._drop = drop
        self._by_gradient = grow == "gradient"
        self._gradients = DenseGradients([layer for network in layers.values() for layer in network.values()], optimizers)
        self._recorded: dict[MaskedLayer, Tensor] = {}
        #: The model's numbers of updates at which gradients were missing, since they were last complete.
        self._waited: set[int] = set()

    def start(self) -> None:
        """Record gradients: a rewiring is due after the next call of ``train()``."""
        if self._by_gradient:
            self._gradients.start()

    def stop(self) -> None:
        """That call is over: keep its gradients."""
        self._recorded = self._gradients.stop()

    def masks(self, fraction: float, seed: int, number: int) -> Named:
        """
        :param fraction: Share of each layer's weights to move.
        :param seed: Seed of the run.
        :param number: Number of the rewiring; together with the seed it determines all random numbers.
        :return: New masks of all layers, with the same count in each, dense layers as they are; none if gradients are missing
        :raises ValueError: if gradients have been missing for too long
        """
        if self._by_gradient and self._is_missing():
            return {}
        masks: Named = {}
        for network, layers in self._layers.items():
            sparse = {name: layer for name, layer in layers.items() if layer.pruned}
            weights = {name: layer.weight.detach() for name, layer in sparse.items()}
            if self._by_gradient:
                places = magnitude({name: self._recorded[layer] for name, layer in sparse.items()})
            else:
                places = random(weights, generator=draw_generator(seed, number, f"grow {network}"))
            scores = SALIENCIES[self._drop](weights, generator=draw_generator(seed, number, f"drop {network}"))
            masks |= {name: layer.mask.clone() for name, layer in layers.items()}
            masks |= rewire({name: masks[name] for name in sparse}, scores, places, fraction)
        return masks

    def _is_missing(self) -> bool:
        """Whether a gradient is missing: an actor that is updated every other time has none in between."""
        layers = [(name, layer) for network in self._layers.values() for name, layer in network.items()]
        missing = [name for name, layer in layers if layer.pruned and layer not in self._recorded]
        if not missing:
            self._waited.clear()
            return False
        self._waited.add(self._model._n_updates)
        # On-policy algorithms train all their networks in every call.
        off_policy = max(PATIENCE, 2 * getattr(self._model, "policy_delay", 1))
        if len(self._waited) >= (1 if isinstance(self._model, OnPolicyAlgorithm) else off_policy):
            raise ValueError(
                f"no optimizer has updated {', '.join(missing)} since a rewiring became due, so there is no gradient to grow "
                'by: exclude these layers, or use grow="random"'
            )
        return True
