"""Where weights go when a model is rewired: anywhere (SET), or where a dense network's gradient is largest (RigL)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import Tensor
from torch.optim import Optimizer

from sb3_sparse.nn import DenseGradients, MaskedLayer
from sb3_sparse.sparsity import SALIENCIES, Named, magnitude, random, rewire
from sb3_sparse.state.seeding import draw_generator
from sb3_sparse.state.state import SparsityState

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

GROW = ("random", "gradient")
#: Calls of ``train()`` in which every network of an off-policy algorithm should have been trained once.
PATIENCE = 20


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
        self._caught: dict[MaskedLayer, Tensor] = {}
        #: Numbers of updates after which gradients were missing, since the last time that they were not.
        self._waited: set[int] = set()

    def start(self) -> None:
        """A rewiring is due after the call of ``train()`` that comes next."""
        if self._by_gradient:
            self._gradients.start()

    def stop(self) -> None:
        """That call is over."""
        self._caught = self._gradients.stop()

    def masks(self, fraction: float, seed: int, number: int) -> Named:
        """
        :param fraction: Share of each layer's weights to move.
        :param seed: Seed of what is drawn.
        :param number: Number of the rewiring; together with the seed it fixes what is drawn.
        :return: New masks of all layers, with the same count in each, dense layers as they are; none if gradients are missing
        :raises ValueError: if they have been missing for too long
        """
        if self._by_gradient and self._is_missing():
            return {}
        masks: Named = {}
        for network, layers in self._layers.items():
            sparse = {name: layer for name, layer in layers.items() if layer.pruned}
            weights = {name: layer.weight.detach() for name, layer in sparse.items()}
            if self._by_gradient:
                places = magnitude({name: self._caught[layer] for name, layer in sparse.items()})
            else:
                places = random(weights, generator=draw_generator(seed, number, f"grow {network}"))
            scores = SALIENCIES[self._drop](weights, generator=draw_generator(seed, number, f"drop {network}"))
            masks |= {name: layer.mask.clone() for name, layer in layers.items()}
            masks |= rewire({name: masks[name] for name in sparse}, scores, places, fraction)
        return masks

    def _is_missing(self) -> bool:
        """Whether a gradient is; an actor that is updated every other time has none in between."""
        layers = [(name, layer) for network in self._layers.values() for name, layer in network.items()]
        missing = [name for name, layer in layers if layer.pruned and layer not in self._caught]
        if not missing:
            self._waited.clear()
            return False
        self._waited.add(self._model._n_updates)
        # On-policy algorithms train all that they train in every call.
        off_policy = max(PATIENCE, 2 * getattr(self._model, "policy_delay", 1))
        if len(self._waited) >= (1 if isinstance(self._model, OnPolicyAlgorithm) else off_policy):
            raise ValueError(
                f"no optimizer has moved {', '.join(missing)} since a rewiring became due, so there is no gradient to grow "
                'by: leave them out, or use grow="random"'
            )
        return True


class Pending:
    """
    Masks that a run has chosen in its end, and that the next one begins with.

    :param model: The model.
    :param state: What is saved with it.
    :param clock: The clock of the callback.
    :param layers: The layers by full name.
    """

    def __init__(
        self, model: "BaseAlgorithm", state: SparsityState, clock: dict[str, int], layers: dict[str, MaskedLayer]
    ) -> None:
        self._model = model
        self._state = state
        self._clock = clock
        self._layers = layers

    def keep(self, masks: Named) -> None:
        """
        :param masks: Masks of the layers.
        """
        for name, mask in masks.items():
            self._state.save_mask(name, mask, "pending")
        self._clock["pending"] = self._model._n_updates

    def take(self) -> Named:
        """
        :return: The masks, once, if the model has not been trained and no layer pruned since; none otherwise
        """
        fits = self._clock.pop("pending", None) == self._model._n_updates
        masks: Named = {}
        for name, layer in self._layers.items():
            mask = self._state.load_mask(name, layer.mask.shape, "pending")
            self._state.drop_mask(name, "pending")
            fits = fits and mask is not None and int(mask.sum()) == int(layer.mask.sum())
            if mask is not None:
                masks[name] = mask.to(layer.mask.device)
        return masks if fits else {}
