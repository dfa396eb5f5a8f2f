"""Gradual pruning: sparsity follows a schedule during training."""

from collections.abc import Sequence
from math import ceil

from sb3_sparse.callbacks.arguments import check_count, check_moment, name_of
from sb3_sparse.callbacks.pruning.callback import PruningCallback
from sb3_sparse.callbacks.pruning.pruner import Pruner
from sb3_sparse.nn import Layer
from sb3_sparse.sparsity import SCHEDULES, ChosenDistribution, Saliency, check_schedule, check_sparsity, find_lambdas


class GradualPruningCallback(PruningCallback):
    """
    Gradual pruning: sparsity follows a schedule during training, a cubic one by default (Zhu & Gupta 2017; Graesser et al.
    2022 and Ivanov et al. 2025 for reinforcement learning, where pruning goes on from 20 % to 80 % of the run). At the steps
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
    :param saliency: Which weights to keep: a name in :data:`~sb3_sparse.sparsity.SALIENCIES`, or a function. Saliencies "snip"
        and "grasp" rank each network by its own loss on a batch of data, drawn anew for every pruning.
    :param distribution: How many weights each layer keeps: a name in :data:`~sb3_sparse.sparsity.DISTRIBUTIONS`, a mapping of
        one name to its arguments, or a function. None means ``"global_"`` for "snip" and "grasp", ``"erk"`` for all others.
    :param exclude: Layers to leave dense, as shell patterns: "actor.mu", "mu", "qf*.4". They do not count in the sparsity.
    :param targets: Rule for target networks: "mask" gives them the mask of the online network; "topk" does so when it prunes,
        and then leaves them to a :class:`RewiringCallback`; "polyak" leaves the soft update as it is.
    :param initial_sparsity: Share of zeros from the first step until ``start``, in [0, final_sparsity].
    :param verbose: Verbosity level: 0 for no output, 1 for a line at every pruning.
    :param schedule: The way from the initial to the final sparsity: a name in :data:`~sb3_sparse.sparsity.SCHEDULES`.
    :param name: Name of the run, if this class works on the same network more than once.
    :raises ValueError: on a sparsity outside [0, 1), an ``end`` before the ``start`` or an unknown name; at the start of
        training on an unknown network, a sparsity that leaves a layer without weights, or a network, an algorithm or an
        optimizer that does not provide what the saliency needs
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
        *,
        schedule: str = "cubic",
        name: str | None = None,
    ) -> None:
        pruner = Pruner(saliency, distribution, None, None)
        super().__init__(network, pruner, exclude=exclude, targets=targets, name=name, verbose=verbose)
        self.final_sparsity = check_sparsity(final_sparsity)
        self.initial_sparsity = check_sparsity(initial_sparsity)
        if self.initial_sparsity > self.final_sparsity:
            raise ValueError(f"initial_sparsity={initial_sparsity} is more than final_sparsity={final_sparsity}")
        self.start = check_moment("start", start)
        self.end = check_moment("end", end)
        if type(self.start) is type(self.end):
            _check_order(self.start, self.end)
        self.update_freq = check_count("update_freq", update_freq, least=1)
        self.schedule = check_schedule("schedule", schedule)

    def _arguments(self) -> dict[str, object]:
        own = ("final_sparsity", "start", "end", "update_freq", "initial_sparsity")
        return {
            **super()._arguments(),
            **{name: getattr(self, name) for name in own},
            **self.pruner.arguments(),
            "schedule": self.schedule,
        }

    @property
    def _highest_sparsity(self) -> float:
        return self.final_sparsity

    def _check(self, selected: dict[str, dict[str, Layer]]) -> None:
        super()._check(selected)
        distribution = self.pruner.distribution
        for network, layers in selected.items():
            weights = {name: layer.weight for name, layer in layers.items()}
            everything = {name: weight.numel() for name, weight in weights.items()}
            if find_lambdas(distribution) is not None or self.pruner.count(self.model, network, weights, 0.0) != everything:
                raise ValueError(
                    f"network '{network}': distribution '{name_of(distribution)}' has fixed counts, which cannot be "
                    "reached gradually: use OneShotPruningCallback"
                )

    def _set_moments(self) -> None:
        clock = self._clock.saved
        start = clock.get("start", self._clock.resolve(self.start))
        end = clock.get("end", self._clock.resolve(self.end))
        _check_order(start, end)
        clock.update(start=start, end=end)
        clock.setdefault("updates", 0)
        self._sparsity = SCHEDULES[self.schedule](self.final_sparsity, self.initial_sparsity, start, end)

    def _due(self) -> tuple[int, float]:
        """
        :return: Number of the update that is due, or was the last, and its sparsity. Update 1 is due at the start, update
            1 + n at the end; with an initial sparsity there is an update 1 before the start as well
        """
        start, end = self._clock.saved["start"], self._clock.saved["end"]
        if self.timestep < start:
            return int(self.initial_sparsity > 0), self.initial_sparsity
        # Several environments may step over the exact moment.
        number = 1 + (self.timestep - start) // self.update_freq
        if self.timestep >= end:
            number = 1 + ceil((end - start) / self.update_freq)
        return number, self._sparsity(min(start + (number - 1) * self.update_freq, end))

    def _update(self) -> None:
        clock = self._clock.saved
        number, sparsity = self._due()
        # Schedules that jump at the start need an update there, although the initial sparsity was update 1.
        jumps = number == clock["updates"] == 1 and sparsity > self.initial_sparsity > 0 and "jumped" not in clock
        if (number > clock["updates"] or jumps) and self._is_ready():
            self._prune(sparsity, draw=number)
            clock["updates"] = number
            if jumps:
                clock["jumped"] = 1

    def _on_rollout_end(self) -> None:
        super()._on_rollout_end()
        for network in self.layers:
            self.logger.record(f"sparsity/{network}_schedule", self._sparsity(self.timestep))

    def _end(self) -> None:
        super()._end()
        end = self._clock.saved["end"]
        if self.verbose > 0 and self.timestep < end:
            print(f"{type(self).__name__}: stopped at step {self.timestep}, before pruning ends at {end}")


def _check_order(start: float | int, end: float | int) -> None:
    if end < start:
        raise ValueError(f"pruning would end before it starts: start={start}, end={end}")
