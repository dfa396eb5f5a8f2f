"""
What all callbacks of this package share: they find the layers of their networks, make them masked layers, keep a clock that
is saved with the model, and log.

A subclass says what happens and when: it overrides :meth:`ResumableCallback._update`, which is called once before training
and after every environment step: between an optimizer's steps, and before any callback that comes later in the list saves
the model.
"""

import warnings
from abc import abstractmethod
from collections.abc import Sequence

from stable_baselines3.common.callbacks import EventCallback

from sb3_sparse.callbacks.clock import ClockedCallback
from sb3_sparse.nn import (
    Layer,
    MaskedLayer,
    check_names,
    find_optimizers,
    hold_masks,
    mask_layers,
    overlooked_layers,
    select_networks,
)
from sb3_sparse.state.restore import SavedLayers


class ResumableCallback(ClockedCallback):
    """
    Base class of callbacks that change the layers of a model, and go on where a saved run stopped.

    What a run has to remember is kept on the model (``model.sparsity_state``) under the callback's name and arguments:
    a callback built with the same arguments goes on where the saved one stopped, one with other arguments starts anew
    on the layers as they are.

    :param network: Name of a network under ``model.policy`` ("actor", "critic", "q_net", "mlp_extractor", ...), a list,
        or "all".
    :param exclude: Layers to leave as they are, as shell patterns: "actor.mu", "mu", "qf*.4".
    :param verbose: Verbosity level: 0 for no output, 1 for a line per change.
    :raises ValueError: on a network or a layer that is no name; at the start of training, on an unknown network, a layer to
        exclude that does not exist, or a model that trains without gradients
    """

    def __init__(self, network: str | Sequence[str], *, exclude: Sequence[str] = (), verbose: int = 0) -> None:
        super().__init__(verbose)
        names = check_names("network", network)
        self.network = network if isinstance(network, str) else names
        self.exclude = tuple(check_names("exclude", exclude))
        #: The layers by network and full name, once training has begun.
        self.layers: dict[str, dict[str, MaskedLayer]] = {}

    @abstractmethod
    def _identity(self) -> dict[str, object]:
        """
        :return: The arguments, beside the network, that make one run differ from another, as printable values
        """

    @abstractmethod
    def _update(self) -> None:
        """Change the layers if it is time to; called before training and after every step, so it must be cheap."""

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

    def _init_callback(self) -> None:
        self._optimizers = find_optimizers(self.model.policy)
        selected = self._select()
        self._check(selected)
        saved = self._load(selected)
        self._start_clock()
        self._start(self._clock)
        saved.put_back()
        self._convert(selected)
        self._log: dict[str, float] = {}

    def _select(self) -> dict[str, dict[str, Layer]]:
        """The layers to govern, by network and full name; errors and a warning if that is not what the user may expect."""
        policy = self.model.policy
        selected = select_networks(policy, self.network, self.exclude)
        if not self._optimizers:
            raise ValueError(
                f"{type(self.model).__name__} trains without gradients, so {type(self).__name__} cannot work on it"
            )
        if isinstance(self.parent, EventCallback):
            raise ValueError(
                f"{type(self).__name__} cannot be inside another callback such as {type(self.parent).__name__}: it would "
                "miss steps; put it into the list itself, and first"
            )
        overlooked = [name for network in selected for name in overlooked_layers(getattr(policy, network), network)]
        if overlooked:
            warnings.warn(
                f"these layers stay as they are and do not count, for they are no plain nn.Linear or nn.Conv2d: {overlooked}",
                stacklevel=2,
            )
        return selected

    def _load(self, selected: dict[str, dict[str, Layer]]) -> SavedLayers:
        """Find the clock of this callback, and what was saved of the layers of all networks."""
        self._state = self._find_clock({"network": list(selected), **self._identity()})
        saved = SavedLayers(self.model, self._state)
        saved.drop_regrown()
        return saved

    def _convert(self, selected: dict[str, dict[str, Layer]]) -> None:
        """Make the selected layers masked layers."""
        for layers in selected.values():
            for layer in layers.values():
                mask_layers(layer, persistent=False)
        hold_masks(self.model.policy)
        self.layers = {
            network: {name: layer for name, layer in layers.items() if isinstance(layer, MaskedLayer)}
            for network, layers in selected.items()
        }

    def _on_training_start(self) -> None:
        self._update()

    def _on_step(self) -> bool:
        self._clock["timestep"] = self.timestep
        self._update()
        return True

    def _on_rollout_end(self) -> None:
        # SB3 clears its record at every dump, so it is filled again for the next one.
        for key, value in self._log.items():
            self.logger.record(key, value)
