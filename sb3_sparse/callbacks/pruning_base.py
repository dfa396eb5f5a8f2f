"""What the pruning callbacks share: a saliency, a distribution, and draws that can be resumed."""

from abc import abstractmethod
from collections.abc import Sequence

import torch as th

from sb3_sparse.callbacks.arguments import check_count, name_of
from sb3_sparse.callbacks.base import SparsityCallback
from sb3_sparse.callbacks.draws import draw_generator, first_seed
from sb3_sparse.nn import Layer
from sb3_sparse.sparsity import SALIENCIES, ChosenDistribution, Saliency, find_distribution, prune_to


class PruningCallback(SparsityCallback):
    """
    Base class of the pruning callbacks: a saliency, a distribution, and a source of draws that can be resumed.

    :param network: See :class:`SparsityCallback`.
    :param saliency: Which weights to keep: a name in ``SALIENCIES``, or a function.
    :param distribution: How many each layer keeps: a name in ``DISTRIBUTIONS``, a mapping of one name to its arguments, or
        a function. Each network has its own budget.
    :param exclude: See :class:`SparsityCallback`.
    :param targets: See :class:`SparsityCallback`.
    :param seed: Seed of the saliencies that draw; the model's seed by default.
    :param verbose: See :class:`SparsityCallback`.
    :raises ValueError: on an unknown saliency or distribution, or arguments that the distribution does not have
    """

    def __init__(
        self,
        network: str | Sequence[str],
        *,
        saliency: str | Saliency,
        distribution: ChosenDistribution,
        exclude: Sequence[str],
        targets: str,
        seed: int | None,
        verbose: int,
    ) -> None:
        super().__init__(network, exclude=exclude, targets=targets, verbose=verbose)
        if isinstance(saliency, str) and saliency not in SALIENCIES:
            raise ValueError(f"unknown saliency '{saliency}': use one of {', '.join(SALIENCIES)}")
        self.saliency = SALIENCIES[saliency] if isinstance(saliency, str) else saliency
        self.distribution = find_distribution(distribution)
        self.seed = None if seed is None else check_count("seed", seed, least=0)

    def _arguments(self) -> dict[str, object]:
        return {"saliency": name_of(self.saliency), "distribution": name_of(self.distribution), "seed": self.seed}

    def _start(self, clock: dict[str, int]) -> None:
        if "seed" not in clock:
            clock["seed"] = first_seed(self.seed, self.model)

    @property
    @abstractmethod
    def _highest_sparsity(self) -> float:
        """The highest sparsity of the run."""

    def _check(self, selected: dict[str, dict[str, Layer]]) -> None:
        for network, layers in selected.items():
            try:
                self.distribution(
                    {name: th.zeros_like(layer.weight) for name, layer in layers.items()}, self._highest_sparsity
                )
            except ValueError as error:
                raise ValueError(f"network '{network}': {error}") from error

    def _prune(self, sparsity: float, draw: int) -> None:
        """
        :param sparsity: Share of zeros that each network is to have.
        :param draw: Number of this update: together with the seed it fixes what is drawn, so no generator has to be saved.
        """
        for network, layers in self.layers.items():
            masks = prune_to(
                {name: layer.weight.detach() for name, layer in layers.items()},
                {name: layer.mask for name, layer in layers.items()},
                sparsity,
                saliency=self.saliency,
                distribution=self.distribution,
                generator=draw_generator(self._clock["seed"], draw, network),
            )
            self._apply(network, masks, rules=("mask", "topk"))
        if self.verbose > 0:
            done = ", ".join(f"{network} {self._log[f'sparsity/{network}']:.4f}" for network in self.layers)
            print(f"{type(self).__name__}: step {self.timestep}, sparsity of {done}")
