"""What the pruning callbacks share: a saliency, its data, a distribution, and draws that can be resumed."""

import warnings
from abc import abstractmethod
from collections.abc import Iterable, Sequence

import torch as th

from sb3_sparse.callbacks.arguments import check_count, name_of
from sb3_sparse.callbacks.base import SparsityCallback
from sb3_sparse.callbacks.losses import check_losses, find_losses, has_data
from sb3_sparse.nn import Layer, find_parts
from sb3_sparse.sparsity import (
    SALIENCIES,
    ChosenDistribution,
    Distribution,
    Loss,
    Saliency,
    by_parts,
    default_samples,
    find_distribution,
    prune_to,
    snip,
)
from sb3_sparse.state.seeding import draw_generator, first_seed

#: A layer is as good as empty if its density is less than this share of its network's.
NEAR_EMPTY = 0.1


class PruningCallback(SparsityCallback):
    """
    Base class of the pruning callbacks: a saliency, its data, a distribution, and a source of draws that can be
    resumed.

    A saliency that needs data ranks each network by that network's own loss on one batch: of the dataset of an offline
    algorithm, or of the replay buffer of SAC, TD3, DDPG or DQN. What is due before there is a batch is done as soon as there
    is one, just before training begins. All networks are ranked before the first of them is pruned.

    A network that declares ``parts`` (see :func:`~sb3_sparse.nn.find_parts`) is ranked part by part.

    :param network: See :class:`SparsityCallback`.
    :param saliency: Which weights to keep: a name in ``SALIENCIES``, or a function.
    :param distribution: How many each layer keeps: a name in ``DISTRIBUTIONS``, a mapping of one name to its arguments, or
        a function. Each network has its own budget. None takes ``"global_"`` for "snip" and "grasp", whose scores compare
        between layers, and ``"erk"`` for all others.
    :param exclude: See :class:`SparsityCallback`.
    :param targets: See :class:`SparsityCallback`.
    :param n_samples: Transitions in the batch of a saliency that needs data; None takes what it wants by default, which for a
        user's own function is to see no data.
    :param seed: Seed of the saliencies and batches that are drawn; the model's seed by default.
    :param verbose: See :class:`SparsityCallback`.
    :raises ValueError: on an unknown saliency or distribution, arguments that the distribution does not have, or ``n_samples``
        for a saliency without data; at the start of training if a saliency needs data and a network has no loss
    """

    def __init__(
        self,
        network: str | Sequence[str],
        *,
        saliency: str | Saliency,
        distribution: ChosenDistribution | None,
        exclude: Sequence[str],
        targets: str,
        n_samples: int | None,
        seed: int | None,
        verbose: int,
    ) -> None:
        super().__init__(network, exclude=exclude, targets=targets, verbose=verbose)
        if isinstance(saliency, str) and saliency not in SALIENCIES:
            raise ValueError(f"unknown saliency '{saliency}': use one of {', '.join(SALIENCIES)}")
        self.saliency = SALIENCIES[saliency] if isinstance(saliency, str) else saliency
        wanted = default_samples(self.saliency)
        if wanted is None and self.saliency in SALIENCIES.values() and n_samples is not None:
            raise ValueError(
                f"saliency '{name_of(saliency)}' needs no data, so there is nothing to take n_samples={n_samples} of"
            )
        self.n_samples = wanted if n_samples is None else check_count("n_samples", n_samples, least=1)
        if distribution is None:
            distribution = "erk" if wanted is None else "global_"
        self.distribution = find_distribution(distribution)
        self.seed = None if seed is None else check_count("seed", seed, least=0)
        self._waiting = False
        self._warned: set[str] = set()

    def _arguments(self) -> dict[str, object]:
        data = {} if self.n_samples is None else {"n_samples": self.n_samples}
        own = {"saliency": name_of(self.saliency), "distribution": name_of(self.distribution), "seed": self.seed}
        return {**own, **data}

    def _start(self, clock: dict[str, int]) -> None:
        self._waiting = False
        if "seed" not in clock:
            clock["seed"] = first_seed(self.seed, self.model)

    @property
    @abstractmethod
    def _highest_sparsity(self) -> float:
        """The highest sparsity of the run."""

    def _check(self, selected: dict[str, dict[str, Layer]]) -> None:
        for network, layers in selected.items():
            scores = {name: th.zeros_like(layer.weight) for name, layer in layers.items()}
            try:
                self._distribution_of(network, layers)(scores, self._highest_sparsity)
            except ValueError as error:
                raise ValueError(f"network '{network}': {error}") from error
        if self.n_samples is not None:
            check_losses(self.model, selected, self.n_samples)
        frozen = [name for layers in selected.values() for name, layer in layers.items() if not layer.weight.requires_grad]
        if frozen and default_samples(self.saliency) is not None:
            raise ValueError(f"saliency '{name_of(self.saliency)}' needs gradients, so leave out what has none: {frozen}")

    def _distribution_of(self, network: str, layers: Iterable[str]) -> Distribution:
        return by_parts(self.distribution, find_parts(self.model.policy, network, layers))

    def _is_ready(self) -> bool:
        """Whether there is what the saliency needs; asked when a pruning is due."""
        self._waiting = self.n_samples is not None and not has_data(self.model)
        return not self._waiting

    def _on_rollout_end(self) -> None:
        if self._waiting:
            # Just before train(): the first step of all is stored only now.
            self._update()
        super()._on_rollout_end()

    def _on_training_end(self) -> None:
        super()._on_training_end()
        if self._waiting:
            self._waiting = False
            warnings.warn(
                f"{type(self).__name__}: training has ended before there was a batch of data to rank the weights by, so "
                "nothing was pruned: let it go on beyond learning_starts",
                stacklevel=2,
            )

    def _prune(self, sparsity: float, draw: int) -> None:
        """
        :param sparsity: Share of zeros that each network is to have.
        :param draw: Number of this update: together with the seed it fixes what is drawn, so no generator has to be saved.
        """
        losses = {}
        if self.n_samples is not None:
            losses = find_losses(self.model, self.n_samples, draw_generator(self._clock["seed"], draw, "losses"))
        masks = {
            network: prune_to(
                {name: layer.weight for name, layer in layers.items()},
                {name: layer.mask for name, layer in layers.items()},
                sparsity,
                saliency=self.saliency,
                distribution=self._distribution_of(network, layers),
                loss=losses.get(network),
                generator=draw_generator(self._clock["seed"], draw, network),
            )
            for network, layers in self.layers.items()
        }
        # A loss of one network may depend on the others, so all are ranked before any is changed.
        for network in self.layers:
            self._apply(network, masks[network], rules=("mask", "topk"))
            self._warn_of_near_empty(network)
        for network, loss in losses.items():
            self._warn_of_cut(network, loss)
        if self.verbose > 0:
            done = ", ".join(f"{network} {self._log[f'sparsity/{network}']:.4f}" for network in self.layers)
            print(f"{type(self).__name__}: step {self.timestep}, sparsity of {done}")

    def _warn_of_cut(self, network: str, loss: Loss) -> None:
        """Say so, once, where nothing that is left of a network can change its loss."""
        weights = {name: layer.weight for name, layer in self.layers.get(network, {}).items()}
        said = f"{network} cut off"
        if weights and said not in self._warned and not any(bool(score.any()) for score in snip(weights, loss).values()):
            self._warned.add(said)
            warnings.warn(
                f"pruning has cut network '{network}' off from its loss, whose gradient is zero now in all of its weights: "
                "normalize observations (VecNormalize), or take a lower sparsity or another distribution, such as 'erk'",
                stacklevel=2,
            )

    def _warn_of_near_empty(self, network: str) -> None:
        """Say so, once, where a layer has next to no weights left while its network has many."""
        if network in self._warned:
            return
        sizes = {name: layer.mask.numel() for name, layer in self.layers[network].items()}
        kept = {name: int(layer.mask.sum()) for name, layer in self.layers[network].items()}
        density = sum(kept.values()) / sum(sizes.values())
        most = max(kept.values())
        share = {name: density * size for name, size in sizes.items()}
        empty = [
            f"'{name}' ({kept[name]} of {sizes[name]})"
            for name in sizes
            if kept[name] < NEAR_EMPTY * share[name] or (kept[name] == 1 < most and share[name] >= 2)
        ]
        if empty:
            self._warned.add(network)
            warnings.warn(
                f"pruning has left network '{network}' with {density:.1%} of its weights, but next to none in "
                f"{', '.join(empty)}: leave these layers out (exclude), or take a lower sparsity or a distribution that "
                "spares them, such as 'erk'",
                stacklevel=2,
            )
