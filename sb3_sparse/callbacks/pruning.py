"""Pruning: weights are taken away, at once or gradually, and never come back."""

import warnings
from collections.abc import Mapping, Sequence
from math import ceil

import torch as th

from sb3_sparse.callbacks.arguments import check_count, check_moment, name_of
from sb3_sparse.callbacks.pruning_base import PruningCallback
from sb3_sparse.nn import Layer, MaskedLayer
from sb3_sparse.sparsity import ChosenDistribution, Cubic, Saliency, check_choice, check_sparsity, find_lambdas


class OneShotPruningCallback(PruningCallback):
    """
    Prune once, and train what is left.

    With ``at=0`` the networks are sparse before the first step: static sparse training if the saliency is "random".

        model.learn(100_000, callback=OneShotPruningCallback("actor", 0.9, saliency="random"))

    Saliencies "snip" and "grasp" need a batch of data. Offline the dataset is there before the first step. Online the networks
    stay dense until the replay buffer has been filled, and are pruned just before they are first trained.

    :param network: Name of a network under ``model.policy`` ("actor", "critic", "q_net", "mlp_extractor", ...), a list,
        or "all".
    :param sparsity: Share of zeros that each network is to have, in [0, 1). None where the distribution fixes the counts by
        lambdas, and only there: ``{"erdos_renyi": {"lambdas": [7, 64]}}``.
    :param at: When: a share of the run if a float, environment steps if an int.
    :param saliency: Which weights to keep: "magnitude", "random", "magnitude_by_sign", or a function; or "snip" or "grasp",
        which rank each network by its own loss on a batch of data.
    :param distribution: How many each layer keeps: ``"uniform"``, ``"erdos_renyi"``, ``"erk"``, ``"global_"``, a mapping of
        one name to its arguments, or a function. None takes ``"global_"`` for "snip" and "grasp", ``"erk"`` for all others.
    :param exclude: Layers to leave dense, as shell patterns: "actor.mu", "mu", "qf*.4". They do not count in the sparsity.
    :param targets: "mask" gives target networks the mask of their online twin, "topk" when it prunes, then leaves them to a
        :class:`RewiringCallback`; "polyak" leaves them to the averaging.
    :param n_samples: Transitions in the batch for a saliency that needs data: by default 100 for "snip" and 200 for "grasp". A
        function of one's own is given a loss if this is set.
    :param seed: Seed of the saliencies and batches that are drawn; the model's seed by default.
    :param verbose: Verbosity level: 0 for no output, 1 for a line when it prunes.
    :raises ValueError: on a sparsity outside [0, 1), none where one is needed or one beside lambdas, an unknown name, a
        distribution whose counts are drawn with a saliency other than "random", or ``n_samples`` for a saliency without
        data; at the start of training on an unknown network, a sparsity that leaves a layer without weights, lambdas that do
        not fit the layers, or a network or an algorithm without a loss for a saliency that needs data
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
    ) -> None:
        super().__init__(
            network,
            saliency=saliency,
            distribution=distribution,
            exclude=exclude,
            targets=targets,
            n_samples=n_samples,
            seed=seed,
            verbose=verbose,
        )
        self._share = check_choice(self.distribution, sparsity, self.saliency)
        self.sparsity = None if sparsity is None else self._share
        self.at = check_moment("at", at)

    def _arguments(self) -> dict[str, object]:
        return {"sparsity": self.sparsity, "at": self.at, **super()._arguments()}

    @property
    def _highest_sparsity(self) -> float:
        return self._share

    def _start(self, clock: dict[str, int]) -> None:
        super()._start(clock)
        clock.setdefault("at", self._resolve(self.at))
        clock.setdefault("updates", 0)

    def _update(self) -> None:
        if self._clock["updates"] == 0 and self.timestep >= self._clock["at"] and self._is_ready():
            before = {network: _count(layers) for network, layers in self.layers.items()}
            self._prune(self._share, draw=0)
            self._clock["updates"] = 1
            if self.sparsity != 0.0:
                self._warn_of_nothing(before)

    def _warn_of_nothing(self, before: dict[str, int]) -> None:
        """
        Say so where nothing was pruned that should have been.

        :param before: Number of weights by network before pruning.
        """
        lambdas = find_lambdas(self.distribution)
        asked = f"the {self.sparsity}" if lambdas is None else f"the lambdas {lambdas}"
        for network, layers in self.layers.items():
            scores = {name: th.zeros_like(layer.weight) for name, layer in layers.items()}
            kept, total = _count(layers), sum(score.numel() for score in scores.values())
            if kept < before[network]:
                continue
            if kept == total:
                cause = f"a sparsity of {self.sparsity} keeps" if lambdas is None else f"lambdas {lambdas} keep"
                warnings.warn(f"{cause} every layer of network '{network}' dense", stacklevel=2)
            elif kept < sum(self._distribution_of(network, layers)(scores, self._share).values()):
                warnings.warn(
                    f"network '{network}' has a sparsity of {1.0 - kept / total:.2f} already, more than {asked} asked for, "
                    "and pruning brings no weight back",
                    stacklevel=2,
                )


class GradualPruningCallback(PruningCallback):
    """
    Gradual pruning: sparsity follows a cubic schedule during training (Zhu & Gupta 2017; Graesser et al. 2022 and
    Ivanov et al. 2025 for reinforcement learning, where pruning runs from 20 % to 80 % of the run). At the steps
    t in {start, start + update_freq, ..., end}:

        sparsity(t) = final + (initial - final) * (1 - (t - start) / (end - start))**3

    A complete example:

        model = SAC("MlpPolicy", "Pendulum-v1")
        model.learn(10_000, callback=GradualPruningCallback("actor", final_sparsity=0.9))
        model.save("sparse_agent")  # a plain SB3 zip

    Until the first weight is pruned, training is bit-identical to a run without the callback.

    :param network: Name of a network under ``model.policy`` ("actor", "critic", "q_net", "mlp_extractor", ...), a list,
        or "all".
    :param final_sparsity: Share of zeros that each network has in the end, in [0, 1).
    :param start: When pruning begins: a share of the run if a float, environment steps if an int.
    :param end: When the final sparsity is reached: likewise.
    :param update_freq: Environment steps between two prunings.
    :param saliency: Which weights to keep: "magnitude", "random", "magnitude_by_sign", or a function; or "snip" or "grasp",
        which see a new batch of data at each pruning, of their default size.
    :param distribution: How many each layer keeps: ``"uniform"``, ``"erdos_renyi"``, ``"erk"``, ``"global_"``, a mapping of
        one name to its arguments, or a function. None takes ``"global_"`` for "snip" and "grasp", ``"erk"`` for all others.
    :param exclude: Layers to leave dense, as shell patterns: "actor.mu", "mu", "qf*.4". They do not count in the sparsity.
    :param targets: "mask" gives target networks the mask of their online twin, "topk" when it prunes, then leaves them to a
        :class:`RewiringCallback`; "polyak" leaves them to the averaging.
    :param initial_sparsity: Share of zeros from the first step until ``start``, in [0, final_sparsity].
    :param verbose: Verbosity level: 0 for no output, 1 for a line at every pruning.
    :raises ValueError: on a sparsity outside [0, 1), an ``end`` before the ``start`` or an unknown name; at the start of
        training on an unknown network, a sparsity that leaves a layer without weights, or a network or an algorithm without
        a loss for a saliency that needs data
    """

    def __init__(
        self,
        network: str | Sequence[str],
        final_sparsity: float,
        start: float | int = 0.2,
        end: float | int = 0.8,
        update_freq: int = 1000,
        saliency: str | Saliency = "magnitude",
        distribution: ChosenDistribution | None = None,
        exclude: Sequence[str] = (),
        targets: str = "mask",
        initial_sparsity: float = 0.0,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            network,
            saliency=saliency,
            distribution=distribution,
            exclude=exclude,
            targets=targets,
            n_samples=None,
            seed=None,
            verbose=verbose,
        )
        self.final_sparsity = check_sparsity(final_sparsity)
        self.initial_sparsity = check_sparsity(initial_sparsity)
        if self.initial_sparsity > self.final_sparsity:
            raise ValueError(f"initial_sparsity={initial_sparsity} is more than final_sparsity={final_sparsity}")
        self.start = check_moment("start", start)
        self.end = check_moment("end", end)
        if type(self.start) is type(self.end):
            _check_order(self.start, self.end)
        self.update_freq = check_count("update_freq", update_freq, least=1)

    def _arguments(self) -> dict[str, object]:
        own = ("final_sparsity", "start", "end", "update_freq", "initial_sparsity")
        return {name: getattr(self, name) for name in own} | super()._arguments()

    @property
    def _highest_sparsity(self) -> float:
        return self.final_sparsity

    def _check(self, selected: dict[str, dict[str, Layer]]) -> None:
        super()._check(selected)
        for network, layers in selected.items():
            scores = {name: th.zeros_like(layer.weight) for name, layer in layers.items()}
            everything = {name: score.numel() for name, score in scores.items()}
            distribution = self._distribution_of(network, layers)
            if find_lambdas(self.distribution) is not None or distribution(scores, 0.0) != everything:
                raise ValueError(
                    f"network '{network}': distribution '{name_of(self.distribution)}' has fixed counts, which cannot be "
                    "reached gradually: use OneShotPruningCallback"
                )

    def _start(self, clock: dict[str, int]) -> None:
        super()._start(clock)
        start, end = clock.get("start", self._resolve(self.start)), clock.get("end", self._resolve(self.end))
        _check_order(start, end)
        clock.update(start=start, end=end)
        clock.setdefault("updates", 0)
        self._schedule = Cubic(self.final_sparsity, self.initial_sparsity, start=clock["start"], end=clock["end"])

    def _update(self) -> None:
        start, end = self._clock["start"], self._clock["end"]
        # Update 1 is due at the start, update 1 + n at the end; several environments may step over the exact moment.
        if self.timestep < start:
            due = int(self.initial_sparsity > 0)
        elif self.timestep < end:
            due = 1 + (self.timestep - start) // self.update_freq
        else:
            due = 1 + ceil((end - start) / self.update_freq)
        if due > self._clock["updates"] and self._is_ready():
            self._prune(self._schedule(min(start + (due - 1) * self.update_freq, end)), draw=due)
            self._clock["updates"] = due

    def _on_training_end(self) -> None:
        super()._on_training_end()
        if self.verbose > 0 and self.timestep < self._clock["end"]:
            print(f"{type(self).__name__}: stopped at step {self.timestep}, before pruning ends at {self._clock['end']}")

    def _on_rollout_end(self) -> None:
        super()._on_rollout_end()
        for network in self.layers:
            self.logger.record(f"sparsity/{network}_schedule", self._schedule(self.timestep))


def _count(layers: Mapping[str, MaskedLayer]) -> int:
    """Number of weights that exist."""
    return sum(int(layer.mask.sum()) for layer in layers.values())


def _check_order(start: float | int, end: float | int) -> None:
    if end < start:
        raise ValueError(f"pruning would end before it starts: start={start}, end={end}")
