"""The ranking of weights and the masks that follow from it: an object that a pruning callback has."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, cast

import torch as th
from sb3_contrib import TRPO
from torch.optim import Optimizer

from sb3_sparse.callbacks.arguments import check_count, name_of
from sb3_sparse.callbacks.pruning.losses import check_losses, find_losses, has_data
from sb3_sparse.nn import Layer, MaskedLayer, find_parts, second_moments
from sb3_sparse.sparsity import (
    MOMENTS,
    SALIENCIES,
    ChosenDistribution,
    Distribution,
    Loss,
    Named,
    Saliency,
    by_parts,
    default_samples,
    find_distribution,
    prune_to,
)
from sb3_sparse.state import draw_generator

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


class Pruner:
    """
    Makes the masks of networks: a saliency, its data, a distribution, and a seed.

    A saliency that needs data ranks each network by the network's own loss on one batch: of the dataset of an offline
    algorithm, or of the replay buffer of SAC, TD3, DDPG or DQN. A network with ``parts`` (see
    :func:`~sb3_sparse.nn.find_parts`) is ranked part by part.

    :param saliency: Which weights to keep: a name in ``SALIENCIES``, or a function.
    :param distribution: How many weights each layer keeps: a name in ``DISTRIBUTIONS``, a mapping of one name to its
        arguments, or a function. Each network has its own budget. None means ``"global_"`` for "snip" and "grasp", whose
        scores compare between layers, and ``"erk"`` for all others.
    :param n_samples: Transitions in the batch of a saliency that needs data; None means the saliency's default, which for a
        user's own function is to get no data.
    :param seed: Seed of random scores and batches; None means the model's seed.
    :raises ValueError: on an unknown saliency or distribution, arguments that the distribution does not have, or ``n_samples``
        for a saliency without data
    """

    def __init__(
        self,
        saliency: str | Saliency,
        distribution: ChosenDistribution | None,
        n_samples: int | None,
        seed: int | None,
    ) -> None:
        if isinstance(saliency, str) and saliency not in SALIENCIES:
            raise ValueError(f"unknown saliency '{saliency}': use one of {', '.join(SALIENCIES)}")
        if not isinstance(saliency, str) and not callable(saliency):
            raise ValueError(f"a saliency is a name or a function, got {saliency!r}")
        self.saliency = SALIENCIES[saliency] if isinstance(saliency, str) else saliency
        wanted = default_samples(self.saliency)
        if wanted is None and self.saliency in SALIENCIES.values() and n_samples is not None:
            raise ValueError(f"saliency '{name_of(saliency)}' needs no data: leave out n_samples={n_samples}")
        self.n_samples = wanted if n_samples is None else check_count("n_samples", n_samples, least=1)
        if distribution is None:
            distribution = "erk" if wanted is None else "global_"
        self.distribution = find_distribution(distribution)
        self.seed = None if seed is None else check_count("seed", seed, least=0)

    def arguments(self) -> dict[str, object]:
        """
        :return: The arguments as printable values
        """
        data = {} if self.n_samples is None else {"n_samples": self.n_samples}
        own = {"saliency": name_of(self.saliency), "distribution": name_of(self.distribution), "seed": self.seed}
        return {**own, **data}

    def check(
        self,
        model: "BaseAlgorithm",
        selected: dict[str, dict[str, Layer]],
        optimizers: Iterable[Optimizer],
        sparsity: float,
    ) -> None:
        """
        Check the arguments against the model, before anything is changed.

        :param model: The model.
        :param selected: Its layers to prune, masked or not, by network and full name.
        :param optimizers: Optimizers of the model.
        :param sparsity: The highest sparsity of the run.
        :raises ValueError: if a layer would lose all its weights, or the saliency does not get what it needs
        """
        for network, layers in selected.items():
            try:
                self.count(model, network, {name: layer.weight for name, layer in layers.items()}, sparsity)
            except ValueError as error:
                raise ValueError(f"network '{network}': {error}") from error
        if self.n_samples is not None:
            check_losses(model, selected, self.n_samples)
        every = {name: layer for layers in selected.values() for name, layer in layers.items()}
        frozen = [name for name, layer in every.items() if not layer.weight.requires_grad]
        if frozen and default_samples(self.saliency) is not None:
            raise ValueError(
                f"saliency '{name_of(self.saliency)}' needs gradients, so exclude the layers without any: {frozen}"
            )
        if self._reads_moments():
            if isinstance(model, TRPO):
                raise ValueError(f"saliency '{name_of(self.saliency)}' reads Adam, and TRPO updates its actor without it")
            second_moments({name: layer.weight for name, layer in every.items()}, optimizers)

    def count(self, model: "BaseAlgorithm", network: str, weights: Named, sparsity: float) -> dict[str, int]:
        """
        :param model: The model.
        :param network: Name of a network.
        :param weights: Weights of its layers by full name.
        :param sparsity: Share of zeros.
        :return: Weights that each layer would keep if it had all of them and all had the same score
        """
        scores = {name: th.zeros_like(weight) for name, weight in weights.items()}
        return self._distribution(model, network, weights)(scores, sparsity)

    def missing(
        self, model: "BaseAlgorithm", layers: dict[str, dict[str, MaskedLayer]], optimizers: Iterable[Optimizer]
    ) -> str | None:
        """
        :param model: The model.
        :param layers: Its layers to prune, by network and full name.
        :param optimizers: Optimizers of the model.
        :return: In words, the data that the saliency needs and that there is not yet; None if there is everything
        """
        if self.n_samples is not None and not has_data(model):
            return "there was a batch of data to rank the weights by"
        if self._reads_moments():
            weights: Named = {name: layer.weight for network in layers.values() for name, layer in network.items()}
            if any(moment is None for moment in second_moments(weights, optimizers).values()):
                return "Adam had updated all weights that are to be ranked"
        return None

    def losses(self, model: "BaseAlgorithm", seed: int, draw: int) -> dict[str, Loss]:
        """
        :param model: The model.
        :param seed: Seed of the run.
        :param draw: Number of the pruning.
        :return: The loss of each network on one batch; none if the saliency needs no data
        """
        if self.n_samples is None:
            return {}
        return find_losses(model, self.n_samples, draw_generator(seed, draw, "losses"))

    def masks(
        self,
        model: "BaseAlgorithm",
        network: str,
        layers: dict[str, MaskedLayer],
        optimizers: Iterable[Optimizer],
        sparsity: float,
        *,
        loss: Loss | None,
        generator: th.Generator,
    ) -> Named:
        """
        :param model: The model.
        :param network: Name of a network.
        :param layers: Its layers by full name.
        :param optimizers: Optimizers of the model.
        :param sparsity: Share of zeros.
        :param loss: The loss of the network, if the saliency needs data.
        :param generator: Generator of random scores.
        :return: New masks by full layer name, subsets of the old ones
        :raises ValueError: if the sparsity is infeasible
        """
        weights: Named = {name: layer.weight for name, layer in layers.items()}
        saliency = self.saliency
        if self._reads_moments():
            moments = second_moments(weights, optimizers)
            saliency = partial(cast(Callable[..., Named], saliency), second_moments=moments)
        return prune_to(
            weights,
            {name: layer.mask for name, layer in layers.items()},
            sparsity,
            saliency=saliency,
            distribution=self._distribution(model, network, layers),
            loss=loss,
            generator=generator,
        )

    def _distribution(self, model: "BaseAlgorithm", network: str, layers: Iterable[str]) -> Distribution:
        return by_parts(self.distribution, find_parts(model.policy, network, layers))

    def _reads_moments(self) -> bool:
        return self.saliency in [SALIENCIES[name] for name in MOMENTS]
