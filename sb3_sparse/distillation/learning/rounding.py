"""
The last part of a training in few bits: the student computes with weights and activations that are on grids, and gradients go
straight through to the numbers behind them (Bengio et al. 2013).

A grid of weights has a step for each row, as an exported layer has. It begins as the one with the smallest squared error of
the row's sums,

    sum_i m_i * (w_i - step * q_i)**2,        q_i = clip(round(w_i / step), -top, top)

with the mean squares m of the layer's inputs. That clips the largest weights, which pays with few bits. Then the steps are
learnt along with the weights: every 50 updates each of them goes a little along the gradient of the loss (Esser et al. 2020,
"Learned step size quantization"), by its sign and relative to its size. In the end they become numbers that an exported file
holds in one byte, and the weights learn on for a while.

Activations are rounded as :class:`~sb3_sparse.callbacks.QATCallback` does, all but the observation: its range is that of the
calibration observations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor
from torch.func import functional_call

from sb3_sparse.callbacks.rounded_inputs import make_grids
from sb3_sparse.distillation.learning.network import read_network
from sb3_sparse.export.passes import to_minifloats
from sb3_sparse.nn import (
    InputGrid,
    Layer,
    MaskedLayer,
    WeightGrid,
    find_networks,
    input_grids,
    mask_layers,
    original,
    prunable_layers,
)

#: States for the first steps, and for a gradient of the steps.
_STATES, _BATCH = 4096, 1024
#: The steps that are tried, as shares of that which clips nothing.
_SHARES = np.linspace(1.0, 0.1, 73)
#: By how much a step changes at first, as a share of its size; later less.
_RATE = 0.03


class Rounding(BaseCallback):
    """
    Puts the weights and activations of a student on grids.

    :param bits: Bits of a weight; None for float weights.
    :param activation_bits: Bits of an activation; None for float ones.
    :param start: Updates before it begins.
    :param stop: Updates from which on the grids stay as they are.
    """

    model: Any

    def __init__(self, bits: int | None, activation_bits: int | None, start: int, stop: int) -> None:
        super().__init__()
        self.bits, self.activation_bits, self.start, self.stop = bits, activation_bits, start, stop

    def _on_training_start(self) -> None:
        # What cannot be rounded is refused now.
        self._inputs = {} if self.activation_bits is None else self._find_inputs(self.activation_bits)
        # A run that goes on: the layers are masked by now.
        self._set(*self.model.saved_grids)

    def _on_step(self) -> bool:
        if self.num_timesteps == self.start:
            grids = {}
            if self.bits is not None:
                self.model.take_averages()
                grids = self._first_grids(self.bits)
            self._set(grids, self._inputs)
        elif self.start < self.num_timesteps < self.stop and self.bits is not None:
            self._learn(_RATE * (self.stop - self.num_timesteps) / (self.stop - self.start))
        elif self.num_timesteps == self.stop:
            self._fix()
        return True

    def _on_training_end(self) -> None:
        # A callback may have stopped the run.
        self._fix()

    def _fix(self) -> None:
        for grid in self.model.grids.values():
            grid.scale.copy_(_in_one_byte(grid.scale))
        for grid in input_grids(self.model.policy.student).values():
            grid.follows = False

    @property
    def _layers(self) -> dict[str, Layer]:
        return prunable_layers(self.model.policy.student)

    def _set(self, grids: dict[str, WeightGrid], inputs: dict[str, InputGrid]) -> None:
        for name, layer in self._layers.items():
            if name in grids or name in inputs:
                mask_layers(layer, persistent=False)
                assert isinstance(layer, MaskedLayer)
                if name in grids:
                    layer.set_grid(grids[name])
                layer.input_grid = inputs.get(name)

    def _find_inputs(self, activation_bits: int) -> dict[str, InputGrid]:
        """New grids of the inputs of all layers but those that read the observation."""
        policy = original(self.model.student.policy)
        names = {layer: name for layers in find_networks(policy).values() for name, layer in layers.items()}
        own = dict(zip(self._layers, prunable_layers(read_network(self.model.student)).values(), strict=True))
        grids = make_grids(policy, {names[layer]: layer for layer in own.values()}, self.bits or 8, activation_bits)
        found = {name: grids[names[layer]] for name, layer in own.items() if names[layer] in grids}
        return {name: grid for name, grid in found.items() if not grid.observation}

    def _states(self, count: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of some states, which follow from the seed and the clock."""
        model = self.model
        rows = np.random.default_rng([model.draw_seed, self.num_timesteps, count]).integers(len(model.states), size=count)
        inputs, targets = (
            th.as_tensor(table[rows], device=model.device) for table in (model.states.inputs, model.states.targets)
        )
        return inputs, targets

    @th.no_grad()
    def _first_grids(self, bits: int) -> dict[str, WeightGrid]:
        squares: dict[str, Tensor] = {}
        layers = self._layers

        def look(name: str, x: Tensor) -> None:
            squares[name] = x.square().mean(dim=[0, *range(2, x.dim())]).view(-1, *[1] * (x.dim() - 2))

        handles = [
            layer.register_forward_pre_hook(lambda _, inputs, name=name: look(name, inputs[0]))
            for name, layer in layers.items()
        ]
        try:
            self.model.policy.student(self._states(_STATES)[0])
        finally:
            for handle in handles:
                handle.remove()
        top = 2 ** (bits - 1) - 1
        return {name: WeightGrid(bits, best_scale(layer.weight, squares[name], top)) for name, layer in layers.items()}

    def _learn(self, rate: float) -> None:
        """Move each step along the sign of its gradient."""
        model, layers, grids = self.model, self._layers, self.model.grids
        # The values of a grid are on it, so that the layers leave them as they are.
        values = {f"{name}.weight": grid(layers[name].weight.detach()).requires_grad_() for name, grid in grids.items()}
        inputs, targets = self._states(_BATCH)
        loss = model.behavior.loss(functional_call(model.policy.student, values, (inputs,)), targets)
        for (name, grid), gradient in zip(grids.items(), th.autograd.grad(loss, list(values.values())), strict=True):
            weight = layers[name].weight.detach()
            integers = grid.integers(weight)
            steps = weight / grid.steps(weight)
            slopes = integers - th.where(steps.abs() <= grid.top, steps, 0.0)
            of_rows = (gradient * slopes).flatten(1).sum(dim=1)
            grid.scale.mul_((of_rows.sign() * -rate).exp_())


def best_scale(weight: Tensor, squares: Tensor, top: int) -> Tensor:
    """
    :param weight: A weight, ``[out, in, ...]``.
    :param squares: Mean squares of its inputs, ``[in, ...]``.
    :param top: The largest integer.
    :return: The step of each row with the smallest error, ``[out]``
    """
    dims = list(range(1, weight.dim()))
    widest = weight.abs().amax(dims, keepdim=True).clamp(min=1e-12) / top
    best, least = widest, th.full_like(widest, th.inf)
    for share in _SHARES:
        steps = widest * float(share)
        errors = (squares * ((weight / steps).round_().clamp_(-top, top) * steps - weight).square_()).sum(dims, keepdim=True)
        best, least = th.where(errors < least, steps, best), th.minimum(errors, least)
    return best.flatten()


def _in_one_byte(scale: Tensor) -> Tensor:
    return th.from_numpy(to_minifloats(scale.cpu().numpy(), up=False).values)
