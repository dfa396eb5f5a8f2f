"""
What every callback that changes masks shares: it finds the layers of its networks and of their target twins, keeps the
clock, applies masks, logs and persists.

A subclass says when and how: it overrides :meth:`SparsityCallback._update`, which is called once before training and after
every environment step, and calls :meth:`SparsityCallback._apply` with new masks. Masks change there and nowhere else:
between an optimizer's steps, and before any callback that comes later in the list saves the model.
"""

import warnings
from abc import abstractmethod
from collections.abc import Sequence

import torch as th
from stable_baselines3.common.callbacks import BaseCallback, EventCallback

from sb3_sparse.callbacks.state import SparsityState
from sb3_sparse.nn import (
    Layer,
    MaskedLayer,
    apply_mask,
    find_networks,
    find_optimizers,
    find_twins,
    hold_masks,
    mask_layers,
    overlooked_layers,
    select_networks,
)
from sb3_sparse.sparsity import Named

#: What becomes of the target network: it gets the online mask, or forgets pruned weights by averaging alone.
TARGETS = ("mask", "polyak")


class SparsityCallback(BaseCallback):
    """
    Base class of callbacks that change the masks of a model.

    It works on any policy. The linear and convolutional layers of a stock policy are masked in place; its zip is still
    a plain SB3 zip. After ``learn()`` the layers stay masked, so the model stays sparse if it goes on learning without
    the callback.

    What a run has to remember is kept on the model (``model.sparsity_state``) under the callback's name and arguments:
    a callback built with the same arguments goes on where the saved one stopped, one with other arguments starts anew
    on the present masks.

    Put it first in a list of callbacks, so that the others save what it has pruned.

    :param network: Name of a network under ``model.policy`` ("actor", "critic", "q_net", "mlp_extractor", ...), a list,
        or "all".
    :param exclude: Layers to leave dense, as shell patterns: "actor.mu", "mu", "qf*.4".
    :param targets: "mask" gives a layer of a target network the mask of its online twin, "polyak" leaves it to the
        averaging.
    :param verbose: Verbosity level: 0 for no output, 1 for a line per change of masks.
    :raises ValueError: on an unknown ``targets``; at the start of training on an unknown network, a layer to exclude
        that does not exist, or a model that trains without gradients
    """

    def __init__(
        self, network: str | Sequence[str], *, exclude: Sequence[str] = (), targets: str = "mask", verbose: int = 0
    ) -> None:
        super().__init__(verbose)
        if targets not in TARGETS:
            raise ValueError(f"unknown targets='{targets}': use one of {', '.join(TARGETS)}")
        self.network = network if isinstance(network, str) else list(network)
        self.exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        self.targets = targets
        #: The masked layers by network and full name, once training has begun.
        self.layers: dict[str, dict[str, MaskedLayer]] = {}

    @abstractmethod
    def _arguments(self) -> dict[str, object]:
        """
        :return: The subclass's own arguments that make one run differ from another, as printable values
        """

    @abstractmethod
    def _update(self) -> None:
        """Change the masks if it is time to; called before training and after every step, so it must be cheap."""

    def _check(self, selected: dict[str, dict[str, Layer]]) -> None:
        """
        Check the arguments against the model, before anything is changed.

        :param selected: The layers, masked or not, by network and full name.
        :raises ValueError: if they do not fit
        """

    def _start(self, clock: dict[str, int]) -> None:
        """
        Resolve what is relative to this run, before anything is changed. A resumed clock is filled already.

        :param clock: Integers that are saved with the model.
        :raises ValueError: if the moments do not fit
        """

    @property
    def timestep(self) -> int:
        """Environment steps since this callback's first run on the model began, whatever SB3 resets ``num_timesteps`` to."""
        return self.model.num_timesteps + self._offset

    def _resolve(self, when: float | int) -> int:
        """
        :param when: A share of this run if a float, a number of environment steps if an int.
        :return: The same moment on the clock of :attr:`timestep`
        """
        if isinstance(when, float):
            begin = self.model._num_timesteps_at_start
            return begin + round(when * (self.model._total_timesteps - begin))
        return when

    def _init_callback(self) -> None:
        policy = self.model.policy
        self._optimizers = find_optimizers(policy)
        selected = self._select()
        self._check(selected)
        self._state = SparsityState(self.model)
        arguments = {"network": list(selected), "exclude": sorted(self.exclude), "targets": self.targets, **self._arguments()}
        self._clock = self._state.clock(f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})")
        saved = self._saved_masks(selected)
        self._offset = max(0, self._clock.get("timestep", 0) - self.model.num_timesteps)
        self._start(self._clock)
        self._convert(selected, saved)
        self._twins = find_twins(policy) if self.targets == "mask" else {}
        self._log: dict[str, float] = {}
        for network in self.layers:
            self._apply(network, {name: layer.mask.clone() for name, layer in self.layers[network].items()})

    def _select(self) -> dict[str, dict[str, Layer]]:
        """The layers to govern, by network and full name; errors and a warning if that is not what the user may expect."""
        policy = self.model.policy
        selected = select_networks(policy, self.network, self.exclude)
        if not self._optimizers:
            raise ValueError(
                f"{type(self.model).__name__} trains without gradients, so pruned weights could not be held at zero"
            )
        if isinstance(self.parent, EventCallback):
            raise ValueError(
                f"{type(self).__name__} cannot be inside another callback such as {type(self.parent).__name__}: it would "
                "miss steps; put it into the list itself, and first"
            )
        overlooked = [name for network in selected for name in overlooked_layers(getattr(policy, network), network)]
        if overlooked:
            warnings.warn(
                f"these layers stay dense and do not count, for they are no plain nn.Linear or nn.Conv2d: {overlooked}",
                stacklevel=2,
            )
        return selected

    def _saved_masks(self, selected: dict[str, dict[str, Layer]]) -> dict[Layer, th.Tensor]:
        """
        The saved masks of a stock policy that has just been loaded: those of all its layers, since a network whose callback
        is not there stays sparse as well.
        """
        masks: dict[Layer, th.Tensor] = {}
        for network, layers in find_networks(self.model.policy).items():
            loaded = {}
            for name, layer in layers.items():
                mask = None if isinstance(layer, MaskedLayer) else self._state.load_mask(name, layer.weight.shape)
                if mask is not None:
                    loaded[layer] = mask.to(layer.weight.device)
            if not any(bool((layer.weight != 0).logical_and(~mask).any()) for layer, mask in loaded.items()):
                masks.update(loaded)
            elif network in selected:
                warnings.warn(
                    f"network '{network}' was saved with masks and has since been trained without its callback, so pruned "
                    "weights have come back; the saved masks are dropped and the run starts anew on the weights as they are",
                    stacklevel=2,
                )
                self._clock.clear()
        return masks

    def _convert(self, selected: dict[str, dict[str, Layer]], saved: dict[Layer, th.Tensor]) -> None:
        """Mask the selected layers, and those with a saved mask."""
        for layers in selected.values():
            for layer in layers.values():
                mask_layers(layer, persistent=False)
        for layer, mask in saved.items():
            mask_layers(layer, persistent=False)
            assert isinstance(layer, MaskedLayer)
            layer.set_mask(mask)
        hold_masks(self.model.policy)
        self.layers = {
            network: {name: layer for name, layer in layers.items() if isinstance(layer, MaskedLayer)}
            for network, layers in selected.items()
        }

    def _apply(self, network: str, masks: Named) -> None:
        """
        Give the layers of a network new masks; target twins, optimizer moments, the saved state and the log follow.

        :param network: Name of the network.
        :param masks: New masks by full layer name.
        """
        layers = self.layers[network]
        active = 0
        for name, layer in layers.items():
            apply_mask(layer, masks[name], self._optimizers, self._twins.get(layer, ()))
            self._state.save_mask(name, layer.mask)
            active += int(layer.mask.flatten(1).any(dim=1).sum())
        total = sum(layer.mask.numel() for layer in layers.values())
        kept = sum(int(layer.mask.sum()) for layer in layers.values())
        self._log[f"sparsity/{network}"] = 1.0 - kept / total
        self._log[f"sparsity/{network}_active_neurons"] = active

    def _enforce(self) -> None:
        """Zero what came back by a way around the optimizers; target twins included."""
        layers = [layer for layers in self.layers.values() for layer in layers.values() if layer.pruned]
        pairs = [(obeying.weight, layer.multiplier) for layer in layers for obeying in (layer, *self._twins.get(layer, ()))]
        if pairs:
            with th.no_grad():
                th._foreach_mul_(*map(list, zip(*pairs, strict=True)))

    def _on_training_start(self) -> None:
        self._update()

    def _on_rollout_start(self) -> None:
        # Just after the previous train().
        self._enforce()

    def _on_training_end(self) -> None:
        # Just after the last train(); rl-zoo3 calls it twice.
        self._enforce()

    def _on_step(self) -> bool:
        self._clock["timestep"] = self.timestep
        self._update()
        return True

    def _on_rollout_end(self) -> None:
        # SB3 clears its record at every dump, so it is filled again for the next one.
        for key, value in self._log.items():
            self.logger.record(key, value)
