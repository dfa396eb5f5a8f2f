"""Dynamic sparse training: the weights that exist move, and their number stays what it is."""

import math
import warnings
from collections.abc import Iterable, Sequence

import torch as th

from sb3_sparse.callbacks.arguments import check_count, check_moment
from sb3_sparse.callbacks.base import SparsityCallback
from sb3_sparse.callbacks.rewiring.growth import GROW, Growth, Pending
from sb3_sparse.callbacks.rewiring.topk import TopkFollower, follow_topk, unfollow
from sb3_sparse.callbacks.rewiring.topology import Topology
from sb3_sparse.nn import Layer, MaskedLayer
from sb3_sparse.sparsity import SALIENCIES, SAMPLES, Constant, Cosine, Named, Schedule
from sb3_sparse.state.restore import SavedLayers
from sb3_sparse.state.seeding import first_seed

FRACTION_SCHEDULES = ("constant", "cosine")


class RewiringCallback(SparsityCallback):
    """
    Dynamic sparse training: at every ``update_freq`` steps each sparse layer loses a fraction of its weights, those closest
    to zero, and grows as many elsewhere, which begin at zero. SET grows at random (Mocanu et al. 2018; DS-TD3: Sokar et al.
    2022), RigL where the gradient is largest (Evci et al. 2020; Graesser et al. 2022 for reinforcement learning).

    It moves the weights of a network that is sparse already: by a pruning callback before it in the list, or by a sparse
    policy. Dense layers stay as they are. DS-TD3 at half of the weights:

        static = OneShotPruningCallback("all", 0.5, saliency="random", targets="topk")
        model.learn(100_000, callback=[static, RewiringCallback("all")])

    A rewiring takes place between the gradient steps that follow environment step ``k * update_freq`` and the next
    environment step, and is left out if the model has not been trained since the last. A place that was dropped may be grown
    again; the weight then keeps its value. The gradients of RigL are those of the last minibatch before a rewiring; they are
    computed anyhow, and catching them costs nothing in between.

    What has been explored is logged: the share of weights that have ever existed (the ITOP rate of Liu et al. 2021), the share
    that the last rewiring has replaced, and the neurons with at least one weight. :func:`topology_history` gives all of it.

    :param network: Name of a network under ``model.policy`` ("actor", "critic", "q_net", "mlp_extractor", ...), a list,
        or "all".
    :param fraction: Share of each layer's weights that a rewiring moves, in [0, 1], rounded down to whole weights.
    :param update_freq: Environment steps between two rewirings.
    :param grow: Where weights grow: "random" or "gradient".
    :param fraction_schedule: "constant", or "cosine": the fraction falls to 0 at ``stop``.
    :param stop: When rewiring ends, itself excluded: a share of the (first) run if a float, environment steps if an int. At
        1.0 a constant fraction goes on as long as training does, also in later calls of ``learn()``.
    :param targets: What becomes of target networks. "topk" prunes their smallest weights after each soft update, down to
        the online number of weights (DS-TD3); "mask" gives them the online mask (RLx2: Tan et al. 2023); "polyak" leaves
        them to the averaging.
    :param seed: Seed of random growth; the model's seed by default.
    :param verbose: Verbosity level: 0 for no output, 1 for a line at every rewiring.
    :param drop: Score of the weights that exist, the lowest are dropped: "magnitude", or "magnitude_by_sign", which takes
        the fraction of the positive and of the negative weights (what DS-TD3's published code does).
    :param exclude: Layers to leave as they are, as shell patterns: "actor.mu", "mu", "qf*.4".
    :raises ValueError: on an unknown name, a fraction outside [0, 1] or a ``stop`` that is no moment of a run; at the start of
        training on an unknown network
    """

    def __init__(
        self,
        network: str | Sequence[str],
        fraction: float = 0.05,
        update_freq: int = 1000,
        grow: str = "random",
        fraction_schedule: str = "constant",
        stop: float | int = 1.0,
        targets: str = "topk",
        seed: int | None = None,
        verbose: int = 0,
        *,
        drop: str = "magnitude",
        exclude: Sequence[str] = (),
    ) -> None:
        super().__init__(network, exclude=exclude, targets=targets, verbose=verbose)
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0.0 <= fraction <= 1.0:
            raise ValueError(f"fraction is a share of the weights and must lie in [0, 1], got {fraction!r}")
        for name, value, known in (
            ("grow", grow, GROW),
            ("fraction_schedule", fraction_schedule, FRACTION_SCHEDULES),
            ("drop", drop, tuple(SALIENCIES)),
        ):
            if value not in known:
                raise ValueError(f"unknown {name}='{value}': use one of {', '.join(known)}")
        if drop in SAMPLES:
            raise ValueError(f"drop='{drop}' needs data, and a rewiring has none: use 'magnitude' or 'magnitude_by_sign'")
        self.fraction = float(fraction)
        self.update_freq = check_count("update_freq", update_freq, least=1)
        self.grow = grow
        self.fraction_schedule = fraction_schedule
        self.stop = check_moment("stop", stop)
        self.drop = drop
        self.seed = None if seed is None else check_count("seed", seed, least=0)

    def _arguments(self) -> dict[str, object]:
        own = ("fraction", "update_freq", "grow", "fraction_schedule", "stop", "drop", "seed")
        return {name: getattr(self, name) for name in own}

    def _start(self, clock: dict[str, int]) -> None:
        if "seed" not in clock:
            clock["seed"] = first_seed(self.seed, self.model)
        clock.setdefault("start", self.timestep)
        clock.setdefault("updates", 0)
        clock.setdefault("n_updates", self.model._n_updates)
        endless = self.fraction_schedule == "constant" and isinstance(self.stop, float) and self.stop == 1.0
        if not endless:
            clock.setdefault("stop", self._resolve(self.stop))
        self._schedule: Schedule = Constant(self.fraction)
        if self.fraction_schedule == "cosine":
            start = clock["start"]
            self._schedule = Cosine(self.fraction, start=start, end=max(start, clock["stop"]))
        if clock.get("stop", math.inf) <= clock["start"] + self.update_freq:
            warnings.warn(
                f"stop={self.stop} is step {clock['stop']}, and the first rewiring is due at step "
                f"{clock['start'] + self.update_freq}: there will be none (a float is a share of the run, 1.0 its end)",
                stacklevel=2,
            )

    def _load(self, selected: dict[str, dict[str, Layer]]) -> SavedLayers:
        saved = super()._load(selected)
        for layers in selected.values():
            for name, layer in layers.items():
                # They are used later, but what is damaged has to be found before anything is changed.
                self._state.load_mask(name, layer.weight.shape, "explored")
                self._state.load_mask(name, layer.weight.shape, "pending")
        return saved

    def _init_callback(self) -> None:
        super()._init_callback()
        self._growth = Growth(self.model, self.layers, self._optimizers, self.drop, self.grow)
        layers = {name: layer for network in self.layers.values() for name, layer in network.items()}
        self._pending = Pending(self.model, self._state, self._clock, layers)
        self._topologies: dict[str, Topology] = {}
        self._followers: list[TopkFollower] = []
        if self.targets == "topk":
            self._followers = follow_topk(self._twins)
        else:
            unfollow(self._twins)
        if self.targets == "mask":
            # Whatever rule they had before.
            for network, masked in self.layers.items():
                self._apply(network, {name: layer.mask.clone() for name, layer in masked.items()}, rules=("mask",))

    def _update(self) -> None:
        # DQN updates its target network after this, and others may look at the model after that.
        for follower in self._followers:
            follower.prune()

    def _on_step(self) -> bool:
        self._begin()
        return super()._on_step()

    def _begin(self) -> None:
        """Look at the networks once, after the first step of a run: whatever makes them sparse has been at work."""
        if self._topologies:
            return
        for network, layers in self.layers.items():
            self._topologies[network] = Topology(self._state, network, layers, self.timestep)
        counts = [int(x.mask.sum()) for layers in self.layers.values() for x in layers.values() if x.pruned]
        if not counts and len(self._state.callbacks) == 1:
            warnings.warn(
                f"{', '.join(self.layers)}: dense, so there is nothing to rewire: put a OneShotPruningCallback(..., "
                'saliency="random") before RewiringCallback, or take a sparse policy',
                stacklevel=2,
            )
        if counts and self.fraction > 0 and max(counts) * self.fraction < 1:
            warnings.warn(
                f"fraction={self.fraction} of the largest layer's {max(counts)} weights is less than one: none will ever move",
                stacklevel=2,
            )

    def _due(self) -> int:
        """Number of the rewiring that is due now, or 0."""
        number = (self.timestep - self._clock["start"]) // self.update_freq
        if "stop" in self._clock:
            number = min(number, (self._clock["stop"] - self._clock["start"] - 1) // self.update_freq)
        return number if number > self._clock["updates"] else 0

    def _on_rollout_end(self) -> None:
        super()._on_rollout_end()
        # Just before train().
        if self._due():
            self._growth.start()

    def _on_rollout_start(self) -> None:
        super()._on_rollout_start()
        masks = self._propose()
        if masks:
            self._rewire(masks)

    def _on_training_end(self) -> None:
        super()._on_training_end()
        if self.grow == "gradient" and (masks := self._propose()):
            # Weights that grow now would stay zero if this is the end, and the gradients are lost if it is not.
            self._pending.keep(masks)
        if self.verbose > 0:
            counts = {network: len(self._state.topologies().get(network, [])) for network in self.layers}
            done = ", ".join(f"{network} {count} times" for network, count in counts.items())
            print(f"{type(self).__name__}: stopped at step {self.timestep}, rewired {done}")

    def _enforce(self) -> None:
        super()._enforce()
        for follower in self._followers:
            follower.prune()

    def _propose(self) -> Named:
        """New masks of all layers if a rewiring is due, and if they can be told."""
        self._growth.stop()
        number = self._due()
        if not number:
            return {}
        self._begin()
        if self.model._n_updates == self._clock["n_updates"]:
            # Not trained since the last one: this one is left out.
            self._clock["updates"] = number
            return {}
        fraction = self._schedule(self._clock["start"] + number * self.update_freq)
        return self._pending.take() or self._growth.masks(fraction, self._clock["seed"], number)

    def _rewire(self, masks: Named) -> None:
        for network, layers in self.layers.items():
            old = {name: layer.mask.clone() for name, layer in layers.items()}
            if self.targets != "mask":
                for layer in layers.values():
                    _unmask(self._twins[layer])
            self._apply(network, {name: masks[name] for name in layers}, rules=("mask",))
            self._log |= self._topologies[network].record(self.timestep, old)
        self._clock.update(updates=self._due(), n_updates=self.model._n_updates)
        if self.verbose > 0:
            done = ", ".join(f"{network} {self._log[f'sparsity/{network}_churn']:.4f}" for network in self.layers)
            print(f"{type(self).__name__}: step {self.timestep}, replaced of {done}")


def _unmask(targets: Iterable[Layer]) -> None:
    """Targets of a sparse policy have masks, but from now on another topology: loading them would take weights away."""
    for target in targets:
        if isinstance(target, MaskedLayer) and target.pruned:
            target.set_mask(th.ones_like(target.mask))
