"""The base class of the pruning callbacks: it waits for data to rank weights with, and prunes all networks."""

import warnings
from abc import abstractmethod
from collections.abc import Sequence

from sb3_sparse.callbacks.base import LayerCallback
from sb3_sparse.callbacks.masks import Masks, check_targets
from sb3_sparse.callbacks.pruning.pruner import Pruner
from sb3_sparse.callbacks.pruning.warn import warn_of_cut, warn_of_near_empty
from sb3_sparse.nn import Layer
from sb3_sparse.sparsity import Loss
from sb3_sparse.state import draw_generator, first_seed


class PruningCallback(LayerCallback):
    """
    Base class of the pruning callbacks. It works on any policy: the layers of a stock policy are masked in place, and its zip
    is still a plain SB3 zip. After ``learn()`` the layers stay masked, so the model stays sparse if it goes on training
    without the callback.

    A pruning that is due before there is data for its saliency takes place as soon as there is data, just before training
    begins. Put the callback first in a list of callbacks, so that the others save the pruned model.

    :param network: See :class:`LayerCallback`.
    :param pruner: Makes the masks.
    :param exclude: Layers to leave dense, as shell patterns: "actor.mu", "mu", "qf*.4". They do not count in the sparsity.
    :param targets: Rule for target networks: "mask" gives them the mask of the online network; "topk" does so when it prunes,
        and then leaves them to a :class:`RewiringCallback`; "polyak" leaves the soft update as it is.
    :param name: See :class:`LayerCallback`.
    :param verbose: See :class:`LayerCallback`.
    :raises ValueError: on an unknown rule; at the start of training if the arguments do not fit the model
    """

    def __init__(
        self,
        network: str | Sequence[str],
        pruner: Pruner,
        *,
        exclude: Sequence[str],
        targets: str,
        name: str | None,
        verbose: int,
    ) -> None:
        super().__init__(network, exclude=exclude, name=name, verbose=verbose)
        self.targets = check_targets(targets)
        self.pruner = pruner
        self.saliency, self.distribution = pruner.saliency, pruner.distribution
        self.n_samples, self.seed = pruner.n_samples, pruner.seed
        #: Words for the data that a pruning that is due waits for.
        self._waiting: str | None = None
        self._warned: set[str] = set()

    @property
    @abstractmethod
    def _highest_sparsity(self) -> float:
        """The highest sparsity of the run."""

    @abstractmethod
    def _set_moments(self) -> None:
        """
        Resolve the moments that are relative to this run. A resumed clock has them already.

        :raises ValueError: if they do not fit each other
        """

    def _arguments(self) -> dict[str, object]:
        return {"exclude": sorted(self.exclude), "targets": self.targets}

    def _check(self, selected: dict[str, dict[str, Layer]]) -> None:
        """Check the arguments against the model, before anything is changed."""
        self.pruner.check(self.model, selected, self._optimizers, self._highest_sparsity)

    def _init_callback(self) -> None:
        selected = self._select_layers()
        self._check(selected)
        run = self._open_run(selected, with_masks=True)
        if "seed" not in self._clock.saved:
            self._clock.saved["seed"] = first_seed(self.pruner.seed, self.model)
        self._set_moments()
        self._waiting = None
        self.layers = run.start()
        self._masks = Masks(
            self.model.policy,
            self.layers,
            self._optimizers,
            run.state,
            self._clock.key,
            targets=self.targets,
        )
        self._log = self._masks.reapply()

    def _is_ready(self) -> bool:
        """Whether there is data for the saliency; asked when a pruning is due."""
        self._look()
        self._waiting = self.pruner.missing(self.model, self.layers, self._optimizers)
        return self._waiting is None

    def _prune(self, sparsity: float, draw: int) -> None:
        """
        :param sparsity: Share of zeros that each network is to have.
        :param draw: Number of this pruning: together with the seed it determines all random numbers.
        """
        self._look()
        seed = self._clock.saved["seed"]
        losses = self.pruner.losses(self.model, seed, draw)
        # The loss of one network may depend on the others, so all are ranked before any is changed.
        masks = {
            network: self.pruner.masks(
                self.model,
                network,
                layers,
                self._optimizers,
                sparsity,
                loss=losses.get(network),
                generator=draw_generator(seed, draw, network),
            )
            for network, layers in self.layers.items()
        }
        for network in self.layers:
            self._log |= self._masks.change(network, masks[network], twins=self.targets in ("mask", "topk"))
        self._warn(losses)
        if self.verbose > 0:
            done = ", ".join(f"{network} {self._log[f'sparsity/{network}']:.4f}" for network in self.layers)
            print(f"{type(self).__name__}: step {self.timestep}, sparsity of {done}")

    def _warn(self, losses: dict[str, Loss]) -> None:
        """Warn of what the pruning has done to a network, once each."""
        for network, layers in self.layers.items():
            if network not in self._warned and warn_of_near_empty(network, layers):
                self._warned.add(network)
            cut = f"{network} cut off"
            if network in losses and cut not in self._warned and warn_of_cut(network, layers, losses[network]):
                self._warned.add(cut)

    def _on_rollout_start(self) -> None:
        # Just after train().
        if not self._holds_masks:
            self._masks.enforce()

    def _on_rollout_end(self) -> None:
        if self._waiting is not None:
            # Just before train(): the first step of all is stored only now.
            self._update()
        super()._on_rollout_end()

    def _end(self) -> None:
        # Just after the last train().
        self._look()
        self._masks.enforce()
        if self._waiting:
            warnings.warn(
                f"{type(self).__name__}: training has ended before {self._waiting}, so nothing was pruned: let it go on "
                "beyond learning_starts, or use a saliency without data",
                stacklevel=2,
            )
            self._waiting = None
