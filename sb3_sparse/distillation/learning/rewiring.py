"""Rewiring of a student: states are at hand, so the gradient that weights grow by is that of many of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th

from sb3_sparse.callbacks import RewiringCallback
from sb3_sparse.callbacks.rewiring.growth import Growth
from sb3_sparse.distillation.plan import PRUNING, REWIRING
from sb3_sparse.nn import second_moments
from sb3_sparse.sparsity import Named, fisher, magnitude, rewire

#: States in the gradient.
_STATES = 8192


class StatesGrowth(Growth):
    """
    Drops the weights of the lowest ``|w| * sqrt(v)``, and grows those of the largest dense gradient over thousands of states.
    Between two rewirings there are so many updates that Adam's second moments of new weights are settled.
    """

    def start(self) -> None:
        """Nothing to record."""

    def stop(self) -> None:
        """Likewise."""

    def masks(self, fraction: float, seed: int, number: int) -> Named:
        model: Any = self._model
        gradients = self._dense_gradients(np.random.default_rng([seed, number]))
        masks: Named = {}
        for layers in self._layers.values():
            weights = {name: layer.weight.detach() for name, layer in layers.items() if layer.pruned}
            moments: Any = second_moments(weights_of(layers, weights), [model.policy.optimizer])
            scores = fisher(weights, second_moments=moments)
            masks |= {name: layer.mask.clone() for name, layer in layers.items()}
            places = magnitude({name: gradients[name] for name in weights})
            masks |= rewire({name: masks[name] for name in weights}, scores, places, fraction)
        return masks

    def _dense_gradients(self, rng: np.random.Generator) -> Named:
        model: Any = self._model
        states, policy = model.states, model.policy
        rows = rng.integers(len(states), size=min(_STATES, 8 * len(states)))
        inputs, targets = (th.as_tensor(table[rows], device=model.device) for table in (states.inputs, states.targets))
        named = {name: layer for layers in self._layers.values() for name, layer in layers.items()}
        found: Named = {}
        listeners = {name: (lambda gradient, name=name: found.__setitem__(name, gradient)) for name in named}
        for name, layer in named.items():
            layer.listeners.append(listeners[name])
        try:
            model.behavior.loss(policy.student(inputs), targets).backward()
        finally:
            for name, layer in named.items():
                layer.listeners.remove(listeners[name])
            policy.optimizer.zero_grad()
        return found


def weights_of(layers: dict[str, Any], chosen: Named) -> Named:
    """The parameters of the chosen layers."""
    return {name: layers[name].weight for name in chosen}


class Rewiring(RewiringCallback):
    """
    Rewires a student once per round, from the end of its pruning on.

    :param network: Name of the network.
    :param fraction: Share of the weights that the first rewiring moves; the next ones move fewer, along a cosine.
    :param update_freq: Updates between two rewirings.
    """

    def __init__(self, network: str, fraction: float, update_freq: int) -> None:
        super().__init__(network, fraction, update_freq, "gradient", "cosine", REWIRING, "mask")

    def _init_callback(self) -> None:
        super()._init_callback()
        self._growth = StatesGrowth(self.model, self.layers, self._optimizers, self.drop, self.grow)

    def _set_moments(self) -> None:
        self._clock.saved.setdefault("start", self._clock.resolve(PRUNING))
        super()._set_moments()
