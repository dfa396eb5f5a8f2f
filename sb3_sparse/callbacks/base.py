"""
The base class of the callbacks that change layers: it selects the layers, and calls the subclass after every step.

A subclass starts in ``_init_callback``: it selects its layers, checks its arguments, opens a :class:`~sb3_sparse.state.Run`,
and starts it. From then on :meth:`LayerCallback._update` is called once before training and after every environment step. That
is between two steps of an optimizer, and before a later callback of the list saves the model.
"""

import warnings
from abc import abstractmethod
from collections.abc import Sequence

from stable_baselines3.common.callbacks import BaseCallback, EventCallback

from sb3_sparse.nn import Layer, MaskedLayer, check_names, find_optimizers, overlooked_layers, select_networks
from sb3_sparse.state import Identity, Run


class LayerCallback(BaseCallback):
    """
    Base class of callbacks that change the layers of a model, and that go on where a saved run stopped.

    The state of a run is saved on the model (``model.sparsity_state``). A callback of the same class for the same network goes
    on with the run if its arguments are the same, and starts anew on the present layers if they are not. Give callbacks
    different names to keep their runs apart.

    :param network: Name of a network under ``model.policy`` ("actor", "critic", "q_net", "mlp_extractor", ...), a list,
        or "all".
    :param exclude: Layers to leave as they are, as shell patterns: "actor.mu", "mu", "qf*.4".
    :param name: Name of the run, if the same class works on the same network more than once.
    :param verbose: Verbosity level: 0 for no output, 1 for a line per change.
    :raises ValueError: on a network, a layer or a name that is not a string; at the start of training, on an unknown network,
        a layer to exclude that does not exist, or a model that trains without gradients
    """

    def __init__(
        self, network: str | Sequence[str], *, exclude: Sequence[str] = (), name: str | None = None, verbose: int = 0
    ) -> None:
        super().__init__(verbose)
        names = check_names("network", network)
        self.network = network if isinstance(network, str) else names
        self.exclude = tuple(check_names("exclude", exclude))
        if name is not None and not isinstance(name, str):
            raise ValueError(f"name={name!r} must be a string")
        self.name = name
        #: The layers by network and full name, once training has begun.
        self.layers: dict[str, dict[str, MaskedLayer]] = {}
        #: Recorded at every rollout's end, because SB3 clears its record at every dump.
        self._log: dict[str, float] = {}

    @abstractmethod
    def _arguments(self) -> dict[str, object]:
        """
        :return: The arguments, other than network and name, that make a difference for a run, as printable values
        """

    @abstractmethod
    def _update(self) -> None:
        """Change the layers if it is time to; called before training and after every step, so it must be cheap."""

    @property
    def timestep(self) -> int:
        """Environment steps since this callback's first run on the model, even if SB3 has reset ``num_timesteps``."""
        return self._clock.timestep

    def _look(self) -> None:
        """Make the layers' weights true: a model that trains in the engine writes them when it is asked for its policy."""
        _ = self.model.policy

    @property
    def _holds_masks(self) -> bool:
        """Whether the model keeps pruned weights at zero by itself, as one that trains in the engine does."""
        return getattr(self.model, "holds_masks", False)

    def _select_layers(self) -> dict[str, dict[str, Layer]]:
        """
        :return: The layers to change, by network and full name
        :raises ValueError: if there are none, or this callback would miss steps
        """
        policy = self.model.policy
        selected = select_networks(policy, self.network, self.exclude)
        self._optimizers = find_optimizers(policy)
        if not self._optimizers:
            raise ValueError(
                f"{type(self.model).__name__} trains without gradients, so {type(self).__name__} cannot work on it"
            )
        if isinstance(self.parent, EventCallback):
            raise ValueError(
                f"{type(self).__name__} cannot be inside another callback such as {type(self.parent).__name__}, because it "
                "would miss steps: put it into the list itself, and first"
            )
        # No name selects them, so those outside the selected networks are named as well.
        if overlooked := overlooked_layers(policy):
            warnings.warn(
                "these layers stay as they are and do not count, because they are not plain nn.Linear, nn.Conv1d, "
                f"nn.Conv2d or nn.LSTM: {overlooked}",
                stacklevel=2,
            )
        return selected

    def _open_run(self, selected: dict[str, dict[str, Layer]], *, with_masks: bool) -> Run:
        """
        :param selected: The layers to change.
        :param with_masks: Whether this callback saves masks.
        :return: The run that this callback continues, or a new one; the layers do not change before it starts
        """
        scope: dict[str, object] = {"network": list(selected)}
        if self.name is not None:
            scope["name"] = self.name
        run = Run(self.model, selected, Identity(type(self), scope, self._arguments()), with_masks=with_masks)
        self._clock = run.clock
        return run

    def _on_training_start(self) -> None:
        self._update()

    def _on_step(self) -> bool:
        self._clock.tick()
        self._update()
        return True

    def _on_training_end(self) -> None:
        # rl-zoo3 calls this twice, and also when training has failed to start.
        if self.layers:
            self._end()

    def _end(self) -> None:
        """The end of a training that has started; it may be called twice."""

    def _on_rollout_end(self) -> None:
        for key, value in self._log.items():
            self.logger.record(key, value)
