"""One-shot pruning: once, before training or at some moment of it."""

import warnings
from collections.abc import Mapping, Sequence

from sb3_sparse.callbacks.arguments import check_moment
from sb3_sparse.callbacks.pruning.callback import PruningCallback
from sb3_sparse.callbacks.pruning.pruner import Pruner
from sb3_sparse.nn import MaskedLayer
from sb3_sparse.sparsity import ChosenDistribution, Saliency, check_choice, find_lambdas


class OneShotPruningCallback(PruningCallback):
    """
    Prune once, and train the weights that are left.

    With ``at=0`` the networks are sparse before the first step: static sparse training if the saliency is "random".

        model.learn(100_000, callback=OneShotPruningCallback("actor", 0.9, saliency="random"))

    Saliencies "snip" and "grasp" need a batch of data. Offline the dataset is there before the first step. Online the networks
    stay dense while the replay buffer is filled, and are pruned just before they are first trained. Saliency "fisher" reads
    Adam's second moments, so the networks stay dense until Adam has updated them.

    :param network: Name of a network under ``model.policy`` ("actor", "critic", "q_net", "mlp_extractor", ...), a list,
        or "all".
    :param sparsity: Share of zeros that each network gets, in [0, 1). It must be None exactly when the distribution has
        lambdas, which fix the counts: ``{"erdos_renyi": {"lambdas": [7, 64]}}``.
    :param at: When: a share of the run if a float, environment steps if an int.
    :param saliency: Which weights to keep: a name in :data:`~sb3_sparse.sparsity.SALIENCIES`, or a function.
    :param distribution: How many weights each layer keeps: a name in :data:`~sb3_sparse.sparsity.DISTRIBUTIONS`, a mapping of
        one name to its arguments, or a function. None means ``"global_"`` for "snip" and "grasp", ``"erk"`` for all others.
    :param exclude: Layers to leave dense, as shell patterns: "actor.mu", "mu", "qf*.4". They do not count in the sparsity.
    :param targets: Rule for target networks: "mask" gives them the mask of the online network; "topk" does so when it prunes,
        and then leaves them to a :class:`RewiringCallback`; "polyak" leaves the soft update as it is.
    :param n_samples: Transitions in the batch for a saliency that needs data: by default 100 for "snip" and 200 for "grasp". A
        user's own function gets a loss if this is set.
    :param seed: Seed of random scores and batches; the model's seed by default.
    :param verbose: Verbosity level: 0 for no output, 1 for a line when it prunes.
    :param name: Name of the run, if this class works on the same network more than once.
    :raises ValueError: on a sparsity outside [0, 1), one that is missing or given in addition to lambdas, an unknown name, a
        distribution whose counts are drawn with a saliency other than "random", or ``n_samples`` for a saliency without
        data; at the start of training on an unknown network, a sparsity that leaves a layer without weights, lambdas that do
        not fit the layers, or a network, an algorithm or an optimizer that does not provide what the saliency needs
    """

    def __init__(
        self,
        network: str | Sequence[str],
        sparsity: float | None,
        at: float | int = 0,
        saliency: str | Saliency = "magnitude",
        distribution: ChosenDistribution | None = None,
        exclude: Sequence[str] = (),
        targets: str = "mask",
        n_samples: int | None = None,
        seed: int | None = None,
        verbose: int = 0,
        *,
        name: str | None = None,
    ) -> None:
        pruner = Pruner(saliency, distribution, n_samples, seed)
        super().__init__(network, pruner, exclude=exclude, targets=targets, name=name, verbose=verbose)
        #: The sparsity for the distribution; 0 where lambdas fix the counts.
        self._share = check_choice(pruner.distribution, sparsity, pruner.saliency)
        self.sparsity = None if sparsity is None else self._share
        self.at = check_moment("at", at)

    def _arguments(self) -> dict[str, object]:
        return {**super()._arguments(), "sparsity": self.sparsity, "at": self.at, **self.pruner.arguments()}

    @property
    def _highest_sparsity(self) -> float:
        return self._share

    def _set_moments(self) -> None:
        self._clock.saved.setdefault("at", self._clock.resolve(self.at))
        self._clock.saved.setdefault("updates", 0)

    def _update(self) -> None:
        clock = self._clock.saved
        if clock["updates"] == 0 and self.timestep >= clock["at"] and self._is_ready():
            before = {network: _count(layers) for network, layers in self.layers.items()}
            self._prune(self._share, draw=0)
            clock["updates"] = 1
            if self.sparsity != 0.0:
                self._warn_of_nothing(before)

    def _warn_of_nothing(self, before: dict[str, int]) -> None:
        """
        Warn of networks that should have been pruned and were not.

        :param before: Number of weights by network before pruning.
        """
        lambdas = find_lambdas(self.pruner.distribution)
        asked = f"the {self.sparsity}" if lambdas is None else f"the lambdas {lambdas}"
        for network, layers in self.layers.items():
            kept, total = _count(layers), sum(layer.mask.numel() for layer in layers.values())
            if kept < before[network]:
                continue
            if kept == total:
                cause = f"a sparsity of {self.sparsity} keeps" if lambdas is None else f"lambdas {lambdas} keep"
                warnings.warn(f"{cause} every layer of network '{network}' dense", stacklevel=2)
            elif kept < self._planned(network, layers):
                warnings.warn(
                    f"network '{network}' has a sparsity of {1.0 - kept / total:.2f} already, more than {asked} asked for, "
                    "and pruning never revives a weight",
                    stacklevel=2,
                )

    def _planned(self, network: str, layers: Mapping[str, MaskedLayer]) -> int:
        """Number of weights that a dense network would have kept."""
        weights = {name: layer.weight for name, layer in layers.items()}
        return sum(self.pruner.count(self.model, network, weights, self._share).values())


def _count(layers: Mapping[str, MaskedLayer]) -> int:
    """Number of weights that exist."""
    return sum(int(layer.mask.sum()) for layer in layers.values())
